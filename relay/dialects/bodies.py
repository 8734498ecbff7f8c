"""Bodies before any dialect: JSON of bounded depth and size, and the name of the model."""

from __future__ import annotations

import re
from typing import Any

from core.names import MAX_MODEL_NAME_LENGTH
from relay import quick_json
from relay.dialects.names import CONTAINERS
from relay.errors import invalid

MAX_BODY_BYTES = 50 * 1024 * 1024
MAX_DEPTH = 100
# Lists, objects and names in one body. A conversation of a million tokens with tools has some ten thousand.
MAX_PIECES = 200_000
# Commas, in texts as well: they bound the time that parsing takes. A table of a million tokens has two million.
MAX_COMMAS = 3_000_000
MAX_FIELDS = 300
# Looked at in one C call, during which no other thread runs.
_SLICE_BYTES = 1024 * 1024
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def json_object(raw: bytes) -> dict[str, Any]:
    """Parse a body. Raises ApiError 400 for what is no JSON object, too deep or of too many pieces."""
    if len(raw) > MAX_COMMAS and _has_more(raw, b",", MAX_COMMAS):
        raise invalid(f"The body has more than {MAX_COMMAS} values.")
    _check_brackets(raw)
    try:
        body = quick_json.read(raw)
    except (ValueError, RecursionError):
        raise invalid("The body is not JSON.") from None
    if not isinstance(body, dict):
        raise invalid("The body is not a JSON object.")
    if len(body) > MAX_FIELDS:
        raise invalid(f"The body has more than {MAX_FIELDS} fields.")
    # Each level opens a bracket and each name has a colon, so a body with few of them needs no walk.
    if raw.count(b"[", 0, _SLICE_BYTES) + raw.count(b"{", 0, _SLICE_BYTES) > MAX_DEPTH or len(raw) > _SLICE_BYTES:
        check_shape(body)
    return body


def check_shape(body: Any) -> None:
    """Walk level by level: depth is the number of rounds, and no recursion can be deep."""
    level, count = [body], 0
    for _depth in range(MAX_DEPTH):
        count += len(level) + sum(len(outer) for outer in level if type(outer) is dict)
        if count > MAX_PIECES:
            raise invalid(f"The body has more than {MAX_PIECES} lists, objects and names.")
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in CONTAINERS
        ]
        if not level:
            return
    raise invalid(f"The body is nested deeper than {MAX_DEPTH} levels.")


def _check_brackets(raw: bytes) -> None:
    """Refuse too many lists and objects before they are parsed, which takes seconds for millions of them."""
    if len(raw) <= MAX_PIECES or not (_has_more(raw, b"[", MAX_PIECES) or _has_more(raw, b"{", MAX_PIECES)):
        return
    # Texts may hold any number of brackets.
    outside = _TEXT.sub(b"", raw)
    if outside.count(b"[") + outside.count(b"{") > MAX_PIECES:
        raise invalid(f"The body has more than {MAX_PIECES} lists, objects and names.")


def _has_more(raw: bytes, mark: bytes, most: int) -> bool:
    count = 0
    for start in range(0, len(raw), _SLICE_BYTES):
        count += raw.count(mark, start, start + _SLICE_BYTES)
        if count > most:
            return True
    return False


def is_model_name(value: Any) -> bool:
    # isprintable() excludes lone surrogates and NUL, which PostgreSQL does not accept in text.
    return isinstance(value, str) and len(value) <= MAX_MODEL_NAME_LENGTH and value.isprintable()


def required_model(body: dict[str, Any]) -> str:
    model = body.get("model")
    if not model or not is_model_name(model):
        raise invalid("model is required: the name of a model.", "model")
    assert isinstance(model, str)
    return model


def model_for_log(raw: bytes) -> str:
    """The model name in a refused body, for the usage record; empty if there is none that can be stored."""
    try:
        body = quick_json.read(raw)
    except (ValueError, RecursionError):
        return ""
    model = body.get("model") if isinstance(body, dict) else None
    return model if isinstance(model, str) and is_model_name(model) else ""
