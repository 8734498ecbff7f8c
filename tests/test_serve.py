"""The supervisor: a worker that will not end is ended, and told of."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from tests.postgres import free_port
from tests.relay.conftest import Process, wait_for


@contextmanager
def stubborn() -> Iterator[tuple[str, Process]]:
    port = free_port()
    process = Process(sys.executable, "-m", "tests.stubborn", str(port), env={})
    try:
        yield f"http://127.0.0.1:{port}/", process
    finally:
        process.kill()


def _answering(url: str, number: int) -> set[int]:
    """The process ids of so many workers, each of which has answered."""
    found: set[int] = set()

    def are_all() -> bool:
        found.add(int(requests.get(url, timeout=5).text))
        return len(found) == number

    wait_for(are_all)
    return found


def test_a_worker_that_will_not_end_is_ended(capfd: pytest.CaptureFixture[str]) -> None:
    # Not by a fixture: what is written by whom it starts would not be captured.
    with stubborn() as (url, process):
        old = _answering(url, 2)
        process.signal(signal.SIGHUP)
        wait_for(lambda: len(process.workers()) == 2 and not old & set(process.workers()))
        new = _answering(url, 2)
        process.signal(signal.SIGTERM)

        assert process.has_ended_within(30)
    told = capfd.readouterr().err
    assert [f"worker_killed pid={pid}" in told for pid in (*old, *new)] == [True] * 4
