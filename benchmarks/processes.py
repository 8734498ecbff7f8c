"""Programs that a benchmark starts: with a log of their own, an end that is sure, and the CPU time they took."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types
import requests

from tests import postgres

ROOT = Path(__file__).parent.parent
LOGS = ROOT / "var" / "benchmarks"
STOP_TIMEOUT_S = 15


def unwind_when_told_to_end() -> None:
    """SIGTERM, a `timeout`'s for one, ends everything that was started, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, postgres.leave)


@contextmanager
def running(name: str, *command: str | Path, env: Mapping[str, str | None] | None = None) -> Iterator[int]:
    """Start a program and give its pid; at the end it and all that it started are gone. Its words are in LOGS.

    `env` goes before our own environment; None takes a variable out of it.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    variables = {name: value for name, value in {**os.environ, **(env or {})}.items() if value is not None}
    with open(LOGS / f"{name}.log", "wb") as log:
        # A group of its own: a server's workers outlive the one that started them when that is killed.
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log, stderr=log, start_new_session=True)
        try:
            yield process.pid
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask, then insist: nothing of its group is left."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(what: str, ask: Callable[[], bool], *, seconds: float = 180.0) -> None:
    """Until it is so; ends the program, naming the log, when it takes too long."""
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        with suppress(requests.RequestException):
            if ask():
                return
        time.sleep(0.1)
    raise SystemExit(f"{what} did not come up within {seconds:.0f} s; what it said is in {LOGS.relative_to(ROOT)}/")


def wait_until_answering(name: str, url: str) -> None:
    """Until the address answers at all, whatever it answers."""
    wait_for(name, lambda: bool(requests.get(url, timeout=5).status_code))


def cpu_seconds(*pids: int) -> float:
    """CPU time that the programs and all that they started have taken so far."""
    return sum(_taken(process) for pid in pids for process in _family(pid))


def _family(pid: int) -> list[psutil.Process]:
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def _taken(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        # Of children that have ended, their parent keeps the account.
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0
