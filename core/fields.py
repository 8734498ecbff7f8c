"""Form fields for names, passwords and amounts, shared by the console and Django admin."""

from __future__ import annotations

from functools import cache
from typing import Any

from django import forms
from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import CommonPasswordValidator, UserAttributeSimilarityValidator
from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator
from django.forms.boundfield import BoundField
from django.forms.renderers import DjangoTemplates
from django.utils.translation import gettext_lazy as _

from core.money import AmountError, parse_usd
from core.names import (
    MAX_DISPLAY_NAME_LENGTH,
    MAX_PASSWORD_LENGTH,
    MIN_PASSWORD_LENGTH,
    validate_display_name,
    validate_username,
)

MAX_ECHOED_LENGTH = 1000


class TruncatedBoundField(BoundField):
    """Truncate the submitted value that a form shows again, so that a request of megabytes is not echoed back."""

    def value(self) -> Any:
        value = super().value()
        return value[:MAX_ECHOED_LENGTH] if isinstance(value, str) else value


class TruncatingRenderer(DjangoTemplates):
    """The renderer of all forms (FORM_RENDERER), which makes them use TruncatedBoundField."""

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
            raise forms.ValidationError(_("This password is too common. Choose another one."), "common")


_AMOUNT_MESSAGES = {
    "not_a_number": _("Enter an amount in dollars, like 12.50, in the digits 0-9."),
    "negative": _("Enter an amount of $0.00 or more."),
    "too_fine": _("Use at most nine decimals."),
    "too_large": _("Enter at most $1,000,000,000.00."),
}


class AmountField(forms.CharField):
    """Parses a decimal dollar amount into an int of nano-dollars; None when blank and not required."""

    def clean(self, value: Any) -> int | None:
        text: str = super().clean(value)
        if not text:
            return None
        try:
            return parse_usd(text)
        except AmountError as error:
            raise forms.ValidationError(_AMOUNT_MESSAGES[error.code], error.code) from None


def is_common(password: str) -> bool:
    try:
        _common_passwords().validate(password)
    except ValidationError:
        return True
    return False


def refuse_similar(form: forms.BaseForm, field: str, username: str) -> None:
    password = form.cleaned_data.get(field)
    if not password or not username:
        return
    try:
        UserAttributeSimilarityValidator(["username"]).validate(password, get_user_model()(username=username))
    except ValidationError:
        form.add_error(field, _("This password is too similar to the username."))


@cache
def _common_passwords() -> CommonPasswordValidator:
    return CommonPasswordValidator()
