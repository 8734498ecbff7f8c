"""What a username and a display name may be."""

from __future__ import annotations

import re
import unicodedata

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

USERNAME_MIN = 3
USERNAME_MAX = 64
DISPLAY_NAME_MAX = 80
PASSWORD_MIN = 8
PASSWORD_MAX = 128

_USERNAME = re.compile(r"[A-Za-z0-9._@+-]+", re.ASCII)
# Unicode's Bidi_Control: marks that can make one name look like another.
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_NOT_TEXT = frozenset({"Cc", "Cs", "Zl", "Zp"})


def validate_username(value: str) -> None:
    if len(value) < USERNAME_MIN:
        raise ValidationError(_("Use at least %(min)d characters."), "short", {"min": USERNAME_MIN})
    if len(value) > USERNAME_MAX:
        raise ValidationError(_("Use at most %(max)d characters."), "long", {"max": USERNAME_MAX})
    if not _USERNAME.fullmatch(value):
        raise ValidationError(_("Use only the letters A-Z, digits and . _ - @ +"), "letters")


def validate_display_name(value: str) -> None:
    """Leave the length to the field's own validator, which refuses a longer value, too."""
    if len(value) > DISPLAY_NAME_MAX:
        # Looking at each of ten million characters takes a third of a second.
        return
    if any(character in _BIDI_CONTROLS for character in value):
        raise ValidationError(_("Leave out the invisible marks that change the direction of writing."), "bidi")
    if any(unicodedata.category(character) in _NOT_TEXT for character in value):
        raise ValidationError(_("Leave out line breaks and control characters."), "control")
