"""A language that nobody speaks: every string half as long again, in Hebrew letters, read from the right.

It shows what a page does with long words and with another direction; it is made of the strings themselves when
tests start, in their temporary folder, and is offered by the tests' settings alone.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from babel.messages.catalog import Catalog

from tests import words

# A Hebrew that there is not, so that browsers know how to read it; what Django itself says is in Hebrew.
CODE = "he-xx"
LOCALE = "he_XX"
INFO = {"bidi": True, "code": CODE, "name": "Pseudo", "name_local": "Pseudo"}

# A letter for each letter: what is read is no word, and its direction is a real one.
LETTERS = str.maketrans("abcdefghijklmnopqrstuvwxyz", "אבגדהוזחטיכלמנסעפצקרשתאבגד")
KEPT = re.compile(r"(%\(\w+\)[sd]|%%|</?\w+[^>]*>)")
WORD_MOST = 12
# Django's letters for days and hours.
IS_DATE = re.compile(r"(?:\b[A-Za-z]\b|[^A-Za-z])+")


def pseudo(text: str) -> str:
    if IS_DATE.fullmatch(text):
        return text
    parts = [part if KEPT.fullmatch(part) else part.lower().translate(LETTERS) for part in KEPT.split(text)]
    more = "\N{HEBREW LETTER SHIN}" * (1 + len(text) // 4)
    # No word of any language is as long as a quarter of a sentence.
    tail = [more[at : at + WORD_MOST] for at in range(0, len(more), WORD_MOST)]
    return " ".join(["".join(parts), *tail]) + "."


def make(directory: Path) -> None:
    """The compiled catalog of it, where Django looks for one."""
    catalog = Catalog(locale="he", charset="utf-8")
    for message in words.gathered():
        if message.id:
            said = message.id if isinstance(message.id, str) else message.id[0]
            plurals = (pseudo(message.id[1]),) * catalog.num_plurals if isinstance(message.id, tuple) else pseudo(said)
            catalog.add(message.id, plurals, context=message.context)
    target = directory / LOCALE / "LC_MESSAGES"
    target.mkdir(parents=True, exist_ok=True)
    # Several workers of one run write it.
    made = target / f"{os.getpid()}.mo"
    made.write_bytes(words.compiled(catalog))
    made.replace(target / "django.mo")
