"""Scripted servers on real sockets: what an upstream or a proxy sends, byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from threading import Event, Thread

Script = list[bytes | float]

HANG_UP = b"hang up"


def reply(status: int, body: bytes = b"", *lines: str) -> Script:
    """A response with this status, body and header lines."""
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *lines, "", ""]
    return ["\r\n".join(head).encode() + body]


def json_reply(status: int, document: object, *lines: str) -> Script:
    return reply(status, json.dumps(document).encode(), "Content-Type: application/json", *lines)


class Server:
    """Answers each request with the next script: bytes are sent, a float is a pause, HANG_UP closes.

    The last script is repeated if `repeats`.
    """

    def __init__(self, *scripts: Script, repeats: bool = False) -> None:
        self.scripts = list(scripts)
        self.repeats = repeats
        self.connections = 0
        self.requests: list[bytes] = []
        self.url = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self.scripts and (head := await reader.readuntil(b"\r\n\r\n")):
                lengths = [int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
                self.requests.append(head + await reader.readexactly(lengths[0] if lengths else 0))
                if not await self._play(writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _play(self, writer: asyncio.StreamWriter) -> bool:
        """Play the next script. Returns False if it ends by closing the connection."""
        is_last = self.repeats and len(self.scripts) == 1
        for step in self.scripts[0] if is_last else self.scripts.pop(0):
            if step == HANG_UP:
                return False
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                writer.write(step)
                await writer.drain()
        return True

    def header(self, name: str, request: int = 0) -> str:
        """The value of a header of a request; empty if it was not sent."""
        lines = self.requests[request].partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        return dict(line.split(": ", 1) for line in lines).get(name, "")

    def body(self, request: int = 0) -> dict[str, object]:
        document: dict[str, object] = json.loads(self.requests[request].partition(b"\r\n\r\n")[2])
        return document


@asynccontextmanager
async def listening(server: Server, path: str = "/v1") -> AsyncIterator[Server]:
    started = await asyncio.start_server(server, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{started.sockets[0].getsockname()[1]}{path}"
    try:
        yield server
    finally:
        started.close()


@contextmanager
def in_thread(*servers: Server) -> Iterator[None]:
    """Listen in a thread of its own, for tests that call the relay over HTTP."""
    started, ended = Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with AsyncExitStack() as stack:
            for server in servers:
                await stack.enter_async_context(listening(server))
            started.set()
            await ended.wait()

    thread = Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    started.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)


def event(document: object) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()


def stream_reply(*steps: bytes | float) -> Script:
    """A stream of server-sent events; the connection's end is its end."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    return [head, *steps, HANG_UP]
