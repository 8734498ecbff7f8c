"""Upstreams with faults that the demo upstream cannot show, each on a port of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from relay.pricing import Usage

DRIPPED = "Seven bytes at a time, whatever they tear apart."
DRIPPED_USAGE = Usage(input=11, output=7)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextmanager
def hanging() -> Iterator[str]:
    """An upstream that never responds: the kernel accepts its connections, and nobody reads them. Yields its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        yield _url(listening.getsockname()[1])


@contextmanager
def dripping() -> Iterator[str]:
    with _serving(_drip) as url:
        yield url


@contextmanager
def refusing() -> Iterator[str]:
    with _serving(_refuse) as url:
        yield url


@contextmanager
def _serving(serve: Serve) -> Iterator[str]:
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024))
    thread = threading.Thread(target=loop.run_forever, name="bad upstream", daemon=True)
    thread.start()
    yield _url(server.sockets[0].getsockname()[1])
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}/v1"


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    stream = b"".join(_events())
    with suppress(ConnectionError):
        for start in range(0, len(stream), 7):
            writer.write(stream[start : start + 7])
            await writer.drain()
            await asyncio.sleep(0.005)
    writer.close()


def _events() -> Iterator[bytes]:
    for word in DRIPPED.split(" "):
        text = word if DRIPPED.startswith(word) else f" {word}"
        yield _event({"choices": [{"index": 0, "delta": {"content": text}}]})
    usage = {"prompt_tokens": DRIPPED_USAGE.input_tokens, "completion_tokens": DRIPPED_USAGE.output_tokens}
    yield _event({"choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _event(payload: object) -> bytes:
    return f"data: {json.dumps(payload)}\n\n".encode()


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _read_request(reader)
    writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    writer.close()


async def _read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line.partition(b":")[2] for line in head.lower().splitlines() if line.startswith(b"content-length")]
    await reader.readexactly(int(lengths[0]) if lengths else 0)
