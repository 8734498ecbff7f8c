"""A fake upstream that speaks OpenAI's protocol without a model, to try the relay without a provider's account.

    GET  /v1/models
    POST /v1/chat/completions, /v1/completions, /v1/responses   (with "stream": true, too)
    POST /v1/embeddings
    POST /v1/videos, GET /v1/videos/{id}                        (a task, in progress for its first three polls)
    GET  /v1/videos/{id}/content                                (placeholder bytes, once the task is completed)

It accepts any model name, and any credential unless it was started with one. An answer begins with a disclaimer and
goes on in sample sentences for a few dozen tokens, or up to the completion limit. One word is one output token and four
bytes of the prompt are one input token. Half of a long prompt is reported as cached.

It misbehaves on request. Write one or more of these directives into the last message, the model name, or an `X-Demo`
header; `-` may stand for `=`:

    demo:error=500    answer with this status, 400 to 599, and an error in OpenAI's format
    demo:delay=0.5    wait so many seconds before the first byte
    demo:pace=0.1     wait so many seconds before each further event of a stream
    demo:tokens=500   answer with so many tokens, within the completion limit
    demo:break=3      close the connection after so many events of a stream, or in the middle of a body
    demo:nousage      leave the usage out
    demo:zerousage    report a usage of zero
    demo:hugeusage    report ten million output tokens
    demo:polls=5      keep a task in progress for so many polls
    demo:fail         end a task as failed
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import re
import secrets
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

DISCLAIMER = "This is the demo upstream of Space Manage. No language model wrote this text."
MODELS = ["demo-chat", "demo-embedding", "demo-video"]
MAX_TOKENS = 100_000
HUGE_OUTPUT_TOKENS = 10_000_000
MAX_WAIT_S = 600.0
MAX_TASKS = 1000
DIMENSIONS = 1536

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
    """The `demo:…` directives of a request."""

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
        return int(self.number("break", 0, MAX_TOKENS))


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
        return max(1, _positive_int(self.body.get("n")) or 1)

    @property
    def shows_usage(self) -> bool:
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    @cached_property
    def words(self) -> list[str]:
        """The words of the answer, each one token and with the space before it."""
        wanted = int(self.directives.number("tokens", 40 + len(self.text) % 40, MAX_TOKENS))
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


@dataclass
class DemoTask:
    """A video task, which only counts its polls."""

    id: str
    request: DemoRequest
    created_at: int = field(default_factory=lambda: int(time.time()))
    polled: int = 0
    ended_at: int | None = None

    def poll(self) -> None:
        self.polled += 1
        if self.ended_at is None and self.polled > self.request.directives.number("polls", 3, MAX_TOKENS):
            self.ended_at = int(time.time())

    def as_json(self) -> Json:
        body = self.request.body
        is_failed = "fail" in self.request.directives.values
        polls = self.request.directives.number("polls", 3, MAX_TOKENS)
        status = ("failed" if is_failed else "completed") if self.ended_at else "in_progress"
        return {
            "id": self.id,
            "object": "video",
            "model": self.request.model,
            "status": status if self.polled else "queued",
            "progress": 100 if status == "completed" else int(100 * min(self.polled, polls) / (polls + 1)),
            "created_at": self.created_at,
            "completed_at": self.ended_at if status == "completed" else None,
            "seconds": str(body.get("seconds") or "4"),
            "size": str(body.get("size") or "720x1280"),
            "error": {"code": "demo_failure", "message": "It was asked to fail."} if status == "failed" else None,
        }


TASKS = web.AppKey("tasks", dict[str, DemoTask])


def make_app(*, credential: str = "") -> web.Application:
    app = web.Application(client_max_size=64 * 1024 * 1024, middlewares=[_authentication(credential)])
    app[TASKS] = {}
    app.add_routes(
        [
            web.get("/", _root),
            web.get("/v1/models", _models),
            web.post("/v1/chat/completions", _chat),
            web.post("/v1/completions", _completions),
            web.post("/v1/responses", _responses),
            web.post("/v1/embeddings", _embeddings),
            web.post("/v1/videos", _submit),
            web.get("/v1/videos/{id}", _poll),
            web.get("/v1/videos/{id}/content", _content),
        ]
    )
    return app


def _authentication(credential: str) -> Middleware:
    """Check the credential, and convert every error to OpenAI's format."""

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if not _is_credential(request.headers.get("Authorization", ""), credential):
                raise DemoError(401, "This demo upstream was started with a credential; send it.", "invalid_api_key")
            return await handler(request)
        except DemoError as error:
            return error.response()
        except web.HTTPException as error:
            return DemoError(error.status, f"The demo upstream: {error.reason}.", "not_served").response()

    return authenticate


def _is_credential(header: str, credential: str) -> bool:
    return not credential or hmac.compare_digest(header.encode(), f"Bearer {credential}".encode())


# -- Endpoints ----------------------------------------------------------------------------------------------------


async def _root(request: web.Request) -> web.Response:
    return web.Response(text=f"{DISCLAIMER}\nIt answers below /v1 as OpenAI's API does.\n")


async def _models(request: web.Request) -> web.Response:
    same = {"object": "model", "created": 1_700_000_000, "owned_by": "space-manage-demo"}
    return web.json_response({"object": "list", "data": [{"id": name, **same} for name in MODELS]})


async def _chat(request: web.Request) -> web.StreamResponse:
    parsed = await _read(request, "messages", "max_completion_tokens", "max_tokens")
    head = _head("chatcmpl", "chat.completion", parsed)
    if parsed.is_stream:
        return await _stream(request, parsed, _completion_events(parsed, head, _chat_delta))
    choices = [
        {"index": index, "message": {"role": "assistant", "content": "".join(parsed.words)}, **_finish(parsed)}
        for index in range(parsed.choices)
    ]
    return await _answer(request, parsed, {**head, "choices": choices, **_usage(parsed)})


async def _completions(request: web.Request) -> web.StreamResponse:
    parsed = await _read(request, "prompt", "max_tokens")
    head = _head("cmpl", "text_completion", parsed)
    if parsed.is_stream:
        return await _stream(request, parsed, _completion_events(parsed, head, _text_delta))
    choices = [{"index": index, "text": "".join(parsed.words), **_finish(parsed)} for index in range(parsed.choices)]
    return await _answer(request, parsed, {**head, "choices": choices, **_usage(parsed)})


async def _responses(request: web.Request) -> web.StreamResponse:
    parsed = await _read(request, "input", "max_output_tokens")
    if parsed.is_stream:
        return await _stream(request, parsed, _response_events(parsed))
    return await _answer(request, parsed, _response(parsed, f"resp_{secrets.token_hex(12)}"))


async def _embeddings(request: web.Request) -> web.StreamResponse:
    parsed = await _read(request, "input")
    value = parsed.body["input"]
    # The API also accepts one text as a list of token ids.
    texts = value if isinstance(value, list) and not all(isinstance(item, int) for item in value) else [value]
    size = min(_positive_int(parsed.body.get("dimensions")) or DIMENSIONS, DIMENSIONS)
    vectors = [_vector(json.dumps(text), size) for text in texts]
    encoded: list[Any] = vectors
    if parsed.body.get("encoding_format") == "base64":
        encoded = [base64.b64encode(struct.pack(f"<{size}f", *vector)).decode("ascii") for vector in vectors]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(encoded)]
    answer: Json = {"object": "list", "data": data, "model": parsed.model}
    if (tokens := parsed.tokens()) is not None:
        answer["usage"] = {"prompt_tokens": tokens[0], "total_tokens": tokens[0]}
    return await _answer(request, parsed, answer)


async def _submit(request: web.Request) -> web.StreamResponse:
    parsed = await _read(request, "prompt")
    task = DemoTask(f"video_{secrets.token_hex(12)}", parsed)
    tasks = request.app[TASKS]
    tasks[task.id] = task
    while len(tasks) > MAX_TASKS:
        del tasks[next(iter(tasks))]
    return await _answer(request, parsed, task.as_json())


async def _poll(request: web.Request) -> web.Response:
    task = _task(request)
    task.poll()
    return web.json_response(task.as_json())


async def _content(request: web.Request) -> web.Response:
    task = _task(request)
    if task.as_json()["status"] != "completed":
        raise DemoError(404, "The video is not ready yet.", "not_ready")
    return web.Response(body=f"{DISCLAIMER} Nor is this a video.".encode(), content_type="video/mp4")


def _task(request: web.Request) -> DemoTask:
    task = request.app[TASKS].get(request.match_info["id"])
    if task is None:
        raise DemoError(404, "There is no such video.", "not_found")
    return task


# -- Reading ------------------------------------------------------------------------------------------------------


async def _read(request: web.Request, text_field: str, *limit_fields: str) -> DemoRequest:
    """Parse a request. Raises DemoError where it is invalid, or where a directive asks for an error."""
    body = await _body(request)
    if body.get(text_field) in (None, "", []):
        raise DemoError(400, f"{text_field} is missing.", "invalid_request")
    texts = _texts_of(body[text_field])
    last = texts[-1] if texts else ""
    directives = Directives.parse(request.headers.get("X-Demo", ""), str(body.get("model", "")), last)
    await asyncio.sleep(directives.number("delay", 0, MAX_WAIT_S))
    if "error" in directives.values:
        status = int(directives.number("error", 500, 599))
        raise DemoError(max(400, status), "It was asked to fail.", "demo_error")
    limits = [limit for name in limit_fields if (limit := _positive_int(body.get(name))) is not None]
    text = " ".join([str(body.get("instructions") or ""), *texts])
    return DemoRequest(body, text, directives, min(limits, default=None))


async def _body(request: web.Request) -> Json:
    if request.content_type.startswith(("multipart/", "application/x-www-form-urlencoded")):
        return {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        raise DemoError(400, "The body is not JSON.", "invalid_request") from None
    if not isinstance(body, dict):
        raise DemoError(400, "The body is not a JSON object.", "invalid_request")
    return body


def _texts_of(value: Any) -> list[str]:
    """All texts of a prompt, or of messages and their parts, in order."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in _texts_of(item)]
    if isinstance(value, dict):
        return _texts_of(value.get("content") or value.get("text"))
    return [] if value is None else [str(value)]


def _positive_int(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


# -- Writing ------------------------------------------------------------------------------------------------------


async def _answer(request: web.Request, parsed: DemoRequest, answer: Json) -> web.StreamResponse:
    if not parsed.directives.is_broken:
        return web.json_response(answer)
    body = json.dumps(answer).encode()
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    return _abort(request, response)


async def _stream(request: web.Request, parsed: DemoRequest, events: Iterator[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    async for index, event in _paced(events, parsed.directives.number("pace", 0, MAX_WAIT_S)):
        if parsed.directives.is_broken and index >= parsed.directives.events_before_break:
            return _abort(request, response)
        await response.write(event)
    await response.write_eof()
    return response


async def _paced(events: Iterator[bytes], pace_s: float) -> AsyncIterator[tuple[int, bytes]]:
    for index, event in enumerate(events):
        if index:
            await asyncio.sleep(pace_s)
        yield index, event


def _abort(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Close the connection before the body is complete. Bytes already written are still sent."""
    response.force_close()
    if request.transport is not None:
        request.transport.close()
    return response


def _head(prefix: str, kind: str, parsed: DemoRequest) -> Json:
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": parsed.model,
        "system_fingerprint": "fp_demo",
    }


def _finish(parsed: DemoRequest) -> Json:
    return {"logprobs": None, "finish_reason": "length" if parsed.is_cut else "stop"}


def _usage(parsed: DemoRequest) -> Json:
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


def _chat_delta(word: str | None) -> Json:
    return {"delta": {} if word is None else {"content": word}}


def _text_delta(word: str | None) -> Json:
    return {"text": word or ""}


def _completion_events(parsed: DemoRequest, head: Json, delta: Callable[[str | None], Json]) -> Iterator[bytes]:
    """The events of a stream: the role (chat only), the words, the finish reason, the usage if requested, [DONE]."""
    if head["object"] == "chat.completion":
        head = {**head, "object": "chat.completion.chunk"}
    # Like OpenAI: with include_usage, every event before the one with the usage has "usage": null.
    extra: Json = {"usage": None} if parsed.shows_usage else {}
    unfinished = {"logprobs": None, "finish_reason": None}
    if delta is _chat_delta:
        role = {"delta": {"role": "assistant", "content": ""}, **unfinished}
        for index in range(parsed.choices):
            yield _sse({**head, "choices": [{"index": index, **role}], **extra})
    for word in parsed.words:
        for index in range(parsed.choices):
            yield _sse({**head, "choices": [{"index": index, **delta(word), **unfinished}], **extra})
    for index in range(parsed.choices):
        yield _sse({**head, "choices": [{"index": index, **delta(None), **_finish(parsed)}], **extra})
    if parsed.shows_usage and (usage := _usage(parsed)):
        yield _sse({**head, "choices": [], **usage})
    yield b"data: [DONE]\n\n"


def _response(parsed: DemoRequest, response_id: str, *, is_done: bool = True) -> Json:
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


def _response_events(parsed: DemoRequest) -> Iterator[bytes]:
    for number, event in enumerate(_response_steps(parsed)):
        yield f"event: {event['type']}\n".encode() + _sse({**event, "sequence_number": number})


def _response_steps(parsed: DemoRequest) -> Iterator[Json]:
    begun = _response(parsed, f"resp_{secrets.token_hex(12)}", is_done=False)
    done = {**_response(parsed, begun["id"]), "created_at": begun["created_at"]}
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


def _vector(text: str, size: int) -> list[float]:
    """A vector of length one from a hash: equal texts have equal vectors, which mean nothing."""
    noise = struct.unpack(f"<{size}h", hashlib.shake_256(text.encode(errors="replace")).digest(2 * size))
    length = sum(number * number for number in noise) ** 0.5 or 1.0
    return [number / length for number in noise]
