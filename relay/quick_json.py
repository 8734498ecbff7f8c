"""JSON of requests and answers, read and written several times as fast as by `json`, which stands by for the rest."""

from __future__ import annotations

import json
from typing import Any

import msgspec


def read(raw: bytes) -> Any:
    """As json.loads, which is asked where msgspec is stricter (halves of characters, NaN). Raises what that raises."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeError):
        return json.loads(raw)


class _WithUsage(msgspec.Struct):
    usage: Any = None


class _WithUsageAndResponse(_WithUsage):
    response: _WithUsage | None = None


_decode_usage = msgspec.json.Decoder(_WithUsageAndResponse).decode


def read_usage(raw: bytes) -> Any:
    """Of an answer what relay.pricing.parse_usage looks at, without an object for all the rest; None if not JSON."""
    try:
        answer = _decode_usage(raw)
    except (msgspec.MsgspecError, UnicodeError):
        # Or an answer of another shape.
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            return None
    return {"usage": answer.usage, "response": answer.response and {"usage": answer.response.usage}}


def write(value: Any) -> bytes:
    """UTF-8, without blanks; halves of characters escaped."""
    try:
        return msgspec.json.encode(value)
    except UnicodeError:
        return json.dumps(value).encode()
