"""A closed-loop load generator in one small process: python -m benchmarks.load < plan.json

The plan gives the URL, the requests, how many to keep in flight and for how long; the results are printed as JSON. Each
connection sends its next request as soon as it has a response. At the end the requests in flight are completed, so that
the number of responses can be compared with the books.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

# Only the tools' environment (benchmarks/peers.py) has both, so mypy cannot import them.
httptools = import_module("httptools")
uvloop = import_module("uvloop")

CHUNKS = 20
DRAIN_S = 60.0


class Load:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.url = urlsplit(plan["url"])
        self.is_stream: bool = plan["is_stream"]
        self.in_flight: int = plan["in_flight"]
        self.warm_up_s: float = plan["warm_up_s"]
        self.seconds: float = plan["seconds"]
        body = json.dumps(plan["body"]).encode()
        self.requests = [self._request(headers, body) for headers in plan["headers"]]
        self.statuses: Counter[int] = Counter()
        self.complaints: Counter[str] = Counter()
        self.latencies_s: list[float] = []
        self.first_bytes_s: list[float] = []

    def _request(self, headers: dict[str, str], body: bytes) -> bytes:
        named = {"host": self.url.netloc, "content-type": "application/json", "content-length": str(len(body))}
        lines = [f"{name}: {value}\r\n" for name, value in (named | headers).items()]
        return f"POST {self.url.path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body

    async def run(self) -> dict[str, Any]:
        self.counts_from = time.perf_counter() + self.warm_up_s
        self.ends_at = self.counts_from + self.seconds
        await asyncio.gather(*(self._keep_asking(number) for number in range(self.in_flight)))
        return {
            "per_s": len(self.latencies_s) / self.seconds,
            "latency_ms": _spread_ms(self.latencies_s),
            "first_byte_ms": _spread_ms(self.first_bytes_s),
            "statuses": dict(self.statuses),
            "complaints": dict(self.complaints),
        }

    async def _keep_asking(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        request = self.requests[number % len(self.requests)]
        # Staggered starts, because streams of the same length that begin together would stay synchronised.
        await asyncio.sleep(self.warm_up_s * number / self.in_flight)
        while time.perf_counter() < self.ends_at:
            ended = loop.create_future()
            try:
                await loop.create_connection(lambda: LoadClient(self, request, ended), self.url.hostname, self.url.port)  # noqa: B023
            except OSError as error:
                self.complaints[type(error).__name__] += 1
                await asyncio.sleep(0.05)
                continue
            try:
                await asyncio.wait_for(ended, max(0, self.ends_at - time.perf_counter()) + DRAIN_S)
            except TimeoutError:
                self.complaints["no answer"] += 1

    def note(self, begun: float, first: float, status: int, body: bytes) -> None:
        now = time.perf_counter()
        self.statuses[status] += 1
        if status != 200:
            self.complaints[body[:200].decode(errors="replace")] += 1
        elif not self._is_whole(body):
            self.complaints["not whole"] += 1
        elif self.counts_from <= now <= self.ends_at:
            self.latencies_s.append(now - begun)
            self.first_bytes_s.append(first - begun)

    def _is_whole(self, body: bytes) -> bool:
        if self.is_stream:
            return body.count(b'"content"') >= CHUNKS and b"[DONE]" in body
        return b'"usage"' in body


class LoadClient(asyncio.Protocol):
    def __init__(self, load: Load, request: bytes, ended: asyncio.Future[None]) -> None:
        self.load = load
        self.request = request
        self.ended = ended

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._ask()

    def _ask(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.first = 0.0
        self.body: list[bytes] = []
        self.is_asking = True
        self.begun = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.first = self.first or time.perf_counter()
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.is_asking = False
        self.load.note(self.begun, self.first, self.parser.get_status_code(), b"".join(self.body))
        if time.perf_counter() < self.load.ends_at and self.parser.should_keep_alive():
            # Send the next request from the event loop, because the parser is still processing this response.
            asyncio.get_running_loop().call_soon(self._ask_unless_closed)
        else:
            self.transport.close()

    def _ask_unless_closed(self) -> None:
        if not self.transport.is_closing():
            self._ask()

    def connection_lost(self, _error: Exception | None) -> None:
        if self.is_asking:
            self.load.complaints["connection lost"] += 1
        if not self.ended.done():
            self.ended.set_result(None)


def _spread_ms(seconds: list[float]) -> dict[str, float]:
    if len(seconds) < 2:
        return {}
    percents = statistics.quantiles(seconds, n=100)
    return {f"p{at}": round(percents[at - 1] * 1000, 3) for at in (50, 90, 99)}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(Load(json.load(sys.stdin)).run())))
