"""The words of the product and their translations, without GNU gettext: `python -m tests.words`.

Gathers every string from code and templates into locale/*/LC_MESSAGES/django.po, compiles the .mo beside it, and
lists what is not translated, or not rightly; its exit code is 1 then. Babel reads Python and both kinds of files;
templates are turned into what it can read by Django itself, as its makemessages does for xgettext.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_python
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parent.parent
LOCALES = ROOT / "locale"
PLACES = [
    "accounts",
    "audit",
    "console",
    "core",
    "operators",
    "quotas",
    "relay",
    "spacemanage",
    "tenants",
    "usage",
    "templates",
]
# What the relay answers is for programs, and in English.
FOR_PROGRAMS = {"relay/errors.py", "relay/videos.py"}
KEYWORDS: dict[str, tuple[int | tuple[int, str], ...] | None] = {
    "_": None,
    "gettext": None,
    "gettext_lazy": None,
    "gettext_noop": None,
    "ngettext": (1, 2),
    "ngettext_lazy": (1, 2),
    "pgettext": ((1, "c"), 2),
    "pgettext_lazy": ((1, "c"), 2),
    "npgettext": ((1, "c"), 2, 3),
}
PLACEHOLDER = re.compile(r"%\((\w+)\)[sd]|%%|</?\w+[^>]*>")

Found = tuple[str | tuple[str, str], str | None, str, int]


def found() -> Iterator[Found]:
    """Each string that the product says: the id or its two, the context, and where it stands."""
    for place in PLACES:
        for path in sorted((ROOT / place).rglob("*")):
            name = str(path.relative_to(ROOT))
            if path.suffix in (".py", ".html") and name not in FOR_PROGRAMS:
                yield from _found_in(path, name)


def _found_in(path: Path, name: str) -> Iterator[Found]:
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".html":
        # A template's own indentation means nothing to Python.
        source = "\n".join(line.strip() for line in templatize(source, name).splitlines())
    # Babel's types say less than what comes: one string for one argument, a tuple for several.
    calls: Any = extract_python(BytesIO(source.encode()), KEYWORDS, [], {})
    for line, function, said, _comments in calls:
        words = [said] if isinstance(said, str) else [word for word in said or () if word]
        context = words.pop(0) if function and "pgettext" in function else None
        if not words or not words[0]:
            continue
        is_plural = bool(function and "ngettext" in function.replace("np", "n"))
        yield (words[0], words[1]) if is_plural else words[0], context, name, line


def gathered() -> Catalog:
    """Everything that is to be translated. The lines are left out: they would change with every commit."""
    catalog = Catalog(charset="utf-8")
    everything = list(found())
    plurals = {said[0]: said for said, _, _, _ in everything if isinstance(said, tuple)}
    for said, context, name, _line in everything:
        catalog.add(plurals.get(said, said) if isinstance(said, str) else said, context=context, locations=[(name, 0)])
    return catalog


def catalogs() -> list[Path]:
    return sorted(LOCALES.glob("*/LC_MESSAGES/django.po"))


def read(path: Path) -> Catalog:
    with path.open("rb") as file:
        # The folder's name is Django's, which Babel reads too.
        return read_po(file, locale=path.parent.parent.name)


def wrongs(catalog: Catalog, template: Catalog) -> list[str]:
    """What a reader of this catalog would see in English or broken."""
    wrong = []
    for message in template:
        if message.id:
            own = catalog.get(message.id if isinstance(message.id, str) else message.id[0], message.context)
            wrong += [f"{reason}: {message.id!r}" for reason in _wrongs_of(own, message, catalog.num_plurals)]
    return wrong


def _wrongs_of(own: Message | None, message: Message, plurals: int) -> list[str]:
    if own is None or not own.string or (isinstance(own.string, (tuple, list)) and not all(own.string)):
        return ["not translated"]
    if own.fuzzy:
        return ["only guessed (fuzzy)"]
    texts = [own.string] if isinstance(own.string, str) else list(own.string)
    originals = [message.id] if isinstance(message.id, str) else list(message.id)
    wanted = {tuple(sorted(map(str, _placeholders(text)))) for text in originals}
    reasons = []
    if isinstance(message.id, tuple) and len(texts) != plurals:
        reasons.append(f"{len(texts)} plural forms instead of {plurals}")
    if any(tuple(sorted(_placeholders(text))) not in wanted for text in texts):
        reasons.append("other placeholders")
    return reasons


def _placeholders(text: str) -> list[str]:
    return [found[0] for found in PLACEHOLDER.finditer(text)]


def compiled(catalog: Catalog) -> bytes:
    buffer = BytesIO()
    write_mo(buffer, catalog)
    return buffer.getvalue()


def update(path: Path, template: Catalog) -> Catalog:
    """Rewrites the .po with what is said now, keeping its translations, and compiles it."""
    catalog = read(path)
    catalog.update(template, no_fuzzy_matching=True, update_creation_date=False)
    catalog.obsolete.clear()
    with path.open("wb") as file:
        write_po(file, catalog, width=120, sort_output=True, include_lineno=False, ignore_obsolete=True)
    path.with_suffix(".mo").write_bytes(compiled(read(path)))
    return read(path)


def main() -> int:
    template = gathered()
    wrong = []
    for path in catalogs():
        wrong += [f"{path.parent.parent.name}: {text}" for text in wrongs(update(path, template), template)]
    print("\n".join(wrong) or f"All {len(template)} strings are translated.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
