"""The short way to read an ordinary answer of chat: nothing in it but what OpenAI's own models send.

Reading every answer by all dialects' rules takes five times as long. Whatever is not exactly of this shape goes the
long way, `relay.answers`; a test compares the two.
"""

from __future__ import annotations

from typing import Any

import msgspec

from relay.pricing import MAX_TOKENS, Usage


class _Plain(msgspec.Struct, forbid_unknown_fields=True):
    """A field that is not listed makes the answer unusual."""


class _InputDetails(_Plain):
    cached_tokens: int = 0
    audio_tokens: int = 0


class _OutputDetails(_Plain):
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class _Usage(_Plain):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None

    def read(self) -> Usage | None:
        """None where the counts need a closer look: reasoning beside, sound, or figures that cannot be."""
        prompt, completion = self.prompt_tokens, self.completion_tokens
        before, after = self.prompt_tokens_details, self.completion_tokens_details
        cached = before.cached_tokens if before is not None else 0
        sound = (before.audio_tokens if before is not None else 0) or (after.audio_tokens if after is not None else 0)
        is_plain = 0 <= cached <= prompt <= MAX_TOKENS and 0 <= completion <= MAX_TOKENS and not sound
        if not is_plain or prompt + completion != self.total_tokens:
            return None
        reasoning = min(max(0, after.reasoning_tokens), completion) if after is not None else 0
        return Usage(input=prompt - cached, cached=cached, output=completion, reasoning_inside=reasoning)


class _Message(_Plain):
    role: str
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[msgspec.Raw] | None = None
    annotations: list[None] | None = None


class _Choice(_Plain):
    message: _Message
    index: int = 0
    finish_reason: str | None = None
    logprobs: None = None


class _Completion(_Plain):
    choices: list[_Choice]
    usage: _Usage
    model: str
    id: Any = None
    object: str = ""
    created: Any = None
    system_fingerprint: Any = None
    service_tier: str | None = None


_decode = msgspec.json.Decoder(_Completion).decode


def read_plain(raw: bytes) -> tuple[Usage, str, str | None] | None:
    """(usage, model, service tier) of an ordinary answer with some output; None for every other body."""
    try:
        answer = _decode(raw)
    except (msgspec.MsgspecError, UnicodeError):
        return None
    usage = answer.usage.read()
    has_output = any(choice.message.content or choice.message.tool_calls for choice in answer.choices)
    return (usage, answer.model, answer.service_tier) if usage is not None and has_output else None
