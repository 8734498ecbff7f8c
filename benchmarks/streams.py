"""Thousands of slow streams open at once through one worker: python -m benchmarks.streams

Each stream gets a chunk a second. The report says how many were whole, how late chunks came, with the same load on the
upstream itself beside it, and how much memory the worker needed for each stream. At the end the books are checked:
every stream is paid once, and none was left to the sweeper.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil  # type: ignore[import-untyped]  # it ships no types

from benchmarks import ours
from benchmarks.database import postgresql
from benchmarks.machine import machine
from benchmarks.peers import MODEL
from benchmarks.processes import running, unwind_on_sigterm, wait_until_answering
from benchmarks.slow_streams import raise_file_limit
from tests.postgres import free_port

PACE_MS = 1000
GOAL_P50_MS = 5.0
GOAL_P99_MS = 50.0
GOAL_KB = 40.0


@dataclass
class Reading:
    """What the client saw: how streams ended, and how late chunks came, in ms."""

    outcomes: dict[str, int]
    late: Counter[int]

    def late_ms(self, percent: float) -> float:
        """In tenths of a millisecond; the greatest for 100 %."""
        left = sum(self.late.values()) * percent / 100
        for tenths in sorted(self.late):
            left -= self.late[tenths]
            if left <= 0:
                return tenths / 10
        return 0.0


def main() -> None:
    options = _options()
    unwind_on_sigterm()
    raise_file_limit()
    print(machine())
    with _upstream() as upstream, postgresql() as database:
        straight = read(f"{upstream}/chat/completions", [{}], options)
        with ours.relay(upstream, database, members=options.members) as gateway:
            with Memory(gateway.pids[0]) as memory:
                through = read(gateway.url, gateway.headers, options)
            print(report(options, straight, through, memory), flush=True)
            swept = _swept()
            if swept or set(through.outcomes) != {"whole"}:
                raise SystemExit(f"WRONG: {swept} holds swept; streams: {through.outcomes}")
            print(f"\nBooks: {ours.books(options.streams)} {swept} holds swept.")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--seconds", type=int, default=60, help="length of a stream, with a chunk each second")
    parser.add_argument("--ramp-s", type=float, default=20.0, help="time over which the streams are opened")
    parser.add_argument("--members", type=int, default=64, help="wallets that the streams are spread over")
    options = parser.parse_args()
    if options.seconds <= options.ramp_s + 2:
        parser.error("--seconds must be longer than --ramp-s, or the streams are never all open")
    return options


@contextmanager
def _upstream() -> Iterator[str]:
    port = free_port()
    with running("slow-upstream", sys.executable, "-m", "benchmarks.slow_streams", "serve", "--port", str(port)):
        base = f"http://127.0.0.1:{port}/v1"
        wait_until_answering("The upstream", f"{base}/models")
        yield base


def read(url: str, headers: list[dict[str, str]], options: argparse.Namespace) -> Reading:
    words = f"pace={PACE_MS} chunks={options.seconds} Say it slowly."
    message = {"role": "user", "content": words}
    plan: dict[str, Any] = {
        "url": url,
        "headers": headers,
        "streams": options.streams,
        "seconds": options.seconds,
        "chunks": options.seconds,
        "ramp_s": options.ramp_s,
        "body": {"model": MODEL, "stream": True, "max_tokens": 2 * options.seconds, "messages": [message]},
    }
    command = (sys.executable, "-m", "benchmarks.slow_streams", "read")
    done = subprocess.run(command, input=json.dumps(plan).encode(), stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    late = Counter({int(tenths): count for tenths, count in found["late_tenths_ms"].items()})
    return Reading(found["outcomes"], late)


class Memory:
    """The greatest memory of the server's worker during the `with` block, and before it."""

    def __init__(self, server_pid: int) -> None:
        children = psutil.Process(server_pid).children()
        [self._worker] = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        self.before = self.most = self._used()
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory")

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._has_ended.set()
        self._thread.join()

    def _used(self) -> int:
        return int(self._worker.memory_info().rss)

    def _watch(self) -> None:
        while not self._has_ended.wait(0.5):
            self.most = max(self.most, self._used())

    def kb_each(self, streams: int) -> float:
        return (self.most - self.before) / 1024 / streams


def _swept() -> int:
    from usage.models import UsageRecord

    return UsageRecord.objects.filter(code="hold_expired").count()


def report(options: argparse.Namespace, straight: Reading, through: Reading, memory: Memory) -> str:
    whole, each = through.outcomes.get("whole", 0), memory.kb_each(options.streams)
    rows = [
        ("streams that were whole", f"{straight.outcomes.get('whole', 0):,}", f"{whole:,}", f"{options.streams:,}",
         whole == options.streams),
        _late_row(50, straight, through, GOAL_P50_MS),
        _late_row(99, straight, through, GOAL_P99_MS),
        _late_row(100, straight, through, None),
        ("memory of the worker for each stream", "", f"{each:.1f} KB", f"{GOAL_KB:g} KB", each <= GOAL_KB),
    ]  # fmt: skip
    lines = [
        f"{options.streams:,} streams open at once, a chunk a second for {options.seconds} s, one worker",
        "",
        "| | the upstream itself | Space Manage | goal | |",
        "| --- | --- | --- | --- | --- |",
    ]
    for title, theirs, found, goal, is_reached in rows:
        verdict = "" if not goal else "reached" if is_reached else "**not reached**"
        lines.append(f"| {title} | {theirs} | {found} | {goal} | {verdict} |")
    megabytes = f"The worker grew from {memory.before / 2**20:.0f} to {memory.most / 2**20:.0f} MB"
    return "\n".join(["", *lines, "", f"{megabytes}. Chunks measured: {sum(through.late.values()):,}."])


def _late_row(percent: int, straight: Reading, through: Reading, goal_ms: float | None) -> tuple[str, ...]:
    title = "a chunk was late at most" if percent == 100 else f"a chunk was late, p{percent}"
    found = through.late_ms(percent)
    goal = "" if goal_ms is None else f"{goal_ms:g} ms"
    reached = goal_ms is None or found <= goal_ms
    return title, f"{straight.late_ms(percent):.1f} ms", f"{found:.1f} ms", goal, reached  # type: ignore[return-value]


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"\nTook {time.monotonic() - started:.0f} s.")
