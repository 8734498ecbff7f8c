from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from core.money import AmountError, parse_usd

_MESSAGES = {
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
            raise forms.ValidationError(_MESSAGES[error.code], error.code) from None
