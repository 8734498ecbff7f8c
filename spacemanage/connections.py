"""uvicorn's HTTP/1.1 connection with limits for slow clients, and with small writes coalesced.

uvicorn has no timeout for a slow head, a slow body or a client that does not read its response. It bounds neither the
size of a head nor the number of pipelined requests. It does not notice the disconnect of a client that has pipelined a
second request, and it drops the body of a request that has an Upgrade header.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from enum import Enum, auto
from typing import Any, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MAX_REQUEST_HEAD_BYTES = 64 * 1024
# Ignoring an Upgrade header parses the rest of the buffer again; without a bound that is quadratic.
MAX_UPGRADES_PER_READ = 8
# Requests that wait behind the one that is being answered.
MAX_PIPELINED_REQUESTS = 16
# Pending writes of this size are sent immediately, because coalescing more of them gains nothing.
MAX_COALESCED_BYTES = 16 * 1024


class Owed(Enum):
    HEAD = auto()
    BODY = auto()


class Connection(HttpToolsProtocol):
    """Abort a connection whose client is too slow. httptools calls the `on_…` methods."""

    # For a whole head, for the next chunk of a body, and for any progress of the write buffer.
    HEAD_TIMEOUT_S = 30.0
    BODY_TIMEOUT_S = 60.0
    WRITE_TIMEOUT_S = 60.0
    # A body is due BODY_TIMEOUT_S after its head, plus one second for each MIN_BODY_BYTES_PER_S received. Otherwise a
    # client that sends a byte now and then would keep its connection for ever (slowloris).
    MIN_BODY_BYTES_PER_S = 8 * 1024
    # One timer per connection checks all timeouts, so each may be noticed this much late.
    TIMEOUT_CHECK_INTERVAL_S = 10.0

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        # None while the client need not send anything.
        self._owes: Owed | None = Owed.HEAD
        self._owes_since = 0.0
        self._body_due_at = 0.0
        # Bytes of the head, or of chunk framing and trailers, since the last body data.
        self._head_bytes = 0
        self._has_body = False
        # uvicorn's `cycle` is the request received last, which may be pipelined behind this one.
        self._active_cycle: RequestResponseCycle | None = None
        self._data = b""
        self._upgrades_in_read = 0
        self._write_buffer_bytes = 0
        self._write_stalled_since = 0.0
        self._timeout_check: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's signature
        super().connection_made(cast("asyncio.Transport", CoalescingTransport(transport, self.loop)))
        self._owes_since = self.loop.time()
        self._timeout_check = self.loop.call_later(self.TIMEOUT_CHECK_INTERVAL_S, self._check_timeouts)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timeout_check is not None:
            self._timeout_check.cancel()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self.pipeline.clear()
        if self._is_answering():
            assert self._active_cycle is not None
            self._active_cycle.disconnected = True
            self._active_cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        if self._owes is not Owed.HEAD:
            self._owes_since = self.loop.time()
            if self._owes is None:
                self._owes, self._head_bytes = Owed.HEAD, 0
            else:
                self._body_due_at += len(data) / self.MIN_BODY_BYTES_PER_S
        self._data, self._upgrades_in_read, self._has_body = data, 0, False
        super().data_received(data)
        self._data = b""
        if self._owes is not None:
            self._head_bytes = 0 if self._has_body else self._head_bytes + len(data)
            if self._head_bytes > MAX_REQUEST_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response(f"The head of the request is longer than {MAX_REQUEST_HEAD_BYTES} bytes.")

    def send_400_response(self, msg: str) -> None:
        # While a response is being sent or is due, the client would take the 400 for a part of it.
        if self._is_answering():
            self.transport.abort()
        else:
            super().send_400_response(msg)

    def _should_upgrade(self) -> bool:
        # Makes uvicorn call handle_websocket_upgrade for every Upgrade header, not only for WebSocket.
        return True

    def handle_websocket_upgrade(self) -> None:
        """Ignore the Upgrade header, which RFC 9110, 7.8 allows, and parse the request again without it.

        httptools stops parsing after the head of such a request, but a client that offers an upgrade, such as
        `curl --http2`, may send a body with it.
        """
        upgrade = sys.exception()
        assert isinstance(upgrade, httptools.HttpParserUpgrade)
        self._upgrades_in_read += 1
        method = self.parser.get_method()
        if method == b"CONNECT" or self._upgrades_in_read > MAX_UPGRADES_PER_READ:
            self.send_400_response("There is no other protocol and no tunnel here.")
            return
        version = self.parser.get_http_version().encode()
        lines = [method + b" " + self.url + b" HTTP/" + version, *_without_upgrade(self.headers), b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        # uvicorn sets the same leniency on the parser that this one replaces.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._data = b"\r\n".join(lines) + self._data[upgrade.args[0] :]
        super().data_received(self._data)

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers after a body are dropped: they could spoof X-Forwarded-For. So could a name with "_", which WSGI
        # does not tell from "-" (nginx and Django's runserver drop it as well).
        if self._owes is not Owed.BODY and b"_" not in name:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if len(self.pipeline) > MAX_PIPELINED_REQUESTS:
            raise httptools.HttpParserError
        now = self.loop.time()
        self._owes, self._owes_since, self._body_due_at = Owed.BODY, now, now + self.BODY_TIMEOUT_S

    def on_body(self, body: bytes) -> None:
        self._has_body = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._owes = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._active_cycle = cycle
        super()._start_asgi_task(cycle, app)

    def _is_answering(self) -> bool:
        return self._active_cycle is not None and not self._active_cycle.response_complete

    def _check_timeouts(self) -> None:
        now = self.loop.time()
        if self._is_overdue(now) or self._is_write_stalled(now):
            self.transport.abort()
        else:
            self._timeout_check = self.loop.call_later(self.TIMEOUT_CHECK_INTERVAL_S, self._check_timeouts)

    def _is_overdue(self, now: float) -> bool:
        if self._owes is None:
            return False
        if self.flow.read_paused or (self._owes is Owed.HEAD and self._is_answering()):
            # The client is not late while the server has paused reading (backpressure), nor while it waits for a
            # response and has not sent its next request.
            self._owes_since, self._body_due_at = now, max(self._body_due_at, now + self.BODY_TIMEOUT_S)
        if self._owes is Owed.HEAD:
            return now - self._owes_since >= self.HEAD_TIMEOUT_S
        return now - self._owes_since >= self.BODY_TIMEOUT_S or now >= self._body_due_at

    def _is_write_stalled(self, now: float) -> bool:
        buffered_bytes = self.transport.get_write_buffer_size()
        if not buffered_bytes or buffered_bytes != self._write_buffer_bytes:
            self._write_buffer_bytes, self._write_stalled_since = buffered_bytes, now
        return now - self._write_stalled_since >= self.WRITE_TIMEOUT_S


def _without_upgrade(headers: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for name, value in headers:
        if name == b"connection":
            if tokens := [token for token in value.split(b",") if token.strip().lower() in (b"close", b"keep-alive")]:
                yield b"connection: " + b",".join(tokens)
        elif name not in (b"upgrade", b"http2-settings"):
            yield name + b": " + value


class CoalescingTransport:
    """A transport that sends all writes of one turn of the event loop in one send.

    uvicorn writes the head and the body of a response separately; sent separately, each would wake the client.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= MAX_COALESCED_BYTES:
            self._send()
        elif len(self._pieces) == 1:
            self._loop.call_soon(self._send)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        # The client may have disconnected since the write.
        if self._pieces and not self._transport.is_closing():
            self._transport.write(b"".join(self._pieces))
        self._pieces.clear()
        self._size = 0
