"""makemessages and compilemessages without GNU gettext: `python -m tests.words`.

It extracts every translatable string from code and templates into locale/*/LC_MESSAGES/django.po and compiles the .mo
beside it. Its exit code is 1 if a translation is missing or invalid, and it lists those. Babel extracts from Python
source, into which Django's templatize() turns templates, as makemessages does for xgettext.
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
# The relay's errors are for programs, and not translated.
NOT_TRANSLATED = {"relay/errors.py", "relay/videos.py"}
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
    """Yield each translatable string: its msgid (or a tuple with its plural), context, file and line."""
    for place in PLACES:
        for path in sorted((ROOT / place).rglob("*")):
            name = str(path.relative_to(ROOT))
            if path.suffix in (".py", ".html") and name not in NOT_TRANSLATED:
                yield from _found_in(path, name)


def _found_in(path: Path, name: str) -> Iterator[Found]:
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".html":
        # A template's indentation would be a syntax error in Python.
        source = "\n".join(line.strip() for line in templatize(source, name).splitlines())
    # Babel's annotations are incomplete: the arguments are a string if there is one, a tuple if there are several.
    calls: Any = extract_python(BytesIO(source.encode()), KEYWORDS, [], {})
    for line, function, arguments, _comments in calls:
        words = [arguments] if isinstance(arguments, str) else [text for text in arguments or () if text]
        context = words.pop(0) if function and "pgettext" in function else None
        if not words or not words[0]:
            continue
        is_plural = bool(function and "ngettext" in function.replace("np", "n"))
        yield (words[0], words[1]) if is_plural else words[0], context, name, line


def gathered() -> Catalog:
    """Return a catalog of all translatable strings, without line numbers, which would change with every commit."""
    catalog = Catalog(charset="utf-8")
    everything = list(found())
    plurals = {msgid[0]: msgid for msgid, _, _, _ in everything if isinstance(msgid, tuple)}
    for msgid, context, name, _line in everything:
        full = plurals.get(msgid, msgid) if isinstance(msgid, str) else msgid
        catalog.add(full, context=context, locations=[(name, 0)])
    return catalog


def catalogs() -> list[Path]:
    return sorted(LOCALES.glob("*/LC_MESSAGES/django.po"))


def script_catalogs() -> list[Path]:
    """What Django's translations of its own scripts lack. Written by hand, compiled here."""
    return sorted(LOCALES.glob("*/LC_MESSAGES/djangojs.po"))


def read(path: Path) -> Catalog:
    with path.open("rb") as file:
        # Babel understands Django's name of the locale, which is the folder's.
        return read_po(file, locale=path.parent.parent.name)


def problems(catalog: Catalog, template: Catalog) -> list[str]:
    """List the strings of the template whose translation is missing, fuzzy or invalid."""
    wrong = []
    for message in template:
        if message.id:
            own = catalog.get(message.id if isinstance(message.id, str) else message.id[0], message.context)
            wrong += [f"{reason}: {message.id!r}" for reason in _problems_of(own, message, catalog.num_plurals)]
    return wrong


def _problems_of(own: Message | None, message: Message, plurals: int) -> list[str]:
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
    """Update the .po file with the current strings, keep its translations, and compile it."""
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
        wrong += [f"{path.parent.parent.name}: {text}" for text in problems(update(path, template), template)]
    for path in script_catalogs():
        path.with_suffix(".mo").write_bytes(compiled(read(path)))
    print("\n".join(wrong) or f"All {len(template)} strings are translated.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
