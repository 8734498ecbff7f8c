from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm
from django.utils.translation import gettext_lazy as _

from accounts.fields import DisplayNameField, NewPasswordField
from accounts.models import User
from accounts.services import is_present_password


class SignInForm(AuthenticationForm):
    """One sentence for a wrong name, a wrong password and a disabled account."""

    error_messages = {
        "invalid_login": _("That username and password don’t match an active account."),
        "inactive": _("That username and password don’t match an active account."),
    }


class ProfileForm(forms.Form):
    display_name = DisplayNameField()


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
        if not is_present_password(user=self.user, password=password):
            raise forms.ValidationError(_("That is not your present password."), "wrong")
        return password
