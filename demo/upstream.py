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
import hmac
import json
import secrets
import struct
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from demo.upstream_answers import (
    DISCLAIMER,
    MAX_ANSWER_TOKENS,
    MODELS,
    DemoError,
    DemoRequest,
    Directives,
    Json,
    answer_head,
    chat_delta,
    completion_events,
    embedding_vector,
    finish_reason,
    positive_int,
    response_events,
    response_json,
    text_delta,
    texts_of,
    usage_json,
)

MAX_WAIT_S = 600.0
MAX_TASKS = 1000
DIMENSIONS = 1536


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
        if self.ended_at is None and self.polled > self.request.directives.number("polls", 3, MAX_ANSWER_TOKENS):
            self.ended_at = int(time.time())

    def as_json(self) -> Json:
        body = self.request.body
        is_failed = "fail" in self.request.directives.values
        polls = self.request.directives.number("polls", 3, MAX_ANSWER_TOKENS)
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
    head = answer_head("chatcmpl", "chat.completion", parsed)
    if parsed.is_stream:
        return await _stream(request, parsed, completion_events(parsed, head, chat_delta))
    choices = [
        {"index": index, "message": {"role": "assistant", "content": "".join(parsed.words)}, **finish_reason(parsed)}
        for index in range(parsed.choices)
    ]
    return await _answer(request, parsed, {**head, "choices": choices, **usage_json(parsed)})


async def _completions(request: web.Request) -> web.StreamResponse:
    parsed = await _read(request, "prompt", "max_tokens")
    head = answer_head("cmpl", "text_completion", parsed)
    if parsed.is_stream:
        return await _stream(request, parsed, completion_events(parsed, head, text_delta))
    choices = [
        {"index": index, "text": "".join(parsed.words), **finish_reason(parsed)} for index in range(parsed.choices)
    ]
    return await _answer(request, parsed, {**head, "choices": choices, **usage_json(parsed)})


async def _responses(request: web.Request) -> web.StreamResponse:
    parsed = await _read(request, "input", "max_output_tokens")
    if parsed.is_stream:
        return await _stream(request, parsed, response_events(parsed))
    return await _answer(request, parsed, response_json(parsed, f"resp_{secrets.token_hex(12)}"))


async def _embeddings(request: web.Request) -> web.StreamResponse:
    parsed = await _read(request, "input")
    value = parsed.body["input"]
    # The API also accepts one text as a list of token ids.
    texts = value if isinstance(value, list) and not all(isinstance(item, int) for item in value) else [value]
    size = min(positive_int(parsed.body.get("dimensions")) or DIMENSIONS, DIMENSIONS)
    vectors = [embedding_vector(json.dumps(text), size) for text in texts]
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
    texts = texts_of(body[text_field])
    last = texts[-1] if texts else ""
    directives = Directives.parse(request.headers.get("X-Demo", ""), str(body.get("model", "")), last)
    await asyncio.sleep(directives.number("delay", 0, MAX_WAIT_S))
    if "error" in directives.values:
        status = int(directives.number("error", 500, 599))
        raise DemoError(max(400, status), "It was asked to fail.", "demo_error")
    limits = [limit for name in limit_fields if (limit := positive_int(body.get(name))) is not None]
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
