"""Fast JSON by msgspec, with the standard library's `json` as a fallback for input that msgspec rejects."""

from __future__ import annotations

import json
from typing import Any

import msgspec


def read(raw: bytes) -> Any:
    """Raises what json.loads raises. msgspec rejects lone surrogates and NaN; for these `json` parses the text."""
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
    """The part of a response that relay.pricing.parse_usage reads; None if `raw` is not JSON.

    Decoding only these fields avoids building objects for the rest of the response.
    """
    try:
        answer = _decode_usage(raw)
    except (msgspec.MsgspecError, UnicodeError):
        # Not JSON, or JSON of another shape.
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            return None
    return {"usage": answer.usage, "response": answer.response and {"usage": answer.response.usage}}


def write(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeError:
        # A lone surrogate, which UTF-8 cannot encode; `json` escapes it.
        return json.dumps(value).encode()
