"""The trail as CSV: streamed a batch at a time, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC
from typing import Any

from django.utils.translation import gettext as _

from audit.sentences import Line, line_of
from audit.trail import Trail

CHUNK_BYTES = 64 * 1024
# What a spreadsheet would take for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def sheet_of(trail: Trail) -> Iterator[bytes]:
    """UTF-8 with its mark, by which a spreadsheet knows it; some 64 kB at a time."""
    written = io.StringIO("\ufeff")
    written.seek(0, io.SEEK_END)
    rows = csv.writer(written, lineterminator="\r\n")
    rows.writerow(_heads())
    for event in trail.every_event():
        rows.writerow([_safe(cell) for cell in _cells(line_of(event, trail.user))])
        if written.tell() >= CHUNK_BYTES:
            yield written.getvalue().encode()
            written.seek(0)
            written.truncate()
    yield written.getvalue().encode()


def _heads() -> list[str]:
    return [
        *(_("Time (UTC)"), _("Activity"), _("Refused because"), _("Who"), _("Whom or what"), _("Kind")),
        *(_("Address"), _("Request ID"), _("Before"), _("After")),
    ]


def _cells(line: Line) -> list[str]:
    event = line.event
    return [
        event.at.astimezone(UTC).isoformat(),
        line.text,
        line.why,
        line.actor,
        line.target,
        event.kind,
        line.address,
        event.request_id,
        _written(event.before),
        _written(event.after),
    ]


def _written(facts: dict[str, Any]) -> str:
    return json.dumps(facts, ensure_ascii=False) if facts else ""


def _safe(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
