"""CSV export of the audit trail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from django.utils.translation import gettext as _

from console.activity.sentences import SentenceLine, line_of
from console.activity.trail import Trail
from console.export import CsvColumn, moment, sheet, text


def trail_sheet(trail: Trail, *, has_bom: bool) -> Iterator[str]:
    lines = ([line_of(event, trail.user) for event in batch] for batch in trail.batches())
    return sheet(_columns(), lines, has_bom=has_bom, has_sums=False)


def _columns() -> list[CsvColumn[SentenceLine]]:
    return [
        moment(_("Time"), lambda line: line.event.at),
        text(_("Activity"), lambda line: line.text),
        text(_("Refused because"), lambda line: line.why),
        text(_("Who"), lambda line: line.actor),
        text(_("Target"), lambda line: line.target),
        text(_("Kind"), lambda line: line.event.kind),
        text(_("Address"), lambda line: line.address),
        text(_("Request ID"), lambda line: line.event.request_id),
        text(_("Before"), lambda line: _as_json(line.event.before)),
        text(_("After"), lambda line: _as_json(line.event.after)),
    ]


def _as_json(facts: dict[str, Any]) -> str:
    return json.dumps(facts, ensure_ascii=False) if facts else ""
