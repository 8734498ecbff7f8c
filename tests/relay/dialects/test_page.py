"""docs/relay-requests.md lists every field of every endpoint by its verdict."""

from __future__ import annotations

import textwrap
from pathlib import Path

from relay.dialects import DIALECTS, videos
from relay.dialects.fields import REFUSED, Table, Verdict

PAGE = Path(__file__).parents[3] / "docs" / "relay-requests.md"
TABLES: dict[str, Table] = {path: dialect.rows for path, dialect in DIALECTS.items()} | {"/videos": videos.ROWS}


def test_the_page_lists_every_field_by_its_verdict() -> None:
    _text, _heading, listed = PAGE.read_text().partition("## Fields by verdict\n")

    # When this fails, replace the page's last section by what `listing` returns.
    assert listed == listing()


def listing() -> str:
    sections = [_section("Refused everywhere", {"": sorted(REFUSED)})]
    for path, rows in TABLES.items():
        names = {verdict: sorted(name for name, row in rows.items() if row.verdict is verdict) for verdict in Verdict}
        names[Verdict.REFUSE] = [name for name in names[Verdict.REFUSE] if name not in REFUSED]
        sections.append(_section(f"/v1{path}", {f"{verdict}: ": found for verdict, found in names.items() if found}))
    return "".join(sections)


def _section(title: str, lines: dict[str, list[str]]) -> str:
    listed = [f"{label}{', '.join(f'`{name}`' for name in names)}." for label, names in lines.items()]
    filled = ["\n".join(textwrap.wrap(f"- {line}", 100, subsequent_indent="  ")) for line in listed]
    return f"\n### {title}\n\n" + "\n".join(filled) + "\n"
