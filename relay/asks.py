"""What a client asks of the relay: read from the body, bounded in cost, and written again for the upstream.

Unknown fields pass through untouched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from relay import quick_json
from relay.errors import invalid

BODY_MOST = 20 * 1024 * 1024
CHOICES_MOST = 128
NAME_MOST = 100


@dataclass(frozen=True)
class Kind:
    """One of the endpoints that spend: where it lies, and which field limits its answer."""

    path: str
    limit_fields: tuple[str, ...]
    # Whether a stream brings its usage only when it is asked for.
    asks_usage: bool = False


KINDS = {
    kind.path: kind
    for kind in (
        Kind("/chat/completions", ("max_completion_tokens", "max_tokens"), asks_usage=True),
        Kind("/completions", ("max_tokens",), asks_usage=True),
        Kind("/responses", ("max_output_tokens",)),
        Kind("/embeddings", ()),
    )
}


class Ask(msgspec.Struct, frozen=True):
    kind: Kind
    body: dict[str, Any]
    raw: bytes
    model: str
    is_stream: bool
    choices: int
    # The completion limit that the client asked for; None where it left that open.
    limit: int | None

    @property
    def body_bytes(self) -> int:
        return len(self.raw)

    @property
    def shows_usage(self) -> bool:
        """Whether the client itself asked for the usage of its stream."""
        options = self.body.get("stream_options")
        return not self.kind.asks_usage or (isinstance(options, dict) and bool(options.get("include_usage")))

    def for_upstream(self, limit: int) -> bytes:
        """The body with the limit that the hold covers, asking for usage always."""
        body = dict(self.body)
        if self.kind.limit_fields:
            sent = [name for name in self.kind.limit_fields if body.get(name) is not None]
            for name in sent or self.kind.limit_fields[:1]:
                body[name] = limit
        if self.is_stream and self.kind.asks_usage:
            options = body.get("stream_options")
            body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        return quick_json.write(body)


def read_ask(kind: Kind, raw: bytes) -> Ask:
    """Raises ApiError 400 naming the field."""
    body = json_object(raw)
    return Ask(
        kind=kind,
        body=body,
        raw=raw,
        model=named_model(body),
        is_stream=_flag(body, "stream"),
        choices=_whole(body, "n", most=CHOICES_MOST) or 1,
        limit=_limit(body, kind),
    )


def json_object(raw: bytes) -> dict[str, Any]:
    try:
        body = quick_json.read(raw)
    except (ValueError, RecursionError):
        raise invalid("The body is not JSON.") from None
    if not isinstance(body, dict):
        raise invalid("The body is not a JSON object.")
    return body


def named_model(body: dict[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model or len(model) > NAME_MOST or "\0" in model:
        raise invalid("Name a model.", "model")
    return model


def model_of(raw: bytes) -> str:
    """What a body that was refused named as its model, for the log; empty where that cannot be told."""
    try:
        body = quick_json.read(raw)
    except (ValueError, RecursionError):
        return ""
    model = body.get("model") if isinstance(body, dict) else None
    # What does not print (half a character, a NUL) is nothing that a database takes as text.
    return model if isinstance(model, str) and len(model) <= NAME_MOST and model.isprintable() else ""


def _limit(body: dict[str, Any], kind: Kind) -> int | None:
    given = [_whole(body, name, most=10**9) for name in kind.limit_fields if body.get(name) is not None]
    return min((limit for limit in given if limit is not None), default=None)


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value not in (None, True, False) or (isinstance(value, int) and not isinstance(value, bool)):
        raise invalid(f"{name} is true or false.", name)
    return bool(value)


def _whole(body: dict[str, Any], name: str, *, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise invalid(f"{name} is a whole number from 1 to {most}.", name)
    return value
