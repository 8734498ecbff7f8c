"""Clients for benchmarks.hostile, each a process of its own that is told what to do on stdin as JSON.

python -m benchmarks.hostile_clients ask < plan.json       ordinary requests at a steady pace; prints latencies
python -m benchmarks.hostile_clients attack < plan.json    one body after another until SIGTERM; prints statuses
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import signal
import string
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

_KEY_LETTERS = string.ascii_letters + string.digits


# -- Bodies -----------------------------------------------------------------------------------------------------------


def _deep(size: int) -> bytes:
    return _body("[" * (size // 2), "]" * (size // 2))


def _wide(size: int) -> bytes:
    """Small objects in lists in objects, as many as fit: the dearest to parse and to walk."""
    piece = '{"type":"text","text":{"a":[{"b":[[{"c":{}}]]}]}},'
    return _body("[" + piece * (size // len(piece)), "{}]")


def _escapes(size: int) -> bytes:
    return _body('"' + "\\u00e9" * (size // 6), '"')


def _numbers(size: int) -> bytes:
    return _body("[" + "1e5," * (size // 4), "1]")


def _body(begin: str, end: str) -> bytes:
    head = '{"model": "bench", "max_tokens": 20, "messages": [{"role": "user", "content": '
    return f"{head}{begin}{end}}}]}}".encode()


BODIES: dict[str, Callable[[int], bytes]] = {"deep": _deep, "wide": _wide, "escapes": _escapes, "numbers": _numbers}


def made_up_key() -> str:
    """A key that nobody has, of a form that only a look-up tells apart."""
    return "sk-1-" + "".join(secrets.choice(_KEY_LETTERS) for _ in range(43))


# -- Clients ----------------------------------------------------------------------------------------------------------


class Client:
    """One connection, opened again when the server closes it."""

    def __init__(self, url: str) -> None:
        self.url = urlsplit(url)
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, body: bytes, key: str) -> int:
        """The status; 0 if the connection was closed before the answer."""
        try:
            return await self._post(body, key)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            if self._writer is not None:
                self._writer.close()
            self._writer = None
            return 0

    async def _post(self, body: bytes, key: str) -> int:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self.url.hostname, self.url.port)
        head = (
            f"POST {self.url.path} HTTP/1.1\r\nHost: {self.url.netloc}\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        # No drain: a server that refuses early answers while the body is still being sent.
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        status = int(answer.split(b" ", 2)[1])
        length = next(line for line in answer.split(b"\r\n") if line.startswith(b"content-length:"))
        await self._reader.readexactly(int(length.partition(b":")[2]))
        if b"connection: close" in answer:
            self._writer.close()
            self._writer = None
        return status


async def ask(plan: dict[str, Any]) -> dict[str, Any]:
    """Requests of several clients, each at its own moment of every interval, and never two of a client at once."""
    statuses: Counter[int] = Counter()
    latencies: list[float] = []
    body = json.dumps(plan["body"]).encode()
    ends_at = time.monotonic() + plan["seconds"]

    async def keep_asking(key: str) -> None:
        client = Client(plan["url"])
        due = time.monotonic() + random.random() * plan["interval_s"]
        while due < ends_at:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            begun = time.monotonic()
            statuses[await client.post(body, key)] += 1
            latencies.append(time.monotonic() - begun)
            due = max(due + plan["interval_s"], time.monotonic())

    await asyncio.gather(*(keep_asking(key) for key in plan["keys"]))
    return {"statuses": dict(statuses), "latencies_s": latencies}


async def attack(plan: dict[str, Any]) -> dict[str, Any]:
    """One body after another: of a member with their key, or of a stranger with a new key each time."""
    statuses: Counter[int] = Counter()
    client = Client(plan["url"])
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        for body in _forever([BODIES[name](plan["bytes"]) for name in plan["bodies"]]):
            statuses[await client.post(body, plan["key"] or made_up_key())] += 1
            await asyncio.sleep(plan["pause_s"])
    except asyncio.CancelledError:
        pass
    return {"statuses": dict(statuses)}


def _forever(bodies: list[bytes]) -> Iterator[bytes]:
    while True:
        yield from bodies


if __name__ == "__main__":
    role = {"ask": ask, "attack": attack}[sys.argv[1]]
    print(json.dumps(asyncio.run(role(json.load(sys.stdin)))))
