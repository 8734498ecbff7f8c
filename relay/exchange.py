"""One HTTP exchange of the relay: what the client sent, whether it is still connected, and the way to answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any

from core.addresses import resolve_client_address
from relay import errors
from relay.asks import BODY_MOST

Scope = MutableMapping[str, Any]


Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


# Of a body, before the key is looked at.
STRANGERS_MOST = 256 * 1024


class Request:
    """One HTTP exchange: what was sent, and the way to answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self._there: WhileThere | None = None

    def header(self, name: bytes) -> str:
        """All its lines in one, since a proxy may have added one below those it was sent; empty where there is none."""
        return b",".join([value for key, value in self.scope["headers"] if key == name]).decode("latin-1")

    @property
    def address(self) -> str | None:
        client = self.scope.get("client") or ("",)
        return resolve_client_address(client[0], self.header(b"x-forwarded-for"))

    async def body(self, known: Callable[[], Awaitable[None]]) -> bytes:
        """Raises ApiError 413 beyond BODY_MOST, before it is all in memory; and what `known` raises of a long one.

        Else strangers would have us keep as much as they like to send.
        """
        parts, size, is_known = [], 0, False
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part = message.get("body", b"")
            size += len(part)
            if size > BODY_MOST:
                raise errors.ApiError(413, "invalid_request", f"The body is larger than {BODY_MOST} bytes.")
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)
            if size > STRANGERS_MOST and not is_known:
                await known()
                is_known = True

    def while_there(self, *, look_after_s: float = 0.0) -> WhileThere:
        """Cancels what is done inside when the client leaves: ClientGoneError. Only after the body was read."""
        if self._there is None:
            self._there = WhileThere(self.receive)
        self._there.look_after(look_after_s)
        return self._there

    def end(self) -> None:
        if self._there is not None:
            self._there.end()

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


class WhileThere:
    """What Request.while_there gives: one timer and one task for a whole exchange, which may enter it again and again.

    Servers tell that a client has left by `receive` alone, which costs a task: short work looks only when it turned out
    long.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._looking: asyncio.TimerHandle | None = None
        self._leaving: asyncio.Task[None] | None = None
        # The task that is inside; None while none is.
        self._task: asyncio.Task[Any] | None = None
        self._cancelled_before = 0
        self._has_left = False

    def look_after(self, seconds: float) -> None:
        if not seconds:
            self._look()
        elif self._looking is None:
            self._looking = self._loop.call_later(seconds, self._look)

    def end(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        if self._leaving is not None:
            self._leaving.cancel()

    def __enter__(self) -> None:
        if self._leaving is not None and self._leaving.done():
            raise ClientGoneError
        self._task = asyncio.current_task(self._loop)
        assert self._task is not None
        self._cancelled_before = self._task.cancelling()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """As asyncio.timeout does it: our own cancellation is told from another's by their number."""
        task, self._task = self._task, None
        if not self._has_left or task is None:
            return
        is_ours_alone = task.uncancel() <= self._cancelled_before
        if is_ours_alone and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise ClientGoneError from None

    def _look(self) -> None:
        # Never cancelled before the end: some servers lose what a cancelled one heard.
        if self._leaving is None:
            self._leaving = self._loop.create_task(_disconnected(self._receive))
            self._leaving.add_done_callback(self._leave)

    def _leave(self, _: object) -> None:
        if self._task is not None:
            self._has_left = True
            self._task.cancel()


class ClientGoneError(Exception):
    """Nobody is there to answer any more."""


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
