"""Child processes of a benchmark: start and log them, end them reliably, and measure their CPU time."""

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


def unwind_on_sigterm() -> None:
    """Make SIGTERM, such as from `timeout`, raise SystemExit, so that all child processes are ended as by Ctrl-C."""
    signal.signal(signal.SIGTERM, postgres.leave)


@contextmanager
def running(name: str, *command: str | Path, env: Mapping[str, str | None] | None = None) -> Iterator[int]:
    """Run a program, log its output to LOGS, and yield its pid. At the end it and its child processes are killed.

    `env` overrides our own environment; None removes a variable.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    variables = {name: value for name, value in {**os.environ, **(env or {})}.items() if value is not None}
    with open(LOGS / f"{name}.log", "wb") as log:
        # A new session makes a process group, so that a server's workers can be killed even when the server has died.
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log, stderr=log, start_new_session=True)
        try:
            yield process.pid
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(what: str, ask: Callable[[], bool], *, seconds: float = 180.0) -> None:
    """Wait until `ask` returns True. Raise SystemExit, naming the logs, when it takes too long."""
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        with suppress(requests.RequestException):
            if ask():
                return
        time.sleep(0.1)
    raise SystemExit(f"{what} did not come up within {seconds:.0f} s; its log is in {LOGS.relative_to(ROOT)}/")


def wait_until_answering(name: str, url: str) -> None:
    wait_for(name, lambda: bool(requests.get(url, timeout=5).status_code))


def cpu_seconds(*pids: int) -> float:
    """CPU time so far of these processes and their descendants."""
    return sum(_taken(process) for pid in pids for process in _family(pid))


def _family(pid: int) -> list[psutil.Process]:
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def _taken(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        # The parent's children_… times include its children that have ended.
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0
