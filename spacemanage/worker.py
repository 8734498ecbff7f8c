"""The worker: sweeps what dead processes left behind, polls the tasks that are due, and keeps the log in order.

It makes the log's months ahead and closes the quarters of an hour that are over.

Any number of them may run, in any process: the served one runs it beside the relay, `manage.py worker` by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import structlog

from quotas.charging import expire_holds
from relay.tasks import claim_due, due_tasks, in_database, refresh
from relay.teller import DATABASE_AWAY
from relay.upstreams import Upstreams
from usage.partitions import make_ahead
from usage.quarters import close_quarters

log = structlog.get_logger(__name__)

SWEEP_EVERY_S = 5.0
POLL_EVERY_S = 1.0
MONTHS_EVERY_S = 3600.0
POLLS_AT_ONCE = 32
POLLS_MOST = 128
CLOSE_EVERY_S = 60.0


class Worker:
    """Asks upstreams with the client sessions that it is given."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._places = asyncio.Semaphore(POLLS_AT_ONCE)

    async def run(self) -> None:
        """Until cancelled; a poll cut off by that is repeated by whoever comes next."""
        await asyncio.gather(
            _forever(self.sweep, SWEEP_EVERY_S),
            _forever(self.poll, POLL_EVERY_S),
            _forever(self.make_months, MONTHS_EVERY_S),
            _forever(self.close, CLOSE_EVERY_S),
        )

    async def sweep(self) -> None:
        await in_database(expire_holds)

    async def make_months(self) -> None:
        await in_database(make_ahead)

    async def close(self) -> None:
        await in_database(close_quarters)

    async def poll(self) -> None:
        """Every task that is due now, several at once. One that goes wrong does not keep the others."""
        due = await in_database(lambda: due_tasks(most=POLLS_MOST))
        outcomes = await asyncio.gather(*(self._poll_one(*one) for one in due), return_exceptions=True)
        for (_space_id, task_id), outcome in zip(due, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                log.error("task_not_polled", task=str(task_id), exc_info=outcome)

    async def _poll_one(self, space_id: int, task_id: UUID) -> None:
        async with self._places:
            if claim := await in_database(claim_due, space_id, task_id):
                await refresh(claim, self._upstreams)


async def _forever(deed: Callable[[], Awaitable[None]], pause_s: float) -> None:
    while True:
        try:
            await deed()
        except DATABASE_AWAY as error:
            log.warning("database_away", error=type(error).__name__)
        except Exception:
            log.exception("worker_failed")
        await asyncio.sleep(pause_s)
