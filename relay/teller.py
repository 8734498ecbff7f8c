"""The teller: one thread that writes what many requests want, a set at a time, and answers when it is durable.

Requests put deeds (hold, renew, settle) into a queue and await. While one set is being written the next gathers, so a
lone request waits for nobody and a crowd shares one commit (group commit).
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

import structlog
from django.db import DatabaseError, InterfaceError, connection, transaction

from quotas.errors import QuotaError
from quotas.services import lock

T = TypeVar("T")
log = structlog.get_logger(__name__)

SET_MOST = 200
# A settlement is owed: it is tried again while the database is away, as long as this.
PATIENCE_S = 60.0
PAUSE_S = 0.25

DATABASE_AWAY = (DatabaseError, InterfaceError)


@dataclass(frozen=True)
class Deed(Generic[T]):
    """Something to do in the set's transaction. `wallets` (by space) are locked before any deed of the set runs."""

    do: Callable[[], T]
    wallets: Callable[[], list[tuple[int, UUID]]]
    # Owed deeds wait for a database that is away; the others are refused at once.
    is_owed: bool = False


@dataclass
class _Asked:
    deed: Deed[Any]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]
    since: float


class Teller:
    """Start it in the process that asks; `close` writes what is still queued and ends the thread."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="teller", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(timeout=PATIENCE_S)

    async def ask(self, deed: Deed[T]) -> T:
        """The deed's result once it is committed. Raises its QuotaError, or DatabaseError when nothing was written."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Asked(deed, loop, answer, time.monotonic()))
        return await answer

    def _run(self) -> None:
        closing = False
        while not closing:
            gathered = [self._queue.get()]
            while len(gathered) < SET_MOST and not self._queue.empty():
                gathered.append(self._queue.get())
            closing = None in gathered
            self._serve([asked for asked in gathered if asked is not None])
        connection.close()

    def _serve(self, asked: list[_Asked]) -> None:
        if not asked:
            return
        try:
            outcomes = write_set([one.deed for one in asked])
        except DATABASE_AWAY as error:
            connection.close()
            outcomes = [self._alone(one) for one in asked] if len(asked) > 1 else [self._later(asked[0], error)]
        except Exception as bug:
            log.exception("set_failed")
            outcomes = [bug] * len(asked)
        for one, outcome in zip(asked, outcomes, strict=True):
            if outcome is not _LATER:
                _answer(one, outcome)

    def _alone(self, asked: _Asked) -> Any:
        """One deed of a set that failed as a whole, by itself."""
        try:
            return write_set([asked.deed])[0]
        except DATABASE_AWAY as error:
            connection.close()
            return self._later(asked, error)

    def _later(self, asked: _Asked, error: Exception) -> Any:
        if not asked.deed.is_owed or time.monotonic() - asked.since > PATIENCE_S:
            log.error("deed_failed", error=str(error), owed=asked.deed.is_owed)
            return error
        log.warning("database_away", error=str(error).splitlines()[0] if str(error) else type(error).__name__)
        threading.Timer(PAUSE_S, self._queue.put, [asked]).start()
        return _LATER


_LATER = object()


@transaction.atomic
def write_set(deeds: list[Deed[Any]]) -> list[Any]:
    """Do all deeds in one transaction: results, or the QuotaError of those that were refused (and wrote nothing)."""
    by_space: dict[int, set[UUID]] = defaultdict(set)
    for deed in deeds:
        for space_id, wallet_id in deed.wallets():
            by_space[space_id].add(wallet_id)
    # In one order for every teller, so that two of them never wait for each other.
    for space_id in sorted(by_space):
        lock(space_id, *by_space[space_id])
    return [_outcome(deed) for deed in deeds]


def _outcome(deed: Deed[Any]) -> Any:
    try:
        with transaction.atomic():
            return deed.do()
    except QuotaError as refusal:
        return refusal


def _answer(asked: _Asked, outcome: Any) -> None:
    def tell() -> None:
        if asked.answer.done():
            return
        if isinstance(outcome, Exception):
            asked.answer.set_exception(outcome)
        else:
            asked.answer.set_result(outcome)

    asked.loop.call_soon_threadsafe(tell)
