"""A minimal HTTP/1.1 client on asyncio and httptools, with keep-alive connections, through a proxy where there is one.

It supports no redirects and no cookies. docs/decisions/013 says why the relay uses no client library.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Self

from relay.encodings import Decoder, EncodingError, decoder_for
from relay.http_connection import (
    MAX_RESPONSE_HEAD_BYTES,
    ConnectError,
    HttpError,
    HttpTimeoutError,
    UpstreamConnection,
)
from relay.routes import Headers, Route, Tunnel, request_head

__all__ = ["MAX_RESPONSE_HEAD_BYTES", "ConnectError", "HttpClient", "HttpError", "HttpTimeoutError", "UpstreamResponse"]

MAX_IDLE_S = 15.0
MAX_IDLE_CONNECTIONS = 256
# Pools of upstreams and proxies that are no longer asked are closed when there are more than this.
MAX_POOLS = 128
REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-generation-id", "apim-request-id", "cf-ray")
MAX_REQUEST_ID_LENGTH = 200


class UpstreamResponse:
    """A response whose head was read. Close it, or use it as a context manager.

    The connection returns to the pool if the body was read to its end, and is closed otherwise. Bodies are decoded,
    though identity was asked for: some upstreams send gzip all the same. Raises HttpError for an unknown encoding.
    """

    def __init__(self, client: HttpClient, route: Route, connection: UpstreamConnection) -> None:
        self._client = client
        self._route = route
        self._connection: UpstreamConnection | None = connection
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers
        self._start = b""
        self._decoded: deque[bytes] = deque()
        self._decoder: Decoder | None = None
        try:
            self._decoder = decoder_for(connection.headers.get("content-encoding", ""))
        except EncodingError as error:
            self.close()
            raise HttpError(str(error)) from None
        self._has_ended = False

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def request_id(self) -> str:
        """The upstream's id of the exchange, for the log; empty if it sent none."""
        ids = (self.headers.get(name, "") for name in REQUEST_ID_HEADERS)
        found = next((value for value in ids if value), "")
        return found[:MAX_REQUEST_ID_LENGTH] if found.isascii() and found.isprintable() else ""

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. If it ends early, raises HttpError after all received bytes were yielded."""
        if start := self._start:
            self._start = b""
            yield start
        while chunk := await self._next_chunk():
            yield chunk

    async def read(self, max_bytes: int) -> bytes:
        """The whole body. Raises HttpError if it ends early or is longer than `max_bytes`."""
        parts, size = [], 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > max_bytes:
                raise HttpError(f"longer than {max_bytes} bytes")
            parts.append(chunk)
        return b"".join(parts)

    async def peek(self, is_enough: Callable[[bytes], bool], max_bytes: int) -> bytes:
        """The first bytes of the body, until they are enough, `max_bytes` or all. `chunks` yields them again."""
        while len(self._start) < max_bytes and not is_enough(self._start):
            chunk = await self._next_chunk()
            if not chunk:
                break
            self._start += chunk
        return self._start

    def has_ended(self) -> bool:
        """Whether `peek` saw the body's end."""
        return self._has_ended

    async def _next_chunk(self) -> bytes:
        if self._decoder is None:
            return await self._next_raw()
        while not self._decoded:
            raw = await self._next_raw()
            try:
                if not raw:
                    self._decoder.finish()
                    return b""
                self._decoded.extend(self._decoder.feed(raw))
            except EncodingError as error:
                raise HttpError(str(error)) from None
        return self._decoded.popleft()

    async def _next_raw(self) -> bytes:
        raw = await self._connection.next_chunk() if self._connection is not None else b""
        self._has_ended = not raw
        return raw

    def close(self) -> None:
        if self._connection is not None:
            self._client.give_back(self._route, self._connection)
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


class HttpClient:
    """Sends requests over pools of keep-alive connections. `close` closes the idle ones."""

    def __init__(self) -> None:
        self._pools: OrderedDict[Route, deque[UpstreamConnection]] = OrderedDict()
        self._tls: ssl.SSLContext | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Headers,
        body: bytes = b"",
        connect_timeout_s: float,
        timeout_s: float,
        is_fresh: bool = False,
        proxy: str = "",
    ) -> UpstreamResponse:
        """Send a request, once, and return when the response's head was read. Raises HttpError.

        `timeout_s` limits how long the upstream may be silent, not the whole exchange. A kept-alive connection that
        the upstream has closed is replaced before anything is written to it; `is_fresh` uses a new one in any case.
        `proxy` is an http:// address, with its credential if it needs one.
        """
        route, head_start = request_head(method, url, headers, proxy)
        head = head_start + b"content-length: %d\r\n\r\n" % len(body)
        kept = None if is_fresh else self._take_idle(route)
        connection = kept or await self._connect(route, connect_timeout_s)
        try:
            await connection.exchange(head, body, timeout_s)
        except BaseException:
            connection.end()
            connection.abort()
            raise
        return UpstreamResponse(self, route, connection)

    async def _connect(self, route: Route, timeout_s: float) -> UpstreamConnection:
        try:
            async with asyncio.timeout(timeout_s):
                return await (self._connect_through_proxy(route) if route.is_tunnel else self._connect_to(route))
        except TimeoutError as error:
            raise ConnectError(f"no connection within {timeout_s:g} s") from error
        except (OSError, UnicodeError) as error:
            raise ConnectError(f"no connection: {_reason(error)}") from error

    async def _connect_to(self, route: Route) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        tls = self._context() if route.origin.is_secure else None
        host, port = route.peer
        _, connection = await loop.create_connection(lambda: UpstreamConnection(loop), host, port, ssl=tls)
        return connection

    async def _connect_through_proxy(self, route: Route) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        transport, tunnel = await loop.create_connection(lambda: Tunnel(loop, route), *route.peer)
        try:
            await tunnel.opened
            connection = UpstreamConnection(loop)
            secure = await loop.start_tls(transport, connection, self._context(), server_hostname=route.origin.host)
        except BaseException:
            transport.abort()
            raise
        if secure is None:
            raise ConnectError("no connection: the proxy closed it")
        connection.connection_made(secure)
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _take_idle(self, route: Route) -> UpstreamConnection | None:
        idle = self._pools.get(route)
        earliest = time.monotonic() - MAX_IDLE_S
        while idle:
            connection = idle.pop()
            if connection.idle_since > earliest and connection.is_idle():
                return connection
            connection.abort()
        return None

    def give_back(self, route: Route, connection: UpstreamConnection) -> None:
        if not connection.end():
            return
        idle = self._pools.setdefault(route, deque())
        self._pools.move_to_end(route)
        connection.idle_since = time.monotonic()
        idle.append(connection)
        if len(idle) > MAX_IDLE_CONNECTIONS:
            idle.popleft().abort()
        if len(self._pools) > MAX_POOLS:
            _abort_all(self._pools.popitem(last=False)[1])

    def close(self) -> None:
        for idle in self._pools.values():
            _abort_all(idle)
        self._pools.clear()


def _abort_all(connections: deque[UpstreamConnection]) -> None:
    for connection in connections:
        connection.abort()


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    return type(error).__name__
