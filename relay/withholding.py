"""Cut the usage out of a stream's event for a client that did not ask for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from relay import quick_json

# What identifies a chunk, and tells a client nothing by itself.
_ENVELOPE = frozenset({"choices", "object"})
_decode_value = json.JSONDecoder().raw_decode
# Each try parses the event, so that an event full of the name would take quadratic time.
_MAX_TRIES = 8
_WHITESPACE = b" \t\r\n"


def tells_usage(payload: dict[str, Any]) -> bool:
    return any(True for _ in _holders(payload))


def without_usage(data: bytes, payload: dict[str, Any]) -> bytes | None:
    """The event's JSON without its usage, all else byte by byte as it was; None if nothing else is in it.

    `payload` is the parsed `data`; the usage is deleted from it.
    """
    for holder in list(_holders(payload)):
        del holder["usage"]
        data = _cut(data, payload)
    return None if _is_empty_chunk(payload) else data


def _holders(payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
    choices = payload.get("choices")
    for place in (payload, payload.get("x_groq"), *(choices if isinstance(choices, list) else ())):
        if isinstance(place, dict) and place.get("usage") is not None:
            yield place


def _is_empty_chunk(payload: dict[str, Any]) -> bool:
    choices = payload.get("choices") or []
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        return False
    fields = [value for choice in choices for name, value in choice.items() if name != "index"]
    others = [value for name, value in payload.items() if name not in _ENVELOPE and isinstance(value, dict | list)]
    is_error = bool(payload.get("error"))
    return not is_error and not any(map(_has_content, fields)) and not any(map(_has_objects, others))


def _has_content(value: object) -> bool:
    """Whether anything but null, empty strings and empty containers is inside."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict | list):
            pending.extend(item.values() if isinstance(item, dict) else item)
        elif item is not None and item != "":
            return True
    return False


def _has_objects(value: object) -> bool:
    # Groq's {"id": …} identifies the request only; filter results and timings are objects or numbers.
    if isinstance(value, dict):
        return any(not isinstance(item, str) and _has_content(item) for item in value.values())
    return _has_content(value)


def _cut(data: bytes, expected: dict[str, Any]) -> bytes:
    """`data` without the usage whose removal makes it read as `expected`.

    Each place where the name stands is tried. If none fits (the name is escaped, or there twice), it is written anew.
    """
    start = -1
    for _ in range(_MAX_TRIES):
        if (start := data.find(b'"usage"', start + 1)) < 0:
            break
        if (shorter := _without_member(data, start)) is not None and _reads_as(shorter, expected):
            return shorter
    try:
        return quick_json.write(expected)
    except (ValueError, RecursionError):
        # Nested almost too deeply to be read. The usage in it is shown rather than the stream lost.
        return data


def _without_member(data: bytes, start: int) -> bytes | None:
    tail = data[start + len(b'"usage"') :].lstrip(_WHITESPACE)
    if not tail.startswith(b":"):
        return None
    text = tail[1:].decode(errors="replace").lstrip(_WHITESPACE.decode())
    try:
        _, length = _decode_value(text)
    except (ValueError, RecursionError):
        return None
    rest = text[length:]
    after = tail[len(tail) - len(rest.encode()) :] if rest else b""
    before, is_followed = data[:start], after.lstrip(_WHITESPACE).startswith(b",")
    if is_followed:
        return before + after.lstrip(_WHITESPACE)[1:].lstrip(_WHITESPACE)
    return before.rstrip(_WHITESPACE).removesuffix(b",") + after


def _reads_as(data: bytes, expected: dict[str, Any]) -> bool:
    try:
        return bool(quick_json.read(data) == expected)
    except (ValueError, RecursionError):
        return False
