"""Bodies as a lenient provider reads them: JSON in which the last duplicate wins, and multipart forms."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from tests.relay.provider.kinds import Kind

_BOUNDARY = re.compile(rb'boundary=(?:"([^"]*)"|([^;,\s]*))', re.IGNORECASE)
MAX_FLOAT = 1e15
_NAME = re.compile(rb'\bname=(?:"([^"]*)"|([^;\s]*))', re.IGNORECASE)


class Refused(Exception):
    """An error that costs nothing, as (status, message)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def read_json(raw: bytes, kind: Kind) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused(400, "not JSON") from None
    if not isinstance(body, dict):
        raise Refused(400, "not an object")
    for name in kind.merged:
        if isinstance(extra := body.get(name), dict):
            body |= extra
    return _folded(body) if kind.ignores_case else body


def _folded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name.casefold(): _folded(inner) for name, inner in value.items()}
    return [_folded(inner) for inner in value] if isinstance(value, list) else value


def read_forms(raw: bytes, content_type: str) -> list[dict[str, str]]:
    """All readings of a form: with the first or the last boundary, the first or the last of fields with one name."""
    boundaries = [first or second for first, second in _BOUNDARY.findall(content_type.encode("latin-1"))]
    readings = [_parts(raw, boundary) for boundary in dict.fromkeys(boundaries)]
    if not any(readings):
        raise Refused(400, "not a form")
    return [dict(order) for parts in readings if parts for order in (parts, parts[::-1])]


def _parts(raw: bytes, boundary: bytes) -> list[tuple[str, str]]:
    parts: list[tuple[str, str]] = []
    for part in (b"\r\n" + raw).split(b"\r\n--" + boundary)[1:]:
        head, found, content = part.partition(b"\r\n\r\n")
        if part.startswith(b"--") or not found:
            break
        lines = (line for line in head.split(b"\r\n") if line.lower().startswith(b"content-disposition"))
        names = (name for line in lines if (name := _NAME.search(line)))
        parts.extend(((name[1] or name[2]).decode("latin-1"), content.decode("latin-1")) for name in names)
    return parts


def whole_number(value: object) -> int | None:
    """A number as lenient parsers take it: digits in a string, a whole float, a boolean."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and abs(value) < MAX_FLOAT else None
    return int(value) if isinstance(value, int) else None
