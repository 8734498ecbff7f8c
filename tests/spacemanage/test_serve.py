"""The supervisor kills workers that do not end, and logs it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest
import requests

from tests.postgres import free_port
from tests.relay.conftest import Process, wait_for


@contextmanager
def stubborn(*, settling_timeout_s: int = 1, is_stubborn: bool = True) -> Iterator[tuple[str, Process]]:
    """A server of two workers, which ignore SIGTERM if `is_stubborn`."""
    port = free_port()
    env = {"SETTLING_TIMEOUT_S": str(settling_timeout_s), "IS_STUBBORN": "yes" if is_stubborn else ""}
    process = Process(sys.executable, "-m", "tests.stubborn", str(port), env=env)
    try:
        yield f"http://127.0.0.1:{port}/", process
    finally:
        process.kill()


def _answering(url: str, number: int) -> set[int]:
    """Wait until this many workers have answered, and return their process ids."""
    found: set[int] = set()

    def are_all() -> bool:
        found.add(int(requests.get(url, timeout=5).text))
        return len(found) == number

    wait_for(are_all)
    return found


def _is_listening(pid: int) -> bool:
    return any(connection.status == psutil.CONN_LISTEN for connection in psutil.Process(pid).net_connections())


def test_a_worker_that_ignores_sigterm_is_killed_and_logged(capfd: pytest.CaptureFixture[str]) -> None:
    # A fixture would start the server before capfd captures what its processes write.
    with stubborn() as (url, process):
        old = _answering(url, 2)
        process.signal(signal.SIGHUP)
        wait_for(lambda: len(process.workers()) == 2 and not old & set(process.workers()))
        new = _answering(url, 2)
        process.signal(signal.SIGTTOU)
        wait_for(lambda: len(process.workers()) == 1)
        process.signal(signal.SIGTERM)

        assert process.has_ended_within(30)
    logged = capfd.readouterr().err
    assert [logged.count(f"worker_killed pid={pid}") for pid in (*old, *new)] == [1] * 4


def test_a_new_worker_that_dies_is_replaced_while_an_old_one_ends() -> None:
    with stubborn(settling_timeout_s=600) as (url, process):
        old = _answering(url, 2)
        process.signal(signal.SIGHUP)
        wait_for(lambda: _answering(url, 2).isdisjoint(old))
        # A new worker may answer before the supervisor has seen that it is ready. Only then does it retire the old one.
        wait_for(lambda: not any(map(_is_listening, old)))
        killed = max(set(process.workers()) - old)
        os.kill(killed, signal.SIGKILL)

        wait_for(lambda: len(set(process.workers()) - old - {killed}) == 2)
        assert old < set(process.workers())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_gets_a_signal_while_a_new_worker_starts_ends(number: int) -> None:
    with stubborn() as (url, process):
        _answering(url, 2)
        process.signal(signal.SIGHUP)
        process.signal(number)

        assert process.has_ended_within(30)


def test_workers_end_when_their_supervisor_has_died() -> None:
    with stubborn(is_stubborn=False) as (url, process):
        workers = _answering(url, 2)
        process.signal(signal.SIGKILL)

        wait_for(lambda: not any(map(psutil.pid_exists, workers)))
