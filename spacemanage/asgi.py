"""One process, two doors: /v1 goes to the relay, everything else to Django's pages.

The relay stands beside Django's own handler, which would cost a thread per request.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from threading import Event
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "spacemanage.settings")

from a2wsgi import WSGIMiddleware
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection

django_pages: Any = get_wsgi_application()

from relay.app import Relay  # noqa: E402  the apps must be loaded before
from spacemanage.boot import refuse_published_passwords  # noqa: E402
from spacemanage.worker import Worker  # noqa: E402

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PAGE_THREADS = 8
# A page that is being rendered lets go of the interpreter for the relay after so long at the latest.
sys.setswitchinterval(0.001)


def pages_while_there(environ: Any, start_response: Any) -> Iterator[bytes]:
    """Django's pages, of which an answer in pieces ends when its client has left: nobody would read the rest."""
    answer = django_pages(environ, start_response)
    try:
        for piece in answer:
            yield piece
            if environ["asgi.scope"]["has_left"].is_set():
                return
    finally:
        answer.close()


pages: Any = WSGIMiddleware(pages_while_there, workers=PAGE_THREADS)
relay = Relay()
worker = Worker(relay.upstreams)


def application(scope: Message, receive: Receive, send: Send) -> Awaitable[None]:
    """Awaited by the server, like what it hands on to: a coroutine of its own would be one more for each request."""
    if scope["type"] == "lifespan":
        return _lifespan(receive, send)
    if scope["path"] == "/v1" or scope["path"].startswith("/v1/"):
        return relay(scope, receive, send)
    return _pages(scope, receive, send)


async def _pages(scope: Message, receive: Receive, send: Send) -> None:
    """A page has a thread from when its form is there as a whole: one that was cut off is nobody's wish."""
    has_left = scope["has_left"] = Event()
    # What comes with a GET is nobody's to read.
    body = b"" if scope["method"] == "GET" else await _body(receive)
    if body is None:
        return
    if len(body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        await _refuse_body(send)
        return
    message = {"type": "http.request", "body": body, "more_body": False}

    async def receive_message() -> Message:
        return message

    # From the beginning: a server may tell only those who are waiting.
    leaving = asyncio.ensure_future(_leave(receive, has_left))
    try:
        await pages(scope, receive_message, send)
    finally:
        leaving.cancel()


async def _body(receive: Receive) -> bytes | None:
    """As far as it is looked at; None when the client left before its end."""
    body = bytearray()
    while len(body) <= settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        if not message["more_body"]:
            break
    return bytes(body)


async def _refuse_body(send: Send) -> None:
    said = f"The body is larger than {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes.\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(said))]
    await send({"type": "http.response.start", "status": 413, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": said})


async def _leave(receive: Receive, has_left: Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    has_left.set()


def _check() -> None:
    """In a thread, whose connection nobody needs again."""
    try:
        refuse_published_passwords()
    finally:
        connection.close()


async def _lifespan(receive: Receive, send: Send) -> None:
    """Teller, catalogue, worker and client sessions start before the first request and drain after the last."""
    await receive()
    try:
        await asyncio.to_thread(_check)
        await relay.start()
        working = asyncio.ensure_future(worker.run())
    except Exception as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        raise
    # What stands now stays: the collector need not walk all of Django again and again.
    gc.collect()
    gc.freeze()
    # What a request makes ends with it; looking for circles after every 700 objects finds none.
    gc.set_threshold(20_000, 20, 20)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    working.cancel()
    await asyncio.wait([working])
    await relay.close()
    await send({"type": "lifespan.shutdown.complete"})
