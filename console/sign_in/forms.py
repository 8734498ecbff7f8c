from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm
from django.utils.translation import gettext_lazy as _

from accounts.throttle import check_secret
from console.guards import SpaceRequest


class SignInForm(AuthenticationForm):
    """The same message for an unknown name, a wrong password and a disabled account, against user enumeration."""

    error_messages = {
        "invalid_login": _("That username and password don’t match an active account."),
        "inactive": _("That username and password don’t match an active account."),
    }


class CurrentPasswordForm(forms.Form):
    """Asks for the current password. Wrong ones are throttled like wrong passwords at sign-in."""

    # The kind of the audit event when the password is wrong.
    attempt = "self.confirmed"

    present_password = forms.CharField(
        strip=False, widget=forms.PasswordInput, error_messages={"required": _("Enter your current password.")}
    )

    def __init__(self, *args: Any, request: SpaceRequest, **kwargs: Any) -> None:
        self.request = request
        super().__init__(*args, **kwargs)

    def clean_present_password(self) -> str:
        password: str = self.cleaned_data["present_password"]
        user = self.request.user
        if not check_secret(self.request, user, lambda: user.check_password(password), attempt=self.attempt):
            raise forms.ValidationError(_("That is not your current password."), "wrong")
        return password


class CodeForm(forms.Form):
    """The six-digit code of an authenticator app, or a recovery code."""

    code = forms.CharField(error_messages={"required": _("Enter the code.")})

    def wrong(self) -> None:
        self.add_error("code", _("That code is not right, or was used before. Enter the one that is shown now."))
