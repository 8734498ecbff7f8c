"""A pseudo-localisation: every string about half as long again, in Hebrew letters, written right-to-left.

It shows how a page lays out long texts and right-to-left text. Its catalog is generated from the product's strings when
tests start, in their temporary folder, and only the tests' settings offer it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from babel.messages.catalog import Catalog

from tests import words

# A made-up variant of Hebrew, so that browsers lay it out right-to-left. Django's own strings are in real Hebrew.
CODE = "he-xx"
LOCALE = "he_XX"
INFO = {"bidi": True, "code": CODE, "name": "Pseudo", "name_local": "Pseudo"}

# Real right-to-left letters, one for each Latin letter.
LETTERS = str.maketrans("abcdefghijklmnopqrstuvwxyz", "אבגדהוזחטיכלמנסעפצקרשתאבגד")
PLACEHOLDER_OR_TAG = re.compile(r"(%\(\w+\)[sd]|%%|</?\w+[^>]*>)")
MAX_WORD_LENGTH = 12
# Django's date format characters, such as "j M Y, H:i", must not be translated.
IS_DATE = re.compile(r"(?:\b[A-Za-z]\b|[^A-Za-z])+")


def pseudo(text: str) -> str:
    if IS_DATE.fullmatch(text):
        return text
    parts = PLACEHOLDER_OR_TAG.split(text)
    parts = [part if PLACEHOLDER_OR_TAG.fullmatch(part) else part.lower().translate(LETTERS) for part in parts]
    padding = "\N{HEBREW LETTER SHIN}" * (1 + len(text) // 4)
    # The padding can wrap, because no real word is as long as a quarter of a sentence.
    tail = [padding[at : at + MAX_WORD_LENGTH] for at in range(0, len(padding), MAX_WORD_LENGTH)]
    return " ".join(["".join(parts), *tail]) + "."


def make(directory: Path) -> None:
    """Write the compiled catalog to where Django looks for it below a locale path."""
    catalog = Catalog(locale="he", charset="utf-8")
    for message in words.gathered():
        if message.id:
            text = message.id if isinstance(message.id, str) else message.id[0]
            plurals = (pseudo(message.id[1]),) * catalog.num_plurals if isinstance(message.id, tuple) else pseudo(text)
            catalog.add(message.id, plurals, context=message.context)
    target = directory / LOCALE / "LC_MESSAGES"
    target.mkdir(parents=True, exist_ok=True)
    # Several workers of one run write the same file, so each replaces it atomically.
    own = target / f"{os.getpid()}.mo"
    own.write_bytes(words.compiled(catalog))
    own.replace(target / "django.mo")
