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


class _Choice(msgspec.Struct):
    message: Any = None
    text: Any = None
    finish_reason: Any = None
    usage: Any = None
    error: Any = None


class _Answer(msgspec.Struct):
    """The fields of a whole answer that relay.answers reads. Decoding skips all others, such as logprobs."""

    id: Any = None
    type: Any = None
    object: Any = None
    model: Any = None
    modelVersion: Any = None  # noqa: N815  Gemini's name
    status: Any = None
    store: Any = None
    service_tier: Any = None
    size: Any = None
    quality: Any = None
    usage: Any = None
    usageMetadata: Any = None  # noqa: N815
    usage_info: Any = None
    x_groq: Any = None
    tool_usage: Any = None
    result: Any = None
    meta: Any = None
    error: Any = None
    detail: Any = None
    code: Any = None
    message: Any = None
    base_resp: Any = None
    response: Any = None
    choices: list[_Choice] | None = None
    candidates: Any = None
    output: Any = None
    content: Any = None
    text: Any = None
    # Embeddings and pictures: large, and nothing but their presence is asked for.
    data: msgspec.Raw = msgspec.Raw(b"null")
    results: msgspec.Raw = msgspec.Raw(b"null")
    embeddings: msgspec.Raw = msgspec.Raw(b"null")


_SKIPPED = ("data", "results", "embeddings")
_decode_answer = msgspec.json.Decoder(_Answer).decode
_NOTHING = frozenset({b"null", b"[]", b"{}", b'""', b"false"})


def read_answer(raw: bytes) -> Any:
    """Like `read`, but of an object only the fields that relay.answers reads, and for `data` and the like whether
    anything is there. Building no objects for the rest matters for embeddings and logprobs.
    """
    try:
        answer = _decode_answer(raw)
    except (msgspec.MsgspecError, UnicodeError):
        # Not JSON, or JSON of another shape.
        return read(raw)
    fields = {name: value for name in _Answer.__struct_fields__ if (value := getattr(answer, name)) is not None}
    for name in _SKIPPED:
        fields[name] = bytes(fields[name]) not in _NOTHING
    if answer.choices is not None:
        fields["choices"] = [
            {name: value for name in _Choice.__struct_fields__ if (value := getattr(choice, name)) is not None}
            for choice in answer.choices
        ]
    return fields


def write(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeError:
        # A lone surrogate, which UTF-8 cannot encode; `json` escapes it.
        return json.dumps(value).encode()
