"""The worker: periodic background work.

It sweeps the holds of dead processes, polls the tasks that are due, makes the usage log's partitions ahead of time,
closes quarters that are over, and forgets ids of stored content.

Any number of workers may run at the same time. The server runs one beside the relay; `manage.py worker` runs one alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import structlog

from quotas.charging import expire_holds
from relay.stored import prune
from relay.tasks import claim_due, due_tasks, in_database, refresh
from relay.teller import DATABASE_ERRORS
from relay.upstreams import Upstreams
from usage.partitions import make_ahead
from usage.quarters import close_quarters

log = structlog.get_logger(__name__)

SWEEP_INTERVAL_S = 5.0
POLL_INTERVAL_S = 1.0
MAKE_MONTHS_INTERVAL_S = 3600.0
CLOSE_INTERVAL_S = 60.0
PRUNE_INTERVAL_S = 3600.0
MAX_CONCURRENT_POLLS = 32
MAX_TASKS_PER_POLL = 128


class Worker:
    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._poll_slots = asyncio.Semaphore(MAX_CONCURRENT_POLLS)

    async def run(self) -> None:
        # Another worker repeats a poll that the cancellation of this one interrupts.
        await asyncio.gather(
            _repeat(self.sweep, SWEEP_INTERVAL_S),
            _repeat(self.poll, POLL_INTERVAL_S),
            _repeat(self.make_months, MAKE_MONTHS_INTERVAL_S),
            _repeat(self.close, CLOSE_INTERVAL_S),
            _repeat(self.prune, PRUNE_INTERVAL_S),
        )

    async def sweep(self) -> None:
        await in_database(expire_holds)

    async def make_months(self) -> None:
        await in_database(make_ahead)

    async def close(self) -> None:
        await in_database(close_quarters)

    async def prune(self) -> None:
        await in_database(prune)

    async def poll(self) -> None:
        """Poll the tasks that are due now, concurrently. The failure of one does not affect the others."""
        due = await in_database(lambda: due_tasks(limit=MAX_TASKS_PER_POLL))
        outcomes = await asyncio.gather(*(self._poll_one(*one) for one in due), return_exceptions=True)
        for (_space_id, task_id), outcome in zip(due, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                log.error("task_not_polled", task=str(task_id), exc_info=outcome)

    async def _poll_one(self, space_id: int, task_id: UUID) -> None:
        async with self._poll_slots:
            if claim := await in_database(claim_due, space_id, task_id):
                await refresh(claim, self._upstreams)


async def _repeat(job: Callable[[], Awaitable[None]], pause_s: float) -> None:
    while True:
        try:
            await job()
        except DATABASE_ERRORS as error:
            log.warning("database_away", error=type(error).__name__)
        except Exception:
            log.exception("worker_failed")
        await asyncio.sleep(pause_s)
