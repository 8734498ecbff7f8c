"""One process, two doors: /v1 goes to the relay, everything else to Django's pages.

The relay stands beside Django's own handler, which would cost a thread per request.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "spacemanage.settings")

from a2wsgi import WSGIMiddleware
from django.core.wsgi import get_wsgi_application

django_pages: Any = get_wsgi_application()

from relay.app import Relay  # noqa: E402  the apps must be loaded before
from relay.worker import Worker  # noqa: E402
from spacemanage.boot import refuse_published_passwords  # noqa: E402

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PAGE_THREADS = 8
# A page that is being rendered lets go of the interpreter for the relay after so long at the latest.
sys.setswitchinterval(0.001)

pages: Any = WSGIMiddleware(django_pages, workers=PAGE_THREADS)
relay = Relay()
worker = Worker(relay.upstreams)


async def application(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["path"] == "/v1" or scope["path"].startswith("/v1/"):
        await relay(scope, receive, send)
    else:
        await _pages(scope, receive, send)


async def _pages(scope: Message, receive: Receive, send: Send) -> None:
    """a2wsgi wants coroutines from another thread; what granian's receive and send give are awaitables only."""

    async def receive_message() -> Message:
        return await receive()

    async def send_message(message: Message) -> None:
        await send(message)

    await pages(scope, receive_message, send_message)


async def _lifespan(receive: Receive, send: Send) -> None:
    """Teller, catalogue, worker and client sessions start before the first request and drain after the last."""
    await receive()
    try:
        refuse_published_passwords()
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
