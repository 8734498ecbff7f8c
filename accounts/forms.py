from __future__ import annotations

from itertools import groupby
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth.forms import AuthenticationForm
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.fields import DisplayNameField, NewPasswordField
from accounts.locales import REGIONS, offset_of, zone_names
from accounts.models import Theme, User


class SignInForm(AuthenticationForm):
    """One sentence for a wrong name, a wrong password and a disabled account."""

    error_messages = {
        "invalid_login": _("That username and password don’t match an active account."),
        "inactive": _("That username and password don’t match an active account."),
    }


class ProfileForm(forms.Form):
    display_name = DisplayNameField()


class ThemeForm(forms.Form):
    theme = forms.ChoiceField(
        choices=Theme.choices,
        required=False,
        widget=forms.RadioSelect,
        error_messages={"invalid_choice": _("Choose a theme from the list.")},
    )


def language_choices() -> list[tuple[str, Any]]:
    return [("", _("As the browser asks")), *settings.LANGUAGES]


def zone_choices() -> list[tuple[str, Any]]:
    """Every zone under its region, with what its clocks are set to now."""
    now = timezone.now()
    places = sorted(zone_names() - {"UTC"})
    regions: list[tuple[str, Any]] = [
        (str(REGIONS[region]), [(name, f"{name} ({offset_of(name, now)})") for name in names])
        for region, names in groupby(places, lambda name: name.partition("/")[0])
    ]
    return [("", _("Not chosen: UTC")), ("UTC", "UTC"), *regions]


class LocaleForm(forms.Form):
    language = forms.ChoiceField(
        choices=language_choices,
        required=False,
        error_messages={"invalid_choice": _("Choose a language from the list.")},
    )
    time_zone = forms.ChoiceField(
        choices=zone_choices,
        required=False,
        error_messages={"invalid_choice": _("Choose a time zone from the list.")},
    )


class OwnPasswordForm(forms.Form):
    present_password = forms.CharField(
        strip=False, widget=forms.PasswordInput, error_messages={"required": _("Enter your present password.")}
    )
    new_password = NewPasswordField()

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        self.user = user
        super().__init__(*args, **kwargs)

    def clean_present_password(self) -> str:
        password: str = self.cleaned_data["present_password"]
        if not self.user.check_password(password):
            raise forms.ValidationError(_("That is not your present password."), "wrong")
        return password
