"""A pretended upstream: OpenAI's protocol with no model behind it, to try the relay without an account anywhere.

    GET  /v1/models
    POST /v1/chat/completions, /v1/completions, /v1/responses   (with "stream": true, too)
    POST /v1/embeddings
    POST /v1/videos, GET /v1/videos/{id}                        (a task, in progress until it was polled three times)
    GET  /v1/videos/{id}/content                                (bytes of no video, once the task is completed)

Any model name will do, and any credential unless one was given. An answer says what it is, then goes on in sample
sentences for a few dozen tokens, or until the completion limit cuts it off. One word is one token of output; four bytes
of what was asked are one of input; of a long prompt, half is told as cached.

It misbehaves on request. Write one or more of these into the last message, into the model's name, or into a header
`X-Demo`; `-` does for `=`:

    demo:error=500    answer this status, 400 to 599, with an error as OpenAI puts it
    demo:delay=0.5    wait so many seconds before the first byte
    demo:pace=0.1     wait so many seconds before each further piece of a stream
    demo:tokens=500   so many tokens, limit permitting
    demo:break=3      cut the connection after so many pieces of a stream; without a stream, in the middle of the body
    demo:nousage      leave the usage out
    demo:zerousage    tell a usage of zero
    demo:hugeusage    tell ten million tokens of output
    demo:polls=5      a task is in progress for so many polls
    demo:fail         a task ends as failed
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

WHAT = "This is the demo upstream of Space Manage. No language model wrote this text."
MODELS = ["demo-chat", "demo-embedding", "demo-video"]
TOKENS_MOST = 100_000
HUGE = 10_000_000
WAIT_MOST_S = 600.0
TASKS_MOST = 1000
DIMENSIONS = 1536

_SAMPLE = (
    f"{WHAT} It goes on for a while, so that there is something to stream and something to pay for. "
    "Quota is set aside when a request begins and settled when it ends; what was not needed goes back at once. "
    "A quick brown fox jumps over a lazy dog, and the dog, having seen it before, sleeps on."
).split(" ")
_WISH = re.compile(r"\bdemo:(?P<name>[a-z]+)(?:[=-](?P<value>[0-9]+(?:\.[0-9]+)?))?", re.ASCII)

Json = dict[str, Any]


class Refusal(Exception):
    """An error in OpenAI's shape."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def response(self) -> web.Response:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": str(self), "type": kind, "param": None, "code": self.code}
        return web.json_response({"error": error}, status=self.status)


@dataclass(frozen=True)
class Wishes:
    """How the client wants it to behave."""

    named: dict[str, float | None]

    @classmethod
    def read(cls, *texts: str) -> Wishes:
        found = [match for text in texts for match in _WISH.finditer(text)]
        return cls({match["name"]: float(match["value"]) if match["value"] else None for match in found})

    def number(self, name: str, default: float, most: float) -> float:
        return min(self.named.get(name) or 0.0, most) if name in self.named else default

    @property
    def is_broken(self) -> bool:
        return "break" in self.named

    @property
    def pieces(self) -> int:
        """After how many pieces of a stream it breaks off."""
        return int(self.number("break", 0, TOKENS_MOST))


@dataclass(frozen=True)
class Ask:
    """A request as far as it matters here."""

    body: Json
    text: str
    wishes: Wishes
    limit: int | None

    @property
    def model(self) -> str:
        return str(self.body.get("model") or MODELS[0])

    @property
    def is_stream(self) -> bool:
        return self.body.get("stream") is True

    @property
    def choices(self) -> int:
        return max(1, _whole(self.body.get("n")) or 1)

    @property
    def shows_usage(self) -> bool:
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    @cached_property
    def words(self) -> list[str]:
        """One token each, the space before it included."""
        wanted = int(self.wishes.number("tokens", 40 + len(self.text) % 40, TOKENS_MOST))
        count = wanted if self.limit is None else min(wanted, self.limit)
        words = itertools.islice(itertools.cycle(_SAMPLE), count)
        return [word if place == 0 else f" {word}" for place, word in enumerate(words)]

    @property
    def is_cut(self) -> bool:
        return self.limit is not None and len(self.words) == self.limit

    def tokens(self) -> tuple[int, int, int] | None:
        """(input, cached among it, output); None when the usage is to be left out."""
        if "nousage" in self.wishes.named:
            return None
        if "zerousage" in self.wishes.named:
            return 0, 0, 0
        given = -(-len(self.text.encode(errors="replace")) // 4) + 3
        made = HUGE if "hugeusage" in self.wishes.named else self.choices * len(self.words)
        cached = given // 2 // 128 * 128 if given >= 1024 else 0
        return given, cached, made


@dataclass
class Task:
    """A video that is never made."""

    id: str
    ask: Ask
    created_at: int = field(default_factory=lambda: int(time.time()))
    polled: int = 0
    ended_at: int | None = None

    def poll(self) -> None:
        self.polled += 1
        if self.ended_at is None and self.polled > self.ask.wishes.number("polls", 3, TOKENS_MOST):
            self.ended_at = int(time.time())

    def told(self) -> Json:
        body = self.ask.body
        is_failed = "fail" in self.ask.wishes.named
        polls = self.ask.wishes.number("polls", 3, TOKENS_MOST)
        status = ("failed" if is_failed else "completed") if self.ended_at else "in_progress"
        return {
            "id": self.id,
            "object": "video",
            "model": self.ask.model,
            "status": status if self.polled else "queued",
            "progress": 100 if status == "completed" else int(100 * min(self.polled, polls) / (polls + 1)),
            "created_at": self.created_at,
            "completed_at": self.ended_at if status == "completed" else None,
            "seconds": str(body.get("seconds") or "4"),
            "size": str(body.get("size") or "720x1280"),
            "error": {"code": "demo_failure", "message": "It was asked to fail."} if status == "failed" else None,
        }


TASKS = web.AppKey("tasks", dict[str, Task])


def make_app(*, credential: str = "") -> web.Application:
    app = web.Application(client_max_size=64 * 1024 * 1024, middlewares=[_door(credential)])
    app[TASKS] = {}
    app.add_routes(
        [
            web.get("/", _hello),
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


def _door(credential: str) -> Middleware:
    """Asks for the credential, and says every error in OpenAI's shape."""

    @web.middleware
    async def door(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if not _may_enter(request.headers.get("Authorization", ""), credential):
                raise Refusal(401, "This demo upstream was started with a credential; send it.", "invalid_api_key")
            return await handler(request)
        except Refusal as refusal:
            return refusal.response()
        except web.HTTPException as error:
            return Refusal(error.status, f"The demo upstream: {error.reason}.", "not_served").response()

    return door


def _may_enter(header: str, credential: str) -> bool:
    return not credential or hmac.compare_digest(header.encode(), f"Bearer {credential}".encode())


# -- Endpoints ----------------------------------------------------------------------------------------------------


async def _hello(request: web.Request) -> web.Response:
    return web.Response(text=f"{WHAT}\nIt answers below /v1 as OpenAI's API does.\n")


async def _models(request: web.Request) -> web.Response:
    same = {"object": "model", "created": 1_700_000_000, "owned_by": "space-manage-demo"}
    return web.json_response({"object": "list", "data": [{"id": name, **same} for name in MODELS]})


async def _chat(request: web.Request) -> web.StreamResponse:
    ask = await _read(request, "messages", "max_completion_tokens", "max_tokens")
    head = _head("chatcmpl", "chat.completion", ask)
    if ask.is_stream:
        return await _stream(request, ask, _completion_events(ask, head, _chat_delta))
    choices = [
        {"index": index, "message": {"role": "assistant", "content": "".join(ask.words)}, **_finish(ask)}
        for index in range(ask.choices)
    ]
    return await _answer(request, ask, {**head, "choices": choices, **_usage(ask)})


async def _completions(request: web.Request) -> web.StreamResponse:
    ask = await _read(request, "prompt", "max_tokens")
    head = _head("cmpl", "text_completion", ask)
    if ask.is_stream:
        return await _stream(request, ask, _completion_events(ask, head, _text_delta))
    choices = [{"index": index, "text": "".join(ask.words), **_finish(ask)} for index in range(ask.choices)]
    return await _answer(request, ask, {**head, "choices": choices, **_usage(ask)})


async def _responses(request: web.Request) -> web.StreamResponse:
    ask = await _read(request, "input", "max_output_tokens")
    if ask.is_stream:
        return await _stream(request, ask, _response_events(ask))
    return await _answer(request, ask, _response(ask, f"resp_{secrets.token_hex(12)}"))


async def _embeddings(request: web.Request) -> web.StreamResponse:
    ask = await _read(request, "input")
    given = ask.body["input"]
    # A list of numbers is one text in tokens.
    texts = given if isinstance(given, list) and not all(isinstance(item, int) for item in given) else [given]
    size = min(_whole(ask.body.get("dimensions")) or DIMENSIONS, DIMENSIONS)
    vectors = [_vector(json.dumps(text), size) for text in texts]
    shown: list[Any] = vectors
    if ask.body.get("encoding_format") == "base64":
        shown = [base64.b64encode(struct.pack(f"<{size}f", *vector)).decode("ascii") for vector in vectors]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(shown)]
    answer: Json = {"object": "list", "data": data, "model": ask.model}
    if (tokens := ask.tokens()) is not None:
        answer["usage"] = {"prompt_tokens": tokens[0], "total_tokens": tokens[0]}
    return await _answer(request, ask, answer)


async def _submit(request: web.Request) -> web.StreamResponse:
    ask = await _read(request, "prompt")
    task = Task(f"video_{secrets.token_hex(12)}", ask)
    tasks = request.app[TASKS]
    tasks[task.id] = task
    while len(tasks) > TASKS_MOST:
        del tasks[next(iter(tasks))]
    return await _answer(request, ask, task.told())


async def _poll(request: web.Request) -> web.Response:
    task = _task(request)
    task.poll()
    return web.json_response(task.told())


async def _content(request: web.Request) -> web.Response:
    task = _task(request)
    if task.told()["status"] != "completed":
        raise Refusal(404, "The video is not ready yet.", "not_ready")
    return web.Response(body=f"{WHAT} Nor is this a video.".encode(), content_type="video/mp4")


def _task(request: web.Request) -> Task:
    task = request.app[TASKS].get(request.match_info["id"])
    if task is None:
        raise Refusal(404, "There is no such video.", "not_found")
    return task


# -- Reading ------------------------------------------------------------------------------------------------------


async def _read(request: web.Request, text_field: str, *limit_fields: str) -> Ask:
    """Raises Refusal: for what is wrong, or because it was asked to."""
    body = await _body(request)
    if body.get(text_field) in (None, "", []):
        raise Refusal(400, f"{text_field} is missing.", "invalid_request")
    said = _said(body[text_field])
    last = said[-1] if said else ""
    wishes = Wishes.read(request.headers.get("X-Demo", ""), str(body.get("model", "")), last)
    await asyncio.sleep(wishes.number("delay", 0, WAIT_MOST_S))
    if "error" in wishes.named:
        status = int(wishes.number("error", 500, 599))
        raise Refusal(max(400, status), "It was asked to fail.", "demo_error")
    limits = [limit for name in limit_fields if (limit := _whole(body.get(name))) is not None]
    return Ask(body, " ".join([str(body.get("instructions") or ""), *said]), wishes, min(limits, default=None))


async def _body(request: web.Request) -> Json:
    if request.content_type.startswith(("multipart/", "application/x-www-form-urlencoded")):
        return {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        raise Refusal(400, "The body is not JSON.", "invalid_request") from None
    if not isinstance(body, dict):
        raise Refusal(400, "The body is not a JSON object.", "invalid_request")
    return body


def _said(value: Any) -> list[str]:
    """The texts of a prompt, of messages, of their parts, in order."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in _said(item)]
    if isinstance(value, dict):
        return _said(value.get("content") or value.get("text"))
    return [] if value is None else [str(value)]


def _whole(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


# -- Writing ------------------------------------------------------------------------------------------------------


async def _answer(request: web.Request, ask: Ask, answer: Json) -> web.StreamResponse:
    if not ask.wishes.is_broken:
        return web.json_response(answer)
    whole = json.dumps(answer).encode()
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(whole))})
    await response.prepare(request)
    await response.write(whole[: len(whole) // 2])
    return _cut(request, response)


async def _stream(request: web.Request, ask: Ask, events: Iterator[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    async for event in _paced(events, ask.wishes.number("pace", 0, WAIT_MOST_S)):
        if ask.wishes.is_broken and event.place >= ask.wishes.pieces:
            return _cut(request, response)
        await response.write(event.text)
    await response.write_eof()
    return response


@dataclass(frozen=True)
class _Event:
    place: int
    text: bytes


async def _paced(events: Iterator[bytes], pace_s: float) -> AsyncIterator[_Event]:
    for place, text in enumerate(events):
        if place:
            await asyncio.sleep(pace_s)
        yield _Event(place, text)


def _cut(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Close the connection without the end of the body; what was written is sent."""
    response.force_close()
    if request.transport is not None:
        request.transport.close()
    return response


def _head(prefix: str, kind: str, ask: Ask) -> Json:
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": ask.model,
        "system_fingerprint": "fp_demo",
    }


def _finish(ask: Ask) -> Json:
    return {"logprobs": None, "finish_reason": "length" if ask.is_cut else "stop"}


def _usage(ask: Ask) -> Json:
    tokens = ask.tokens()
    if tokens is None:
        return {}
    given, cached, made = tokens
    return {
        "usage": {
            "prompt_tokens": given,
            "completion_tokens": made,
            "total_tokens": given + made,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }
    }


def _chat_delta(word: str | None) -> Json:
    return {"delta": {} if word is None else {"content": word}}


def _text_delta(word: str | None) -> Json:
    return {"text": word or ""}


def _completion_events(ask: Ask, head: Json, delta: Callable[[str | None], Json]) -> Iterator[bytes]:
    """Chat begins with the role; both end with why they end, the usage if it was asked for, and [DONE]."""
    if head["object"] == "chat.completion":
        head = {**head, "object": "chat.completion.chunk"}
    # As OpenAI does: where the usage is to come, every other event says that it is not this one's.
    extra: Json = {"usage": None} if ask.shows_usage else {}
    going = {"logprobs": None, "finish_reason": None}
    if delta is _chat_delta:
        role = {"delta": {"role": "assistant", "content": ""}, **going}
        for index in range(ask.choices):
            yield _event({**head, "choices": [{"index": index, **role}], **extra})
    for word in ask.words:
        for index in range(ask.choices):
            yield _event({**head, "choices": [{"index": index, **delta(word), **going}], **extra})
    for index in range(ask.choices):
        yield _event({**head, "choices": [{"index": index, **delta(None), **_finish(ask)}], **extra})
    if ask.shows_usage and (usage := _usage(ask)):
        yield _event({**head, "choices": [], **usage})
    yield b"data: [DONE]\n\n"


def _response(ask: Ask, response_id: str, *, is_done: bool = True) -> Json:
    status = ("incomplete" if ask.is_cut else "completed") if is_done else "in_progress"
    tokens = ask.tokens() if is_done else None
    usage = None
    if tokens is not None:
        given, cached, made = tokens
        usage = {
            "input_tokens": given,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": given + made,
        }
    return {
        "id": response_id,
        "object": "response",
        "created_at": int(time.time()),
        "model": ask.model,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": ask.body.get("instructions"),
        "max_output_tokens": ask.limit,
        "metadata": ask.body.get("metadata") or {},
        "output": [_message(response_id, status, "".join(ask.words))] if is_done else [],
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


def _response_events(ask: Ask) -> Iterator[bytes]:
    for number, event in enumerate(_response_steps(ask)):
        yield f"event: {event['type']}\n".encode() + _event({**event, "sequence_number": number})


def _response_steps(ask: Ask) -> Iterator[Json]:
    begun = _response(ask, f"resp_{secrets.token_hex(12)}", is_done=False)
    done = {**_response(ask, begun["id"]), "created_at": begun["created_at"]}
    message = done["output"][0]
    text = "".join(ask.words)
    part = {"item_id": message["id"], "output_index": 0, "content_index": 0}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    item = _message(begun["id"], "in_progress", "")
    yield {"type": "response.output_item.added", "output_index": 0, "item": item}
    yield {"type": "response.content_part.added", **part, "part": _part("")}
    for word in ask.words:
        yield {"type": "response.output_text.delta", **part, "delta": word, "logprobs": []}
    yield {"type": "response.output_text.done", **part, "text": text, "logprobs": []}
    yield {"type": "response.content_part.done", **part, "part": _part(text)}
    yield {"type": "response.output_item.done", "output_index": 0, "item": message}
    yield {"type": f"response.{done['status']}", "response": done}


def _event(payload: Json) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def _vector(text: str, size: int) -> list[float]:
    """Always the same for the same text, of length one, and without meaning."""
    noise = struct.unpack(f"<{size}h", hashlib.shake_256(text.encode(errors="replace")).digest(2 * size))
    length = sum(number * number for number in noise) ** 0.5 or 1.0
    return [number / length for number in noise]
