"""Bodies before any dialect: JSON of bounded depth and size, and the name of the model."""

from __future__ import annotations

from typing import Any

from relay import quick_json
from relay.dialects.names import CONTAINERS
from relay.errors import invalid
from usage.models import MAX_MODEL_NAME_LENGTH

MAX_BODY_BYTES = 50 * 1024 * 1024
MAX_DEPTH = 100
# Lists and objects in one body. A conversation of a million tokens with tools has some ten thousand.
MAX_CONTAINERS = 250_000


def json_object(raw: bytes) -> dict[str, Any]:
    """Parse a body. Raises ApiError 400 for what is no JSON object, too deep or of too many pieces."""
    try:
        body = quick_json.read(raw)
    except (ValueError, RecursionError):
        raise invalid("The body is not JSON.") from None
    if not isinstance(body, dict):
        raise invalid("The body is not a JSON object.")
    # Each level and each piece opens a bracket, so few brackets need no walk.
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        check_shape(body)
    return body


def check_shape(body: Any) -> None:
    """Walk level by level: depth is the number of rounds, and no recursion can be deep."""
    level, count = [body], 0
    for _depth in range(MAX_DEPTH):
        count += len(level)
        if count > MAX_CONTAINERS:
            raise invalid(f"The body has more than {MAX_CONTAINERS} lists and objects.")
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in CONTAINERS
        ]
        if not level:
            return
    raise invalid(f"The body is nested deeper than {MAX_DEPTH} levels.")


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
