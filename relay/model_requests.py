"""Parse and validate the body of a request for a model, and rewrite it for the upstream.

Unknown fields pass through unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from relay import quick_json
from relay.errors import invalid
from usage.models import MAX_MODEL_NAME_LENGTH

MAX_BODY_BYTES = 20 * 1024 * 1024
MAX_CHOICES = 128


@dataclass(frozen=True)
class Endpoint:
    # Below /v1.
    path: str
    limit_fields: tuple[str, ...]
    # A stream reports its usage only if the request sets stream_options.include_usage.
    needs_usage_option: bool = False


ENDPOINTS = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint("/chat/completions", ("max_completion_tokens", "max_tokens"), needs_usage_option=True),
        Endpoint("/completions", ("max_tokens",), needs_usage_option=True),
        Endpoint("/responses", ("max_output_tokens",)),
        Endpoint("/embeddings", ()),
    )
}


class ModelRequest(msgspec.Struct, frozen=True):
    endpoint: Endpoint
    body: dict[str, Any]
    raw: bytes
    model: str
    is_stream: bool
    choices: int
    # The completion limit that the client set; None if it set none.
    limit: int | None

    @property
    def body_bytes(self) -> int:
        return len(self.raw)

    @property
    def shows_usage(self) -> bool:
        options = self.body.get("stream_options")
        return not self.endpoint.needs_usage_option or (
            isinstance(options, dict) and bool(options.get("include_usage"))
        )

    def for_upstream(self, limit: int) -> bytes:
        body = dict(self.body)
        if self.endpoint.limit_fields:
            sent = [name for name in self.endpoint.limit_fields if body.get(name) is not None]
            for name in sent or self.endpoint.limit_fields[:1]:
                body[name] = limit
        # The charge needs a stream's usage, whether or not the client asked for it.
        if self.is_stream and self.endpoint.needs_usage_option:
            options = body.get("stream_options")
            body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        return quick_json.write(body)


def read_model_request(endpoint: Endpoint, raw: bytes) -> ModelRequest:
    """Parse and validate a body. Raises ApiError 400, which names the invalid field."""
    body = json_object(raw)
    return ModelRequest(
        endpoint=endpoint,
        body=body,
        raw=raw,
        model=required_model(body),
        is_stream=_boolean(body, "stream"),
        choices=_integer(body, "n", maximum=MAX_CHOICES) or 1,
        limit=_requested_limit(body, endpoint),
    )


def json_object(raw: bytes) -> dict[str, Any]:
    try:
        body = quick_json.read(raw)
    except (ValueError, RecursionError):
        raise invalid("The body is not JSON.") from None
    if not isinstance(body, dict):
        raise invalid("The body is not a JSON object.")
    return body


def required_model(body: dict[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model or len(model) > MAX_MODEL_NAME_LENGTH or "\0" in model:
        raise invalid("model is required: the name of a model.", "model")
    return model


def model_for_log(raw: bytes) -> str:
    """The model name in a refused body, for the usage record; empty if there is none that can be stored."""
    try:
        body = quick_json.read(raw)
    except (ValueError, RecursionError):
        return ""
    model = body.get("model") if isinstance(body, dict) else None
    # isprintable() excludes lone surrogates and NUL, which PostgreSQL does not accept in text.
    return model if isinstance(model, str) and len(model) <= MAX_MODEL_NAME_LENGTH and model.isprintable() else ""


def _requested_limit(body: dict[str, Any], endpoint: Endpoint) -> int | None:
    given = [_integer(body, name, maximum=10**9) for name in endpoint.limit_fields if body.get(name) is not None]
    return min((limit for limit in given if limit is not None), default=None)


def _boolean(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value not in (None, True, False) or (isinstance(value, int) and not isinstance(value, bool)):
        raise invalid(f"{name} must be true or false.", name)
    return bool(value)


def _integer(body: dict[str, Any], name: str, *, maximum: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= maximum:
        raise invalid(f"{name} must be a whole number from 1 to {maximum}.", name)
    return value
