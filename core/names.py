"""Validators for usernames and display names, and the length limits of names, models' names and passwords."""

from __future__ import annotations

import re
import unicodedata

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

MIN_USERNAME_LENGTH = 3
MAX_USERNAME_LENGTH = 64
MAX_DISPLAY_NAME_LENGTH = 80
MIN_PASSWORD_LENGTH = 8
MAX_PASSWORD_LENGTH = 128
MAX_MODEL_NAME_LENGTH = 100

_USERNAME = re.compile(r"[A-Za-z0-9._@+-]+", re.ASCII)
# Unicode's Bidi_Control characters, which can make one name look like another.
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_NOT_TEXT = frozenset({"Cc", "Cs", "Zl", "Zp"})


def validate_username(value: str) -> None:
    if len(value) < MIN_USERNAME_LENGTH:
        raise ValidationError(_("Use at least %(min)d characters."), "short", {"min": MIN_USERNAME_LENGTH})
    if len(value) > MAX_USERNAME_LENGTH:
        raise ValidationError(_("Use at most %(max)d characters."), "long", {"max": MAX_USERNAME_LENGTH})
    if not _USERNAME.fullmatch(value):
        raise ValidationError(_("Use only the letters A-Z, digits and . _ - @ +"), "letters")


def validate_display_name(value: str) -> None:
    if len(value) > MAX_DISPLAY_NAME_LENGTH:
        # The field's own validator refuses it. Return before the loops, which would take a third of a second for ten
        # million characters.
        return
    if any(character in _BIDI_CONTROLS for character in value):
        raise ValidationError(_("Leave out the invisible marks that change the direction of writing."), "bidi")
    if any(unicodedata.category(character) in _NOT_TEXT for character in value):
        raise ValidationError(_("Leave out line breaks and control characters."), "control")
