"""One HTTP exchange over ASGI: the client's request, its presence, and the response."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cached_property
from types import TracebackType
from typing import Any

from core.addresses import resolve_client_address
from core.ids import new_id
from relay import errors
from relay.bodies import decode_body
from relay.dialects.bodies import MAX_BODY_BYTES

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Beyond this, the API key is verified before more of the body is read or any of it is parsed.
MAX_UNVERIFIED_BODY_BYTES = 16 * 1024
# A longer body is read in another process, since the event loop of all requests would wait for its parser.
MAX_BODY_BYTES_IN_LOOP = 64 * 1024
# Any site may call the API from a browser; a key is needed, and no cookie counts.
_CORS = {"access-control-allow-origin": "*", "access-control-expose-headers": "*"}
_CLIENT_REQUEST_ID = re.compile(r"[!-~]{1,128}", re.ASCII)


class Request:
    """`request_id` identifies the exchange everywhere: in the answer's X-Request-ID, on the hold, in the log."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.request_id = new_id()
        self.has_started = False
        self._owes_body = scope["method"] == "POST"
        self._presence: Presence | None = None

    @cached_property
    def _headers(self) -> dict[bytes, bytes]:
        headers: dict[bytes, bytes] = {}
        for name, value in self.scope["headers"]:
            # A proxy may append a second X-Forwarded-For line instead of extending the first.
            headers[name] = headers[name] + b"," + value if name in headers else value
        return headers

    def header(self, name: bytes) -> str:
        value = self._headers.get(name)
        return "" if value is None else value.decode("latin-1")

    @cached_property
    def address(self) -> str | None:
        client = self.scope.get("client") or ("",)
        return resolve_client_address(client[0], self.header(b"x-forwarded-for"))

    @cached_property
    def client_request_id(self) -> str:
        """The client's own X-Request-ID, for the log; empty if it sent none that can be stored."""
        own = self.header(b"x-request-id")
        return own if own and _CLIENT_REQUEST_ID.fullmatch(own) else ""

    @property
    def is_gone(self) -> bool:
        return self._presence is not None and self._presence.gone_at is not None

    async def body(self, verify_key: Callable[[], Awaitable[None]]) -> bytes:
        """The whole body, without its content encoding. Raises ApiError 413, 415 or 400, and ClientGoneError.

        `verify_key` is awaited before more than MAX_UNVERIFIED_BODY_BYTES are kept or decoded; its exceptions
        propagate. Without that, clients without a valid key could make the relay buffer and parse 50 MiB a request.
        """
        length = self.header(b"content-length")
        if length.isdigit() and int(length) > MAX_BODY_BYTES:
            raise errors.too_large(MAX_BODY_BYTES)
        encoding = self.header(b"content-encoding")
        parts, size, is_verified = [], 0, False
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part = message.get("body", b"")
            size += len(part)
            if size > MAX_BODY_BYTES:
                raise errors.too_large(MAX_BODY_BYTES)
            parts.append(part)
            if not is_verified and (size > MAX_UNVERIFIED_BODY_BYTES or encoding):
                await verify_key()
                is_verified = True
            if not message.get("more_body"):
                self._owes_body = False
                break
        raw = b"".join(parts) if len(parts) > 1 else parts[0]
        return await asyncio.to_thread(decode_body, raw, encoding, max_bytes=MAX_BODY_BYTES) if encoding else raw

    def present(self, linger: Linger, *, delay_s: float = 0.0) -> Presence:
        """A context that goes on for `linger.seconds` after the client left, and then raises ClientGoneError.

        Use it only after the body was read, since both consume `receive`. `delay_s` postpones the watching.
        """
        if self._presence is None:
            self._presence = Presence(self.receive)
        self._presence.watch(linger, delay_s)
        return self._presence

    def end(self) -> None:
        if self._presence is not None:
            self._presence.end()

    async def start(self, status: int, headers: dict[str, str]) -> None:
        self.has_started = True
        own = {"x-request-id": str(self.request_id), **_CORS}
        if self._owes_body:
            # Else the server would read the rest of a refused body, to find the next request behind it.
            own["connection"] = "close"
        listed = [(name.encode(), value.encode("latin-1", "replace")) for name, value in (own | headers).items()]
        await self.send({"type": "http.response.start", "status": status, "headers": listed})

    async def write(self, chunk: bytes, *, more: bool) -> None:
        await self.send({"type": "http.response.body", "body": chunk, "more_body": more})

    async def answer(self, status: int, body: bytes, headers: dict[str, str], content_type: str = "") -> None:
        sized = {"content-type": content_type or "application/json", "content-length": str(len(body))}
        await self.start(status, sized | headers)
        await self.write(b"" if self.scope["method"] == "HEAD" else body, more=False)

    async def refuse(self, error: errors.ApiError, headers: dict[str, str] | None = None) -> None:
        await self.answer(error.status, json.dumps(error.body()).encode(), error.headers() | (headers or {}))

    async def answer_preflight(self) -> None:
        # The wildcard does not cover Authorization, so the names that were asked for are named.
        wanted = self.header(b"access-control-request-headers") or "authorization, content-type"
        headers = {
            "access-control-allow-methods": "GET, POST, DELETE, HEAD, OPTIONS",
            "access-control-allow-headers": wanted,
            "access-control-max-age": "86400",
            "vary": "access-control-request-headers",
        }
        await self.start(204, headers)
        await self.write(b"", more=False)


class Linger:
    """How long answers are read on after their client left, and how many at once. One more is not read on at all."""

    def __init__(self, seconds: float, *, max_answers: int) -> None:
        self.seconds = seconds
        self.max_answers = max_answers
        self.count = 0

    def left_s(self, gone_for_s: float) -> float:
        return max(0.0, self.seconds - gone_for_s) if self.count <= self.max_answers else 0.0


class Presence:
    """The context manager of Request.present. It is re-entered during one exchange, with one watching task at most.

    ASGI reports a disconnect only through `receive`, and awaiting that takes a task of its own. A delay spares short
    requests this task.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._linger: Linger | None = None
        self._start_timer: asyncio.TimerHandle | None = None
        self._cut_timer: asyncio.TimerHandle | None = None
        self._watching: asyncio.Task[None] | None = None
        # The task inside the context; None outside of it.
        self._task: asyncio.Task[Any] | None = None
        self._cancelled_before = 0
        self._is_cut = False
        self._is_lingering = False
        self.gone_at: float | None = None

    def watch(self, linger: Linger, delay_s: float) -> None:
        self._linger = linger
        if not delay_s:
            self._start()
        elif self._start_timer is None:
            self._start_timer = self._loop.call_later(delay_s, self._start)

    def end(self) -> None:
        self._stop_lingering()
        if self._start_timer is not None:
            self._start_timer.cancel()
        if self._watching is not None:
            self._watching.cancel()

    def __enter__(self) -> None:
        self._task = asyncio.current_task(self._loop)
        assert self._task is not None
        self._cancelled_before = self._task.cancelling()
        if self.gone_at is not None:
            self._start_lingering()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Turn our own cancellation into ClientGoneError and let every other one propagate. The count of `Task.uncancel`
        # tells them apart, as in asyncio.timeout.
        task, self._task = self._task, None
        if self._cut_timer is not None:
            self._cut_timer.cancel()
            self._cut_timer = None
        if not self._is_cut or task is None:
            return
        is_ours_alone = task.uncancel() <= self._cancelled_before
        if is_ours_alone and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise ClientGoneError from None

    def _start(self) -> None:
        # Not cancelled when the context exits: some servers lose the message that a cancelled `receive` waited for.
        if self._watching is None:
            self._watching = self._loop.create_task(_disconnected(self._receive))
            self._watching.add_done_callback(self._note_gone)

    def _note_gone(self, watching: asyncio.Task[None]) -> None:
        if watching.cancelled():
            return
        self.gone_at = self._loop.time()
        if self._task is not None:
            self._start_lingering()

    def _start_lingering(self) -> None:
        assert self._linger is not None
        assert self.gone_at is not None
        if not self._is_lingering:
            self._is_lingering = True
            self._linger.count += 1
        if self._cut_timer is None:
            left_s = self._linger.left_s(self._loop.time() - self.gone_at)
            self._cut_timer = self._loop.call_later(left_s, self._cut)

    def _stop_lingering(self) -> None:
        if self._is_lingering and self._linger is not None:
            self._is_lingering = False
            self._linger.count -= 1

    def _cut(self) -> None:
        if self._task is not None:
            self._is_cut = True
            self._task.cancel()


class ClientGoneError(Exception):
    """The client has left, and its answer is not read on."""


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
