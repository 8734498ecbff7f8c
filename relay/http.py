"""HTTP/1.1 out, the little of it that the relay needs: httptools reads, asyncio carries, connections are reused.

No redirects, no cookies, no decompression, no proxies. Why not a client library: docs/decisions/013.
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

IDLE_MOST_S = 15.0
IDLE_MOST = 256
HEAD_MOST = 64 * 1024
# Bytes that wait for a slow reader before the upstream is asked to wait as well.
BUFFER_MOST = 256 * 1024


class HttpError(Exception):
    """No answer, or not all of it: what was read before is whole up to there."""


class StaleError(HttpError):
    """A kept connection turned out to be closed before a byte of the answer."""


class Origin(NamedTuple):
    """Where a connection leads: two requests of one origin can share it."""

    is_secure: bool
    host: str
    port: int

    @property
    def header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_secure else 80) else f"{host}:{self.port}"


class Connection(asyncio.Protocol):
    """One connection, one exchange at a time. httptools calls the `on_…` methods."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due_at = 0.0
        self._is_busy = False
        self._timeout_s = 0.0
        self._heard_at = 0.0
        self.idle_since = 0.0
        self.is_lost = False
        self._begin()

    def _begin(self) -> None:
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

    # -- What the relay asks.

    async def exchange(self, head: bytes, body: bytes, timeout_s: float) -> None:
        """Send a request and wait for the head of its answer. Raises HttpError; StaleError as it says."""
        self._begin()
        self._timeout_s = timeout_s
        self._heard_at = self._loop.time()
        self._is_busy = True
        if self._timer is None or self._due_at > self._heard_at + timeout_s:
            self._watch()
        assert self._transport is not None
        self._transport.write(head + body if len(body) < HEAD_MOST else head)
        if len(body) >= HEAD_MOST:
            self._transport.write(body)
        while not self.status:
            self._raise_error()
            await self._wait()

    async def next_chunk(self) -> bytes:
        """The next bytes of the body, empty at its end. Raises HttpError when it broke off."""
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
            self._heard_at = self._loop.time()
            self._transport.resume_reading()
        return chunk

    def end(self) -> bool:
        """The exchange is over; whether the connection can serve another."""
        self._is_busy = False
        can_serve = self._is_complete and self._keeps_alive and not self.is_lost
        if not can_serve:
            self.abort()
        return can_serve

    def abort(self) -> None:
        self.is_lost = True
        self._unwatch()
        if self._transport is not None:
            self._transport.abort()

    # -- What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are transports by what they do, not by their class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, HttpError) as error:
            self._fail(HttpError(f"not HTTP as we speak it: {type(error).__name__}"))
            self.abort()
        if self._is_complete and not self._is_busy:
            # Bytes that nobody asked for.
            self.abort()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        self._unwatch()
        if self.status and not self._has_length and error is None:
            self._is_complete = True
        elif not self._is_complete:
            what = type(error).__name__ if error else "closed"
            self._fail(HttpError(what) if self.status or self._head_bytes else StaleError(what))
        self._wake()

    # -- What httptools reads.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_MOST:
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
        # Asked here, because the parser forgets it with the end of the message.
        self._keeps_alive = self._has_length and self._parser.should_keep_alive()
        self.status = status

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._buffered += len(body)
        if self._buffered > BUFFER_MOST and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.status:
            self._is_complete = True

    # -- Waiting.

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _watch(self) -> None:
        """One timer for all exchanges of a connection: it is set again where something was heard meanwhile."""
        self._unwatch()
        if not self._is_busy:
            return
        now = self._loop.time()
        if self._is_paused:
            self._heard_at = now
        left_s = self._heard_at + self._timeout_s - now
        if left_s <= 0:
            self._fail(HttpError(f"silent for {self._timeout_s:g} s"))
            self.abort()
            self._wake()
        else:
            self._due_at = now + left_s
            self._timer = self._loop.call_later(left_s, self._watch)

    def _unwatch(self) -> None:
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


class Answer:
    """An answer whose head was read. Close it, or use it as a context: read whole, it gives its connection back."""

    def __init__(self, client: Client, origin: Origin, connection: Connection) -> None:
        self._client = client
        self._origin = origin
        self._connection: Connection | None = connection
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers

    @property
    def content_type(self) -> str:
        """Without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises HttpError when it breaks off, after all that came before."""
        while self._connection is not None and (chunk := await self._connection.next_chunk()):
            yield chunk

    async def read(self, most: int) -> bytes:
        """The whole body. Raises HttpError when it breaks off or is longer than `most` bytes."""
        parts, size = [], 0
        while self._connection is not None and (chunk := await self._connection.next_chunk()):
            size += len(chunk)
            if size > most:
                raise HttpError(f"longer than {most} bytes")
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


class Client:
    """Keeps idle connections for a while. `close` ends them all."""

    def __init__(self) -> None:
        self._idle: dict[Origin, deque[Connection]] = defaultdict(deque)
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
    ) -> Answer:
        """The answer's head; `timeout_s` is how long the other side may be silent. Raises HttpError.

        `is_fresh` asks for a connection of its own; a kept one may turn out stale, and the request is then repeated.
        """
        origin, begun = _begun(method, url, headers)
        head = begun + b"content-length: %d\r\n\r\n" % len(body)
        if not is_fresh and (kept := self._take(origin)):
            try:
                return await self._exchange(origin, kept, head, body, timeout_s)
            except StaleError:
                pass
        fresh = await self._connect(origin, connect_timeout_s)
        return await self._exchange(origin, fresh, head, body, timeout_s)

    async def _exchange(
        self, origin: Origin, connection: Connection, head: bytes, body: bytes, timeout_s: float
    ) -> Answer:
        try:
            await connection.exchange(head, body, timeout_s)
        except BaseException:
            connection.end()
            connection.abort()
            raise
        return Answer(self, origin, connection)

    async def _connect(self, origin: Origin, timeout_s: float) -> Connection:
        loop = asyncio.get_running_loop()
        tls = self._context() if origin.is_secure else None
        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop), origin.host, origin.port, ssl=tls
                )
        except (OSError, TimeoutError, UnicodeError) as error:
            raise HttpError(f"no connection: {type(error).__name__}") from error
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _take(self, origin: Origin) -> Connection | None:
        idle = self._idle[origin]
        earliest = time.monotonic() - IDLE_MOST_S
        while idle:
            connection = idle.pop()
            if not connection.is_lost and connection.idle_since > earliest:
                return connection
            connection.abort()
        return None

    def give_back(self, origin: Origin, connection: Connection) -> None:
        if not connection.end():
            return
        idle = self._idle[origin]
        connection.idle_since = time.monotonic()
        idle.append(connection)
        if len(idle) > IDLE_MOST:
            idle.popleft().abort()

    def close(self) -> None:
        for idle in self._idle.values():
            for connection in idle:
                connection.abort()
        self._idle.clear()


@lru_cache(maxsize=1024)
def _begun(method: str, url: str, headers: tuple[tuple[str, str], ...]) -> tuple[Origin, bytes]:
    """Where to, and the head but for the length of the body: the same for every request to one upstream's path."""
    parts = urlsplit(url)
    is_secure = parts.scheme == "https"
    origin = Origin(is_secure, parts.hostname or "", parts.port or (443 if is_secure else 80))
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
