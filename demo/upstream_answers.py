"""Requests to the demo upstream and the answers that it makes up, in the dialects of OpenAI's API."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import secrets
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from aiohttp import web

DISCLAIMER = "This is the demo upstream of Space Manage. No language model wrote this text."
MODELS = ["demo-chat", "demo-embedding", "demo-video"]
MAX_ANSWER_TOKENS = 100_000
HUGE_OUTPUT_TOKENS = 10_000_000

_SAMPLE = (
    f"{DISCLAIMER} It goes on for a while, so that there is something to stream and something to pay for. "
    "Quota is set aside when a request begins and settled when it ends; what was not needed goes back at once. "
    "A quick brown fox jumps over a lazy dog, and the dog, having seen it before, sleeps on."
).split(" ")
_DIRECTIVE = re.compile(r"\bdemo:(?P<name>[a-z]+)(?:[=-](?P<value>[0-9]+(?:\.[0-9]+)?))?", re.ASCII)

Json = dict[str, Any]


class DemoError(Exception):
    """An error response in OpenAI's format."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def response(self) -> web.Response:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": str(self), "type": kind, "param": None, "code": self.code}
        return web.json_response({"error": error}, status=self.status)


@dataclass(frozen=True)
class Directives:
    values: dict[str, float | None]

    @classmethod
    def parse(cls, *texts: str) -> Directives:
        found = [match for text in texts for match in _DIRECTIVE.finditer(text)]
        return cls({match["name"]: float(match["value"]) if match["value"] else None for match in found})

    def number(self, name: str, default: float, maximum: float) -> float:
        return min(self.values.get(name) or 0.0, maximum) if name in self.values else default

    @property
    def is_broken(self) -> bool:
        return "break" in self.values

    @property
    def events_before_break(self) -> int:
        return int(self.number("break", 0, MAX_ANSWER_TOKENS))


@dataclass(frozen=True)
class DemoRequest:
    body: Json
    text: str
    directives: Directives
    limit: int | None

    @property
    def model(self) -> str:
        return str(self.body.get("model") or MODELS[0])

    @property
    def is_stream(self) -> bool:
        return self.body.get("stream") is True

    @property
    def choices(self) -> int:
        return max(1, positive_int(self.body.get("n")) or 1)

    @property
    def shows_usage(self) -> bool:
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    @cached_property
    def words(self) -> list[str]:
        # Each is one token, with the space before it.
        wanted = int(self.directives.number("tokens", 40 + len(self.text) % 40, MAX_ANSWER_TOKENS))
        count = wanted if self.limit is None else min(wanted, self.limit)
        words = itertools.islice(itertools.cycle(_SAMPLE), count)
        return [word if index == 0 else f" {word}" for index, word in enumerate(words)]

    @property
    def is_cut(self) -> bool:
        return self.limit is not None and len(self.words) == self.limit

    def tokens(self) -> tuple[int, int, int] | None:
        """(input, cached part of the input, output), or None to leave the usage out."""
        if "nousage" in self.directives.values:
            return None
        if "zerousage" in self.directives.values:
            return 0, 0, 0
        prompt = -(-len(self.text.encode(errors="replace")) // 4) + 3
        output = HUGE_OUTPUT_TOKENS if "hugeusage" in self.directives.values else self.choices * len(self.words)
        cached = prompt // 2 // 128 * 128 if prompt >= 1024 else 0
        return prompt, cached, output


def texts_of(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in texts_of(item)]
    if isinstance(value, dict):
        return texts_of(value.get("content") or value.get("text"))
    return [] if value is None else [str(value)]


def positive_int(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def answer_head(prefix: str, kind: str, parsed: DemoRequest) -> Json:
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": parsed.model,
        "system_fingerprint": "fp_demo",
    }


def finish_reason(parsed: DemoRequest) -> Json:
    return {"logprobs": None, "finish_reason": "length" if parsed.is_cut else "stop"}


def usage_json(parsed: DemoRequest) -> Json:
    tokens = parsed.tokens()
    if tokens is None:
        return {}
    prompt, cached, output = tokens
    return {
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }
    }


def chat_delta(word: str | None) -> Json:
    return {"delta": {} if word is None else {"content": word}}


def text_delta(word: str | None) -> Json:
    return {"text": word or ""}


def completion_events(parsed: DemoRequest, head: Json, delta: Callable[[str | None], Json]) -> Iterator[bytes]:
    """The events of a stream: the role (chat only), the words, the finish reason, the usage if requested, [DONE]."""
    if head["object"] == "chat.completion":
        head = {**head, "object": "chat.completion.chunk"}
    # Like OpenAI: with include_usage, every event before the one with the usage has "usage": null.
    extra: Json = {"usage": None} if parsed.shows_usage else {}
    unfinished = {"logprobs": None, "finish_reason": None}
    if delta is chat_delta:
        role = {"delta": {"role": "assistant", "content": ""}, **unfinished}
        for index in range(parsed.choices):
            yield _sse({**head, "choices": [{"index": index, **role}], **extra})
    for word in parsed.words:
        for index in range(parsed.choices):
            yield _sse({**head, "choices": [{"index": index, **delta(word), **unfinished}], **extra})
    for index in range(parsed.choices):
        yield _sse({**head, "choices": [{"index": index, **delta(None), **finish_reason(parsed)}], **extra})
    if parsed.shows_usage and (usage := usage_json(parsed)):
        yield _sse({**head, "choices": [], **usage})
    yield b"data: [DONE]\n\n"


def response_json(parsed: DemoRequest, response_id: str, *, is_done: bool = True) -> Json:
    status = ("incomplete" if parsed.is_cut else "completed") if is_done else "in_progress"
    tokens = parsed.tokens() if is_done else None
    usage = None
    if tokens is not None:
        prompt, cached, output = tokens
        usage = {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + output,
        }
    return {
        "id": response_id,
        "object": "response",
        "created_at": int(time.time()),
        "model": parsed.model,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": parsed.body.get("instructions"),
        "max_output_tokens": parsed.limit,
        "metadata": parsed.body.get("metadata") or {},
        "output": [_message(response_id, status, "".join(parsed.words))] if is_done else [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage,
    }


def _message(response_id: str, status: str, text: str) -> Json:
    content = [_part(text)] if text else []
    message_id = response_id.replace("resp_", "msg_")
    return {"id": message_id, "type": "message", "status": status, "role": "assistant", "content": content}


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def response_events(parsed: DemoRequest) -> Iterator[bytes]:
    for number, event in enumerate(_response_steps(parsed)):
        yield f"event: {event['type']}\n".encode() + _sse({**event, "sequence_number": number})


def _response_steps(parsed: DemoRequest) -> Iterator[Json]:
    begun = response_json(parsed, f"resp_{secrets.token_hex(12)}", is_done=False)
    done = {**response_json(parsed, begun["id"]), "created_at": begun["created_at"]}
    message = done["output"][0]
    text = "".join(parsed.words)
    part = {"item_id": message["id"], "output_index": 0, "content_index": 0}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    item = _message(begun["id"], "in_progress", "")
    yield {"type": "response.output_item.added", "output_index": 0, "item": item}
    yield {"type": "response.content_part.added", **part, "part": _part("")}
    for word in parsed.words:
        yield {"type": "response.output_text.delta", **part, "delta": word, "logprobs": []}
    yield {"type": "response.output_text.done", **part, "text": text, "logprobs": []}
    yield {"type": "response.content_part.done", **part, "part": _part(text)}
    yield {"type": "response.output_item.done", "output_index": 0, "item": message}
    yield {"type": f"response.{done['status']}", "response": done}


def _sse(payload: Json) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def embedding_vector(text: str, size: int) -> list[float]:
    """A vector of length one from a hash: equal texts have equal vectors, which mean nothing."""
    noise = struct.unpack(f"<{size}h", hashlib.shake_256(text.encode(errors="replace")).digest(2 * size))
    length = sum(number * number for number in noise) ** 0.5 or 1.0
    return [number / length for number in noise]
