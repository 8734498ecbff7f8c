from __future__ import annotations

from functools import partial
from itertools import groupby
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.fields import DisplayNameField, NewPasswordField, refuse_similar
from accounts.locales import REGIONS, offset_of, zone_names
from accounts.models import Theme, User
from accounts.names import validate_display_name
from accounts.services import change_own_password
from accounts.throttle import is_right
from tenants.middleware import SpaceRequest


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


class PresentPasswordForm(forms.Form):
    """Asks for the present password, under the limits of sign-in."""

    # What the trail calls an attempt with a wrong one.
    attempt = "self.confirmed"

    present_password = forms.CharField(
        strip=False, widget=forms.PasswordInput, error_messages={"required": _("Enter your present password.")}
    )

    def __init__(self, *args: Any, request: SpaceRequest, **kwargs: Any) -> None:
        self.request = request
        super().__init__(*args, **kwargs)

    def clean_present_password(self) -> str:
        password: str = self.cleaned_data["present_password"]
        user = self.request.user
        if not is_right(self.request, user, lambda: user.check_password(password), attempt=self.attempt):
            raise forms.ValidationError(_("That is not your present password."), "wrong")
        return password


class OwnPasswordForm(PresentPasswordForm):
    attempt = "self.password_changed"
    new_password = NewPasswordField()

    def clean(self) -> None:
        new = self.cleaned_data.get("new_password")
        if not new:
            return
        refuse_similar(self, "new_password", self.request.user.username)
        if new == self.cleaned_data.get("present_password"):
            self.add_error("new_password", _("That is your present password. Choose another one."))


class OperatorPasswordForm(PasswordChangeForm):
    """Of Django admin's page: its three fields, with the rules of OwnPasswordForm."""

    user: User

    def __init__(self, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        self.request = request
        super().__init__(*args, **kwargs)

    def clean_old_password(self) -> str:
        password: str = self.cleaned_data["old_password"]
        check = partial(self.user.check_password, password)
        if not is_right(self.request, self.user, check, attempt="self.password_changed"):
            raise forms.ValidationError(self.error_messages["password_incorrect"], "password_incorrect")
        return password

    def clean_new_password2(self) -> str:
        password: str = self.cleaned_data["new_password2"]
        if password == self.cleaned_data.get("old_password"):
            raise forms.ValidationError(_("That is your present password. Choose another one."), "unchanged")
        return password

    def save(self, commit: bool = True) -> User:
        change_own_password(user=self.user, password=self.cleaned_data["new_password1"])
        return self.user


class CodeForm(forms.Form):
    """Six digits of an app, or a recovery code."""

    code = forms.CharField(error_messages={"required": _("Enter the code.")})

    def wrong(self) -> None:
        self.add_error("code", _("That code is not right, or was used before. Enter the one that is shown now."))


class PasskeyForm(forms.Form):
    name = forms.CharField(
        max_length=40,
        validators=[validate_display_name],
        error_messages={"required": _("Give it a name."), "max_length": _("Use at most 40 characters.")},
    )
    passkey = forms.CharField(
        widget=forms.HiddenInput, error_messages={"required": _("Your browser has made no passkey. Try again.")}
    )
