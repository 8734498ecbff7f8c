from __future__ import annotations

from itertools import groupby
from typing import Any

from django import forms
from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.models import Theme
from console.sign_in.forms import CurrentPasswordForm
from core.fields import DisplayNameField, NewPasswordField, refuse_similar
from core.locales import REGIONS, offset_of, zone_names
from core.names import validate_display_name


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
    return [("", _("The browser’s language")), *settings.LANGUAGES]


def zone_choices() -> list[tuple[str, Any]]:
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


class OwnPasswordForm(CurrentPasswordForm):
    attempt = "self.password_changed"
    new_password = NewPasswordField()

    def clean(self) -> None:
        new = self.cleaned_data.get("new_password")
        if not new:
            return
        refuse_similar(self, "new_password", self.request.user.username)
        if new == self.cleaned_data.get("present_password"):
            self.add_error("new_password", _("That is your current password. Choose another one."))


class PasskeyForm(forms.Form):
    name = forms.CharField(
        max_length=40,
        validators=[validate_display_name],
        error_messages={"required": _("Give it a name."), "max_length": _("Use at most 40 characters.")},
    )
    passkey = forms.CharField(
        widget=forms.HiddenInput, error_messages={"required": _("Your browser has made no passkey. Try again.")}
    )
