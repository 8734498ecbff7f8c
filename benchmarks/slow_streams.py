"""Slow streams: an upstream that writes them, and a client that reads thousands at once. Started by benchmarks.streams.

    python -m benchmarks.slow_streams serve --port P
    python -m benchmarks.slow_streams read < plan.json

Each chunk carries the moment at which the upstream wrote it, by the machine's monotonic clock, so that the client knows
how late it came.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import sys
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import httptools
import uvloop

_PLAN = re.compile(rb"pace=([0-9]+) chunks=([0-9]+)")
_WRITTEN_AT = re.compile(rb"written=([0-9]+)")
NANOS_PER_MS = 1_000_000
# Streams that have not ended so long after their time are given up.
PATIENCE_S = 60.0


def raise_file_limit() -> None:
    """Allow as many sockets as the system does; a shell's usual limit is a thousand."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# -- The upstream -----------------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class SlowProtocol(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        body, self.body = self.body, b""
        plan = _PLAN.search(body)
        if plan is None:
            self.transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        self.transport.write(HEAD)
        self._write(0, int(plan[2]), int(plan[1]) / 1000, self.loop.time())

    def _write(self, place: int, chunks: int, pace_s: float, due: float) -> None:
        if self.transport.is_closing():
            return
        if place == chunks:
            usage = {"prompt_tokens": 20, "completion_tokens": chunks, "total_tokens": 20 + chunks}
            end = _event({"choices": [], "usage": usage}), b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
            self.transport.write(b"".join(end))
            return
        delta = {"content": f"written={time.monotonic_ns()} "}
        finish = "stop" if place + 1 == chunks else None
        self.transport.write(_event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))
        # Due times are added up, so that a late chunk does not delay those after it.
        self.loop.call_at(due + pace_s, self._write, place + 1, chunks, pace_s, due + pace_s)


def _event(content: dict[str, Any]) -> bytes:
    head = {"id": "chatcmpl-0123456789abcdef", "object": "chat.completion.chunk", "model": "bench"}
    piece = f"data: {json.dumps(head | content)}\n\n".encode()
    return f"{len(piece):x}\r\n".encode() + piece + b"\r\n"


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(SlowProtocol, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


# -- The client -------------------------------------------------------------------------------------------------------


class Readers:
    """Opens `streams` streams over `ramp_s` seconds and reads each to its end.

    Lateness is counted of chunks that were written while all streams were open.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        self.url = urlsplit(plan["url"])
        self.streams: int = plan["streams"]
        self.ramp_s: float = plan["ramp_s"]
        self.seconds: float = plan["seconds"]
        self.chunks: int = plan["chunks"]
        body = json.dumps(plan["body"]).encode()
        self.requests = [self._request(headers, body) for headers in plan["headers"]]
        self.outcomes: Counter[str] = Counter()
        self.late_ms: Counter[int] = Counter()
        self.all_open_at = 0

    def _request(self, headers: dict[str, str], body: bytes) -> bytes:
        named = {"host": self.url.netloc, "content-type": "application/json", "content-length": str(len(body))}
        lines = [f"{name}: {value}\r\n" for name, value in (named | headers).items()]
        return f"POST {self.url.path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body

    async def run(self) -> dict[str, Any]:
        begun = time.monotonic()
        self.all_open_at = int((begun + self.ramp_s + 1) * 1e9)
        self.first_ends_at = int((begun + self.seconds) * 1e9)
        await asyncio.gather(*(self._read(number) for number in range(self.streams)))
        return {"outcomes": dict(self.outcomes), "late_tenths_ms": dict(self.late_ms)}

    async def _read(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.ramp_s * number / self.streams)
        ended = loop.create_future()
        request = self.requests[number % len(self.requests)]
        try:
            await loop.create_connection(lambda: Reader(self, request, ended), self.url.hostname, self.url.port)
            outcome = await asyncio.wait_for(ended, self.seconds + PATIENCE_S)
        except (OSError, TimeoutError) as error:
            outcome = type(error).__name__
        self.outcomes[outcome] += 1

    def note(self, data: bytes) -> int:
        now, found = time.monotonic_ns(), _WRITTEN_AT.findall(data)
        for written in map(int, found):
            if self.all_open_at <= written <= self.first_ends_at:
                # Tenths of milliseconds, which keep 300,000 chunks small.
                self.late_ms[(now - written) * 10 // NANOS_PER_MS] += 1
        return len(found)


class Reader(asyncio.Protocol):
    def __init__(self, readers: Readers, request: bytes, ended: asyncio.Future[str]) -> None:
        self.readers = readers
        self.request = request
        self.ended = ended
        self.chunks = 0
        self.is_done = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.parser = httptools.HttpResponseParser(self)
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.chunks += self.readers.note(body)
        self.is_done = self.is_done or b"[DONE]" in body

    def on_message_complete(self) -> None:
        status = self.parser.get_status_code()
        is_whole = self.chunks == self.readers.chunks and self.is_done
        self._end("whole" if status == 200 and is_whole else f"{status}, {self.chunks} chunks")

    def connection_lost(self, _error: Exception | None) -> None:
        self._end(f"cut after {self.chunks} chunks")

    def _end(self, outcome: str) -> None:
        if not self.ended.done():
            self.ended.set_result(outcome)
            self.transport.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["serve", "read"])
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    raise_file_limit()
    if options.role == "serve":
        uvloop.run(serve(options.port))
    else:
        print(json.dumps(uvloop.run(Readers(json.load(sys.stdin)).run())))
