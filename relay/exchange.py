"""One HTTP exchange over ASGI: the client's request, its disconnect, and the response."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any

from core.addresses import resolve_client_address
from relay import errors
from relay.model_requests import MAX_BODY_BYTES

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Buffered of a request body before its API key was verified.
MAX_UNAUTHENTICATED_BODY_BYTES = 256 * 1024


class Request:
    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self._disconnect_watch: DisconnectWatch | None = None

    def header(self, name: bytes) -> str:
        # A proxy may append a second X-Forwarded-For line instead of extending the first.
        return b",".join([value for key, value in self.scope["headers"] if key == name]).decode("latin-1")

    @property
    def address(self) -> str | None:
        client = self.scope.get("client") or ("",)
        return resolve_client_address(client[0], self.header(b"x-forwarded-for"))

    async def body(self, verify_key: Callable[[], Awaitable[None]]) -> bytes:
        """Read the whole body. Raises ApiError 413 beyond MAX_BODY_BYTES, and ClientGoneError on disconnect.

        Beyond MAX_UNAUTHENTICATED_BODY_BYTES, `verify_key` is awaited once and its exceptions propagate. Without that,
        clients without a valid key could make the relay buffer 20 MiB for each request.
        """
        parts, size, is_verified = [], 0, False
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part = message.get("body", b"")
            size += len(part)
            if size > MAX_BODY_BYTES:
                raise errors.ApiError(413, "invalid_request", f"The body is larger than {MAX_BODY_BYTES} bytes.")
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)
            if size > MAX_UNAUTHENTICATED_BODY_BYTES and not is_verified:
                await verify_key()
                is_verified = True

    def cancel_on_disconnect(self, *, delay_s: float = 0.0) -> DisconnectWatch:
        """A context that is cancelled when the client disconnects, and then raises ClientGoneError.

        Use it only after the body was read, since both consume `receive`. `delay_s` postpones the watching.
        """
        if self._disconnect_watch is None:
            self._disconnect_watch = DisconnectWatch(self.receive)
        self._disconnect_watch.start_after(delay_s)
        return self._disconnect_watch

    def end(self) -> None:
        if self._disconnect_watch is not None:
            self._disconnect_watch.end()

    async def start(self, status: int, headers: dict[str, str]) -> None:
        listed = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": listed})

    async def write(self, chunk: bytes, *, more: bool) -> None:
        await self.send({"type": "http.response.body", "body": chunk, "more_body": more})

    async def answer(self, status: int, body: bytes, headers: dict[str, str], content_type: str = "") -> None:
        sized = {"content-type": content_type or "application/json", "content-length": str(len(body))}
        await self.start(status, sized | headers)
        await self.write(body, more=False)

    async def refuse(self, error: errors.ApiError, headers: dict[str, str] | None = None) -> None:
        await self.answer(error.status, json.dumps(error.body()).encode(), error.headers() | (headers or {}))


class DisconnectWatch:
    """The context manager of Request.cancel_on_disconnect. It is re-entered during one exchange, with one task at most.

    ASGI reports a disconnect only through `receive`, and awaiting that takes a task of its own. A delay spares short
    requests this task.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._disconnect: asyncio.Task[None] | None = None
        # The task inside the context; None outside of it.
        self._watched_task: asyncio.Task[Any] | None = None
        self._cancelled_before = 0
        self._is_disconnected = False

    def start_after(self, seconds: float) -> None:
        if not seconds:
            self._start()
        elif self._timer is None:
            self._timer = self._loop.call_later(seconds, self._start)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._disconnect is not None:
            self._disconnect.cancel()

    def __enter__(self) -> None:
        if self._disconnect is not None and self._disconnect.done():
            raise ClientGoneError
        self._watched_task = asyncio.current_task(self._loop)
        assert self._watched_task is not None
        self._cancelled_before = self._watched_task.cancelling()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Turn our own cancellation into ClientGoneError and let every other one propagate. The count of `Task.uncancel`
        # tells them apart, as in asyncio.timeout.
        task, self._watched_task = self._watched_task, None
        if not self._is_disconnected or task is None:
            return
        is_ours_alone = task.uncancel() <= self._cancelled_before
        if is_ours_alone and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise ClientGoneError from None

    def _start(self) -> None:
        # Not cancelled when the context exits: some servers lose the message that a cancelled `receive` waited for.
        if self._disconnect is None:
            self._disconnect = self._loop.create_task(_disconnected(self._receive))
            self._disconnect.add_done_callback(self._cancel)

    def _cancel(self, _: object) -> None:
        if self._watched_task is not None:
            self._is_disconnected = True
            self._watched_task.cancel()


class ClientGoneError(Exception):
    """The client has disconnected."""


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
