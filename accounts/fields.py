"""Form fields that several pages share: each turns a string into our own type and says what is wrong in plain words."""

from __future__ import annotations

from functools import cache
from typing import Any

from django import forms
from django.contrib.auth.password_validation import CommonPasswordValidator, UserAttributeSimilarityValidator
from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator
from django.forms.boundfield import BoundField
from django.forms.renderers import DjangoTemplates
from django.utils.translation import gettext_lazy as _

from accounts.models import User
from core.names import (
    MAX_DISPLAY_NAME_LENGTH,
    MAX_PASSWORD_LENGTH,
    MIN_PASSWORD_LENGTH,
    validate_display_name,
    validate_username,
)

MAX_ECHOED_LENGTH = 1000


class TruncatedBoundField(BoundField):
    """What was typed, as far as a person could have typed it: ten megabytes are not sent back."""

    def value(self) -> Any:
        value = super().value()
        return value[:MAX_ECHOED_LENGTH] if isinstance(value, str) else value


class TruncatingRenderer(DjangoTemplates):
    """The renderer of every form here, for its bound fields."""

    bound_field_class = TruncatedBoundField


class UsernameField(forms.CharField):
    default_validators = [validate_username]
    default_error_messages = {"required": _("Enter a username.")}


class DisplayNameField(forms.CharField):
    default_validators = [validate_display_name]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, **kwargs)
        self.validators.insert(0, MaxLengthValidator(MAX_DISPLAY_NAME_LENGTH, _("Use at most 80 characters.")))


class NewPasswordField(forms.CharField):
    default_error_messages = {"required": _("Enter a password.")}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(strip=False, widget=forms.PasswordInput(render_value=True), **kwargs)

    def validate(self, value: str) -> None:
        super().validate(value)
        if value and len(value) < MIN_PASSWORD_LENGTH:
            raise forms.ValidationError(_("Use at least %(min)d characters."), "short", {"min": MIN_PASSWORD_LENGTH})
        if len(value) > MAX_PASSWORD_LENGTH:
            raise forms.ValidationError(_("Use at most %(max)d characters."), "long", {"max": MAX_PASSWORD_LENGTH})
        if value and is_common(value):
            raise forms.ValidationError(
                _("This password is too common. Choose another one."), "common"
            )


def is_common(password: str) -> bool:
    """Whether it is among the twenty thousand that Django ships a list of."""
    try:
        _common_passwords().validate(password)
    except ValidationError:
        return True
    return False


def refuse_similar(form: forms.BaseForm, field: str, username: str) -> None:
    """A password that is nearly the username is a guess, not a secret."""
    password = form.cleaned_data.get(field)
    if not password or not username:
        return
    try:
        UserAttributeSimilarityValidator(["username"]).validate(password, User(username=username))
    except ValidationError:
        form.add_error(field, _("This password is too similar to the username."))


@cache
def _common_passwords() -> CommonPasswordValidator:
    return CommonPasswordValidator()
