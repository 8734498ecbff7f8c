"""A minimal HTTP/1.1 client on asyncio and httptools, with keep-alive connections.

It supports no redirects, cookies, compression or proxies. docs/decisions/013 says why the relay uses no client library.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from types import TracebackType
from typing import NamedTuple, Self, cast
from urllib.parse import urlsplit

import httptools

MAX_IDLE_S = 15.0
MAX_IDLE_CONNECTIONS = 256
MAX_RESPONSE_HEAD_BYTES = 64 * 1024
# A shorter request body is sent in one write with its head.
MIN_SEPARATE_BODY_BYTES = 64 * 1024
# Backpressure: reading from the upstream pauses while a slow client has left this many bytes unread.
MAX_BUFFERED_BYTES = 256 * 1024


class HttpError(Exception):
    """The response is missing or incomplete. Chunks read before the error are valid."""


class StaleConnectionError(HttpError):
    """The upstream closed a kept-alive connection before it sent a byte of the response."""


class UpstreamOrigin(NamedTuple):
    is_secure: bool
    host: str
    port: int

    @property
    def header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_secure else 80) else f"{host}:{self.port}"


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

        Raises StaleConnectionError if the connection closed before a byte of it, HttpError for every other failure.
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
            self._fail(HttpError(what) if self.status or self._head_bytes else StaleConnectionError(what))
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
            self._fail(HttpError(f"silent for {self._timeout_s:g} s"))
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
            raise HttpError("closed")


class UpstreamResponse:
    """A response whose head was read. Close it, or use it as a context manager.

    The connection returns to the pool if the body was read to its end, and is closed otherwise.
    """

    def __init__(self, client: HttpClient, origin: UpstreamOrigin, connection: UpstreamConnection) -> None:
        self._client = client
        self._origin = origin
        self._connection: UpstreamConnection | None = connection
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. If it ends early, raises HttpError after all received bytes were yielded."""
        while self._connection is not None and (chunk := await self._connection.next_chunk()):
            yield chunk

    async def read(self, max_bytes: int) -> bytes:
        """The whole body. Raises HttpError if it ends early or is longer than `max_bytes`."""
        parts, size = [], 0
        while self._connection is not None and (chunk := await self._connection.next_chunk()):
            size += len(chunk)
            if size > max_bytes:
                raise HttpError(f"longer than {max_bytes} bytes")
            parts.append(chunk)
        return b"".join(parts)

    def close(self) -> None:
        if self._connection is not None:
            self._client.give_back(self._origin, self._connection)
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


class HttpClient:
    """Sends requests over a pool of keep-alive connections. `close` closes the idle ones."""

    def __init__(self) -> None:
        self._idle: dict[UpstreamOrigin, deque[UpstreamConnection]] = defaultdict(deque)
        self._tls: ssl.SSLContext | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: tuple[tuple[str, str], ...],
        body: bytes = b"",
        connect_timeout_s: float,
        timeout_s: float,
        is_fresh: bool = False,
    ) -> UpstreamResponse:
        """Send a request and return once the response's head was read. Raises HttpError.

        `timeout_s` limits how long the upstream may be silent, not the whole exchange. A request on a stale kept-alive
        connection is sent again on a new one; `is_fresh` avoids that by using a new connection from the start.
        """
        origin, head_start = _request_head(method, url, headers)
        head = head_start + b"content-length: %d\r\n\r\n" % len(body)
        if not is_fresh and (kept := self._take_idle(origin)):
            try:
                return await self._exchange(origin, kept, head, body, timeout_s)
            except StaleConnectionError:
                pass
        fresh = await self._connect(origin, connect_timeout_s)
        return await self._exchange(origin, fresh, head, body, timeout_s)

    async def _exchange(
        self, origin: UpstreamOrigin, connection: UpstreamConnection, head: bytes, body: bytes, timeout_s: float
    ) -> UpstreamResponse:
        try:
            await connection.exchange(head, body, timeout_s)
        except BaseException:
            connection.end()
            connection.abort()
            raise
        return UpstreamResponse(self, origin, connection)

    async def _connect(self, origin: UpstreamOrigin, timeout_s: float) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        tls = self._context() if origin.is_secure else None
        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(loop), origin.host, origin.port, ssl=tls
                )
        except (OSError, TimeoutError, UnicodeError) as error:
            raise HttpError(f"no connection: {type(error).__name__}") from error
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _take_idle(self, origin: UpstreamOrigin) -> UpstreamConnection | None:
        idle = self._idle[origin]
        earliest = time.monotonic() - MAX_IDLE_S
        while idle:
            connection = idle.pop()
            if not connection.is_lost and connection.idle_since > earliest:
                return connection
            connection.abort()
        return None

    def give_back(self, origin: UpstreamOrigin, connection: UpstreamConnection) -> None:
        if not connection.end():
            return
        idle = self._idle[origin]
        connection.idle_since = time.monotonic()
        idle.append(connection)
        if len(idle) > MAX_IDLE_CONNECTIONS:
            idle.popleft().abort()

    def close(self) -> None:
        for idle in self._idle.values():
            for connection in idle:
                connection.abort()
        self._idle.clear()


@lru_cache(maxsize=1024)
def _request_head(method: str, url: str, headers: tuple[tuple[str, str], ...]) -> tuple[UpstreamOrigin, bytes]:
    # Cached: all but the content-length is the same for all requests to one path of one upstream.
    parts = urlsplit(url)
    is_secure = parts.scheme == "https"
    origin = UpstreamOrigin(is_secure, parts.hostname or "", parts.port or (443 if is_secure else 80))
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [
        f"{method} {path} HTTP/1.1",
        f"host: {origin.header}",
        *[f"{name}: {value}" for name, value in headers],
        "",
    ]
    head = "\r\n".join(lines)
    if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1:
        raise HttpError("a line break in the head")
    return origin, head.encode("latin-1")
