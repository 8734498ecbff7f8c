"""Where a request goes: the upstream's origin, the proxy on the way, and the head that each of them reads."""

from __future__ import annotations

import asyncio
import base64
from functools import lru_cache
from typing import NamedTuple, cast
from urllib.parse import unquote, urlsplit

from relay.http_connection import MAX_RESPONSE_HEAD_BYTES, ConnectError, HttpError

Headers = tuple[tuple[str, str], ...]


class UpstreamOrigin(NamedTuple):
    is_secure: bool
    host: str
    port: int

    @property
    def address(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def header(self) -> str:
        return self.address if self.port == (443 if self.is_secure else 80) else f"{self.address}:{self.port}"


class Proxy(NamedTuple):
    host: str
    port: int
    # The value of Proxy-Authorization; empty if it needs none.
    authorization: str


class Route(NamedTuple):
    origin: UpstreamOrigin
    proxy: Proxy | None

    @property
    def is_tunnel(self) -> bool:
        return self.proxy is not None and self.origin.is_secure

    @property
    def peer(self) -> tuple[str, int]:
        """Host and port to connect to."""
        return (self.origin.host, self.origin.port) if self.proxy is None else self.proxy[:2]


@lru_cache(maxsize=1024)
def request_head(method: str, url: str, headers: Headers, proxy: str) -> tuple[Route, bytes]:
    """The route and the request's head up to its content-length. Raises HttpError for a line break in it.

    Cached: all but the content-length is the same for all requests to one path of one upstream.
    """
    parts = urlsplit(url)
    is_secure = parts.scheme == "https"
    origin = UpstreamOrigin(is_secure, parts.hostname or "", parts.port or (443 if is_secure else 80))
    route = Route(origin, _proxy(proxy))
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if route.proxy is not None and not is_secure:
        target = f"http://{origin.header}{target}"
        headers += _proxy_headers(route.proxy)
    return route, _head(f"{method} {target} HTTP/1.1", (("host", origin.header), *headers))


def _head(first_line: str, headers: Headers) -> bytes:
    lines = [first_line, *(f"{name}: {value}" for name, value in headers), ""]
    head = "\r\n".join(lines)
    if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1:
        raise HttpError("a line break in the head")
    return head.encode("latin-1")


def _proxy(url: str) -> Proxy | None:
    if not url:
        return None
    parts = urlsplit(url)
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return Proxy(parts.hostname or "", parts.port or 80, authorization)


def _proxy_headers(proxy: Proxy) -> Headers:
    return (("proxy-authorization", proxy.authorization),) if proxy.authorization else ()


class Tunnel(asyncio.Protocol):
    """Asks a proxy to CONNECT. `opened` ends when TLS may begin, and raises ConnectError if the proxy refuses."""

    def __init__(self, loop: asyncio.AbstractEventLoop, route: Route) -> None:
        assert route.proxy is not None
        self.opened: asyncio.Future[None] = loop.create_future()
        # IPv6 addresses and the port are always written in full in CONNECT.
        authority = f"{route.origin.address}:{route.origin.port}"
        self._request = _head(f"CONNECT {authority} HTTP/1.1", (("host", authority), *_proxy_headers(route.proxy)))
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio.Transport.
        cast("asyncio.Transport", transport).write(self._request + b"\r\n")

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if len(self._answer) > MAX_RESPONSE_HEAD_BYTES:
            self._fail("the proxy's answer is too long")
        elif b"\r\n\r\n" in self._answer and not self.opened.done():
            status = self._answer.partition(b"\r\n")[0].split(b" ")[1:2]
            if status and status[0][:1] == b"2":
                self.opened.set_result(None)
            else:
                self._fail(f"the proxy answered {b''.join(status)[:3].decode('latin-1')}")

    def connection_lost(self, error: Exception | None) -> None:
        self._fail("the proxy closed the connection")

    def _fail(self, reason: str) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectError(f"no connection: {reason}"))
