from __future__ import annotations

from functools import partial
from typing import Any

from django import forms
from django.contrib.auth.forms import PasswordChangeForm
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from accounts.models import User
from accounts.services import change_own_password
from accounts.throttle import check_secret


class OperatorPasswordForm(PasswordChangeForm):
    """Django admin's form for one's own password, with the same rules as OwnPasswordForm has for members."""

    user: User

    def __init__(self, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        self.request = request
        super().__init__(*args, **kwargs)

    def clean_old_password(self) -> str:
        password: str = self.cleaned_data["old_password"]
        check = partial(self.user.check_password, password)
        if not check_secret(self.request, self.user, check, attempt="self.password_changed"):
            raise forms.ValidationError(self.error_messages["password_incorrect"], "password_incorrect")
        return password

    def clean_new_password2(self) -> str:
        password: str = self.cleaned_data["new_password2"]
        if password == self.cleaned_data.get("old_password"):
            raise forms.ValidationError(_("That is your current password. Choose another one."), "unchanged")
        return password

    def save(self, commit: bool = True) -> User:
        change_own_password(user=self.user, password=self.cleaned_data["new_password1"])
        return self.user
