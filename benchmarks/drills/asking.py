"""Clients of the relay over HTTP: a burst of concurrent requests, or a constant load in the background."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import aiohttp

from benchmarks.drills.processes import wait_until

# No request may take longer, whatever the fault: settlements wait up to 60 s for an unreachable database.
REQUEST_TIMEOUT_S = 90.0
PAUSE_AFTER_ERROR_S = 0.2
SERVED_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request for a chat completion. `content` may have directives for the demo upstream, such as demo:delay=3."""

    base: str
    key: str
    model: str
    content: str = "Hello"
    is_stream: bool = False
    output_tokens: int = 40
    # The client disconnects after so many reads of the response's body, when it has read these bytes, or after so many
    # seconds.
    max_reads: int | None = None
    until: bytes = b""
    disconnect_after_s: float | None = None

    @property
    def body(self) -> bytes:
        messages = [{"role": "user", "content": self.content}]
        limit = {"max_completion_tokens": self.output_tokens}
        return json.dumps({"model": self.model, "messages": messages, "stream": self.is_stream, **limit}).encode()


@dataclass
class Answer:
    """The response to an Ask. `status` is 0 if the connection ended before the response's head."""

    ask: Ask
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    has_ended: bool = False
    seconds: float = 0.0

    @property
    def request_id(self) -> UUID | None:
        text = self.headers.get("x-space-request-id")
        return UUID(text) if text else None

    @property
    def cost_nanos(self) -> int | None:
        text = self.headers.get("x-space-cost-usd")
        return int(Decimal(text) * 10**9) if text else None

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error object; empty if the body is not one."""
        try:
            error = json.loads(self.body)["error"]
        except (ValueError, KeyError, TypeError):
            return {}
        return error if isinstance(error, dict) and {"message", "type", "param", "code"} <= set(error) else {}

    @property
    def is_done(self) -> bool:
        return b"data: [DONE]" in self.body

    @property
    def text(self) -> str:
        lines = [line[6:] for line in bytes(self.body).splitlines() if line.startswith(b"data: {")]
        choices = [choice for line in lines for choice in _choices(line)]
        return "".join(choice.get("delta", {}).get("content") or "" for choice in choices)

    @property
    def outcome(self) -> str:
        if self.status == 0:
            return "no answer"
        if self.status != 200:
            return f"{self.status} {self.error.get('code', 'and no error of ours')}"
        whole = self.has_ended and (self.is_done or not self.ask.is_stream)
        return ("200 stream" if self.ask.is_stream else "200") + ("" if whole else ", cut")


def _choices(line: bytes) -> list[dict[str, Any]]:
    try:
        choices = json.loads(line).get("choices", [])
    except ValueError:
        return []
    return list(choices)


def tally(answers: Iterable[Answer]) -> str:
    counted = Counter(answer.outcome for answer in answers)
    return ", ".join(f"{outcome}: {count}" for outcome, count in sorted(counted.items())) or "none"


def ask_at_once(asks: list[Ask]) -> list[Answer]:
    """Send all requests concurrently, each on a new connection, and return the answers in the same order."""
    return asyncio.run(_at_once(asks))


def ask(one: Ask) -> Answer:
    return ask_at_once([one])[0]


async def _at_once(asks: list[Ask]) -> list[Answer]:
    async with _session() as session:
        return await asyncio.gather(*(_ask(session, one) for one in asks))


def _session() -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)


async def _ask(session: aiohttp.ClientSession, one: Ask) -> Answer:
    answer = Answer(one)
    started = time.monotonic()
    try:
        async with asyncio.timeout(one.disconnect_after_s):
            await _exchange(session, answer)
    except (aiohttp.ClientError, OSError):
        pass
    answer.seconds = time.monotonic() - started
    return answer


async def _exchange(session: aiohttp.ClientSession, answer: Answer) -> None:
    one = answer.ask
    headers = {"Authorization": f"Bearer {one.key}", "Content-Type": "application/json"}
    async with session.post(f"{one.base}/v1/chat/completions", data=one.body, headers=headers) as response:
        answer.status, answer.headers = response.status, response.headers
        reads = 0
        async for chunk in response.content.iter_any():
            answer.body += chunk
            reads += 1
            is_enough = one.max_reads is not None and reads >= one.max_reads
            if is_enough or (one.until and one.until in answer.body):
                response.close()
                return
        answer.has_ended = True


class BackgroundLoad:
    """Keep `in_flight` requests in flight, in a thread, for the duration of the `with` block; collect their answers."""

    def __init__(self, make: Callable[[int], Ask], *, in_flight: int = 64) -> None:
        self.answers: list[Answer] = []
        self._make = make
        self.in_flight = in_flight
        self._made = 0
        self._is_ending = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._is_ending = True
        self._thread.join()

    def wait_for_served(self, count: int) -> bool:
        wanted = self._served() + count
        return wait_until(lambda: self._served() >= wanted, timeout_s=SERVED_TIMEOUT_S)

    def _served(self) -> int:
        return sum(answer.status == 200 for answer in self.answers)

    async def _run(self) -> None:
        async with _session() as session:
            await asyncio.gather(*(self._client(session) for _ in range(self.in_flight)))

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while not self._is_ending:
            self._made += 1
            answer = await _ask(session, self._make(self._made))
            self.answers.append(answer)
            if answer.status != 200:
                # Real clients back off; without a pause, a server that is down would refuse thousands per second.
                await asyncio.sleep(PAUSE_AFTER_ERROR_S)
