"""The ASGI application: /v1 goes to the relay, everything else to Django's pages, in one process.

The relay is not a Django view, because Django's handler would occupy a thread for each request.
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

from relay.app import Relay, answer_without_version, lacks_version  # noqa: E402  the apps must be loaded first
from spacemanage.boot import refuse_published_passwords  # noqa: E402
from spacemanage.worker import Worker  # noqa: E402

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PAGE_THREADS = 8
# A thread that renders a page releases the GIL after this many seconds, so that the relay's event loop can run.
sys.setswitchinterval(0.001)


def pages_until_disconnect(environ: Any, start_response: Any) -> Iterator[bytes]:
    # A streamed response, such as an export, stops when its client has disconnected.
    response = django_pages(environ, start_response)
    try:
        for chunk in response:
            yield chunk
            if environ["asgi.scope"]["has_disconnected"].is_set():
                return
    finally:
        response.close()


pages: Any = WSGIMiddleware(pages_until_disconnect, workers=PAGE_THREADS)
relay = Relay()
worker = Worker(relay.upstreams)


def application(scope: Message, receive: Receive, send: Send) -> Awaitable[None]:
    # The server awaits the handler's coroutine: awaiting it here would cost one more per request.
    if scope["type"] == "lifespan":
        return _lifespan(receive, send)
    path = scope["path"]
    if path == "/v1" or path.startswith("/v1/"):
        return relay(scope, receive, send)
    if lacks_version(path):
        return answer_without_version(scope, receive, send)
    return _pages(scope, receive, send)


async def _pages(scope: Message, receive: Receive, send: Send) -> None:
    """Buffer the whole body before a thread is taken, so that slow clients block none; drop an incomplete request."""
    has_disconnected = scope["has_disconnected"] = Event()
    # No page reads the body of a GET.
    body = b"" if scope["method"] == "GET" else await _body(receive)
    if body is None:
        return
    if len(body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        await _refuse_body(send)
        return
    message = {"type": "http.request", "body": body, "more_body": False}

    async def receive_message() -> Message:
        return message

    # Started before the page, because an ASGI server may report a disconnect only to a receive() that is waiting.
    watching = asyncio.ensure_future(_watch_disconnect(receive, has_disconnected))
    try:
        await pages(scope, receive_message, send)
    finally:
        watching.cancel()


async def _body(receive: Receive) -> bytes | None:
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
    text = f"The body is larger than {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes.\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": 413, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": text})


async def _watch_disconnect(receive: Receive, has_disconnected: Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    has_disconnected.set()


def _check_database() -> None:
    # This runs once, in a thread that would otherwise keep its database connection open.
    try:
        refuse_published_passwords()
    finally:
        connection.close()


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    try:
        await asyncio.to_thread(_check_database)
        await relay.start()
        working = asyncio.ensure_future(worker.run())
    except Exception as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        raise
    # Garbage collection need not traverse all of Django again and again: what start-up allocated stays.
    gc.collect()
    gc.freeze()
    # Reference counting frees what a request allocates: collecting as often as by default would find no cycles.
    gc.set_threshold(20_000, 20, 20)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    working.cancel()
    await asyncio.wait([working])
    await relay.close()
    await send({"type": "lifespan.shutdown.complete"})
