"""One HTTP/1.1 connection to an upstream or a proxy on asyncio and httptools, with timeouts and backpressure."""

from __future__ import annotations

import asyncio
import select
from collections import deque
from typing import cast

import httptools

MAX_RESPONSE_HEAD_BYTES = 64 * 1024
# A shorter request body is sent in one write with its head.
MIN_SEPARATE_BODY_BYTES = 64 * 1024
# Backpressure: reading from the upstream pauses while a slow client has left this many bytes unread.
MAX_BUFFERED_BYTES = 256 * 1024


class HttpError(Exception):
    """The response is missing or incomplete. Chunks read before the error are valid."""


class HttpTimeoutError(HttpError):
    """The upstream was silent for longer than it may be."""


class ConnectError(HttpError):
    """There is no connection, so that nothing was sent."""


class UpstreamConnection(asyncio.Protocol):
    """One keep-alive connection that carries one exchange at a time. httptools calls the `on_…` methods."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_at = 0.0
        self._is_busy = False
        self._timeout_s = 0.0
        self._last_activity_at = 0.0
        self.idle_since = 0.0
        self.is_lost = False
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: dict[str, str] = {}
        self._head_bytes = 0
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._is_paused = False
        self._is_complete = False
        self._error: HttpError | None = None
        self._has_length = False
        self._keeps_alive = False

    # -- Exchanges

    async def exchange(self, head: bytes, body: bytes, timeout_s: float) -> None:
        """Send a request and wait for the head of its response.

        Raises HttpError. The upstream may have accepted the request all the same.
        """
        self._reset()
        self._timeout_s = timeout_s
        self._last_activity_at = self._loop.time()
        self._is_busy = True
        if self._timer is None or self._timer_due_at > self._last_activity_at + timeout_s:
            self._check_timeout()
        assert self._transport is not None
        self._transport.write(head + body if len(body) < MIN_SEPARATE_BODY_BYTES else head)
        if len(body) >= MIN_SEPARATE_BODY_BYTES:
            self._transport.write(body)
        while not self.status:
            self._raise_error()
            await self._wait()

    async def next_chunk(self) -> bytes:
        """The next bytes of the body, empty at its end. Raises HttpError if the response ended early."""
        while not self._chunks:
            if self._is_complete:
                return b""
            self._raise_error()
            await self._wait()
        chunk = b"".join(self._chunks) if len(self._chunks) > 1 else self._chunks[0]
        self._chunks.clear()
        self._buffered = 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._last_activity_at = self._loop.time()
            self._transport.resume_reading()
        return chunk

    def is_idle(self) -> bool:
        """Whether a kept-alive connection can carry a request.

        Bytes or an end that wait in the socket mean that the upstream closed it, even if the loop has not read them
        yet. Only so may a request be sent on another connection: of one that was written, nobody knows what became.
        """
        if self.is_lost or self._transport is None or self._transport.is_closing():
            return False
        waiting = select.poll()
        waiting.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not waiting.poll(0)

    def end(self) -> bool:
        self._is_busy = False
        can_serve = self._is_complete and self._keeps_alive and not self.is_lost
        if not can_serve:
            self.abort()
        return can_serve

    def abort(self) -> None:
        self.is_lost = True
        self._cancel_timer()
        if self._transport is not None:
            self._transport.abort()

    # -- Callbacks of asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._last_activity_at = self._loop.time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, HttpError) as error:
            self._fail(HttpError(f"not HTTP as we speak it: {type(error).__name__}"))
            self.abort()
        if self._is_complete and not self._is_busy:
            # Bytes after the response was complete would be read as the response to the next request.
            self.abort()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        self._cancel_timer()
        if self.status and not self._has_length and error is None:
            self._is_complete = True
        elif not self._is_complete:
            what = type(error).__name__ if error else "closed"
            self._fail(HttpError(f"the connection broke: {what}"))
        self._wake()

    # -- Callbacks of httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_RESPONSE_HEAD_BYTES:
            raise HttpError("the head is too long")
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self.headers.clear()
            return
        self._has_length = (
            status in (204, 304) or "content-length" in self.headers or "transfer-encoding" in self.headers
        )
        # Read now, because the parser resets it at the end of the message.
        self._keeps_alive = self._has_length and self._parser.should_keep_alive()
        self.status = status

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._buffered += len(body)
        if self._buffered > MAX_BUFFERED_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.status:
            self._is_complete = True

    # -- Waiting and timeouts

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _check_timeout(self) -> None:
        # A timer that is set again when it fires is cheaper than one that is reset on every read.
        self._cancel_timer()
        if not self._is_busy:
            return
        now = self._loop.time()
        if self._is_paused:
            # The client is slow, not the upstream: nothing is read while reading is paused.
            self._last_activity_at = now
        left_s = self._last_activity_at + self._timeout_s - now
        if left_s <= 0:
            self._fail(HttpTimeoutError(f"silent for {self._timeout_s:g} s"))
            self.abort()
            self._wake()
        else:
            self._timer_due_at = now + left_s
            self._timer = self._loop.call_later(left_s, self._check_timeout)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self, error: HttpError) -> None:
        if self._error is None:
            self._error = error

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
        if self.is_lost:
            raise HttpError("the connection is closed")
