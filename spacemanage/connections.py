"""One client's connection to the server: uvicorn's, with an end to its patience, and with answers in one piece.

By itself uvicorn waits for ever for the rest of a head or of a body and for a client that does not read its answer; it
reads a head of any length and any number of requests at once, does not notice that a client has left who sent a second
request behind the first, and loses the body of a request that asks for HTTP/2 by the way.
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

HEAD_MOST = 64 * 1024
# Of one read: each has what follows it read again.
WISHES_MOST = 8
# Requests sent behind one that is not answered yet.
WAITING_MOST = 16
# What is longer gains nothing from being sent together.
JOINED_MOST = 16 * 1024


class Owed(Enum):
    """What of a request has not come yet."""

    HEAD = auto()
    BODY = auto()


class Connection(HttpToolsProtocol):
    """One request after another. httptools calls the `on_…` methods."""

    # For a whole head; for the next piece of a body; for any of what waits to be read.
    HEAD_S = 30.0
    BODY_S = 60.0
    UNREAD_S = 60.0
    # A body that comes more slowly than so many bytes a second may be as late as BODY_S, in all.
    BODY_LEAST = 8 * 1024
    # How often it is looked whether one of them is over: so much later it may be noticed.
    LOOK_S = 10.0

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        # What the client owes us, and since when.
        self._owes: Owed | None = Owed.HEAD
        self._owes_since = 0.0
        self._body_due_at = 0.0
        # Of a head, or of what stands around the pieces of a body, since the last of them.
        self._head_bytes = 0
        self._has_body = False
        # What is being answered; `cycle` is the last that came.
        self._answering: RequestResponseCycle | None = None
        self._data = b""
        self._wishes = 0
        self._unread_bytes = 0
        self._unread_since = 0.0
        self._looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(cast("asyncio.Transport", Joining(transport, self.loop)))
        self._owes_since = self.loop.time()
        self._looking = self.loop.call_later(self.LOOK_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self.pipeline.clear()
        if self._is_answering():
            assert self._answering is not None
            self._answering.disconnected = True
            self._answering.message_event.set()

    def data_received(self, data: bytes) -> None:
        if self._owes is not Owed.HEAD:
            self._owes_since = self.loop.time()
            if self._owes is None:
                self._owes, self._head_bytes = Owed.HEAD, 0
            else:
                self._body_due_at += len(data) / self.BODY_LEAST
        self._data, self._wishes, self._has_body = data, 0, False
        super().data_received(data)
        self._data = b""
        if self._owes is not None:
            self._head_bytes = 0 if self._has_body else self._head_bytes + len(data)
            if self._head_bytes > HEAD_MOST and not self.transport.is_closing():
                self.send_400_response(f"The head of the request is longer than {HEAD_MOST} bytes.")

    def send_400_response(self, msg: str) -> None:
        # Within an answer, or in place of one that is still to come, it would be read as that.
        if self._is_answering():
            self.transport.abort()
        else:
            super().send_400_response(msg)

    def _should_upgrade(self) -> bool:
        """Asked of a request that wants another protocol; uvicorn then leaves it to the method below."""
        return True

    def handle_websocket_upgrade(self) -> None:
        """There is none here, and a server may pass over the wish (RFC 9110, 7.8): it is read again without it.

        The parser leaves what follows such a head alone, and `curl --http2`, for one, sends a body behind it.
        """
        wish = sys.exception()
        assert isinstance(wish, httptools.HttpParserUpgrade)
        self._wishes += 1
        method = self.parser.get_method()
        if method == b"CONNECT" or self._wishes > WISHES_MOST:
            self.send_400_response("There is no other protocol and no tunnel here.")
            return
        version = self.parser.get_http_version().encode()
        lines = [method + b" " + self.url + b" HTTP/" + version, *_without_wish(self.headers), b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        # As uvicorn's own.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._data = b"\r\n".join(lines) + self._data[wish.args[0] :]
        super().data_received(self._data)

    def on_header(self, name: bytes, value: bytes) -> None:
        # What follows a body is no part of the head, and could name another address. So could a name with a "_": to
        # pages it is the same as one with a "-" (nginx and Django's own server drop it as well).
        if self._owes is not Owed.BODY and b"_" not in name:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if len(self.pipeline) > WAITING_MOST:
            raise httptools.HttpParserError
        now = self.loop.time()
        self._owes, self._owes_since, self._body_due_at = Owed.BODY, now, now + self.BODY_S

    def on_body(self, body: bytes) -> None:
        self._has_body = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._owes = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _is_answering(self) -> bool:
        return self._answering is not None and not self._answering.response_complete

    def _look(self) -> None:
        now = self.loop.time()
        if self._is_overdue(now) or self._is_unread(now):
            self.transport.abort()
        else:
            self._looking = self.loop.call_later(self.LOOK_S, self._look)

    def _is_overdue(self, now: float) -> bool:
        if self._owes is None:
            return False
        if self.flow.read_paused or (self._owes is Owed.HEAD and self._is_answering()):
            # It is we who do not read; and who waits for an answer need not send the next request.
            self._owes_since, self._body_due_at = now, max(self._body_due_at, now + self.BODY_S)
        if self._owes is Owed.HEAD:
            return now - self._owes_since >= self.HEAD_S
        return now - self._owes_since >= self.BODY_S or now >= self._body_due_at

    def _is_unread(self, now: float) -> bool:
        waiting_bytes = self.transport.get_write_buffer_size()
        if not waiting_bytes or waiting_bytes != self._unread_bytes:
            self._unread_bytes, self._unread_since = waiting_bytes, now
        return now - self._unread_since >= self.UNREAD_S


def _without_wish(headers: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for name, value in headers:
        if name == b"connection":
            if tokens := [token for token in value.split(b",") if token.strip().lower() in (b"close", b"keep-alive")]:
                yield b"connection: " + b",".join(tokens)
        elif name not in (b"upgrade", b"http2-settings"):
            yield name + b": " + value


class Joining:
    """A transport that sends what is written in one turn of the loop in one piece.

    Head and body of an answer are written one after the other: sent apart, each would wake whoever reads them.
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
        if self._size >= JOINED_MOST:
            self._send()
        elif len(self._pieces) == 1:
            self._loop.call_soon(self._send)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        # Who has left meanwhile is not written to.
        if self._pieces and not self._transport.is_closing():
            self._transport.write(b"".join(self._pieces))
        self._pieces.clear()
        self._size = 0
