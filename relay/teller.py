"""The teller: one thread that writes what many requests want, a set at a time, and answers when it is durable.

Requests put orders (hold, renew, settle) into a queue and await. While one set is being written the next gathers, so a
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
from typing import Any, TypeVar

import structlog
from django.db import DatabaseError, InterfaceError, connection, transaction

from quotas.errors import QuotaError
from quotas.sets import Order, write_one, write_set

T = TypeVar("T")
log = structlog.get_logger(__name__)

SET_MOST = 200
# A settlement is owed: it is tried again while the database is away, as long as this.
PATIENCE_S = 60.0
PAUSE_S = 0.25

DATABASE_AWAY = (DatabaseError, InterfaceError)


@dataclass(frozen=True)
class Deed(Order[T]):
    """Something rare that is no part of a set: done by itself, in a transaction of its own."""

    do: Callable[[], T]
    is_owed: bool = False


@dataclass
class _Asked:
    order: Order[Any]
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

    async def ask(self, order: Order[T]) -> T:
        """The order's outcome once it is committed.

        Raises the QuotaError that refused it, or DatabaseError when nothing was written.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Asked(order, loop, answer, time.monotonic()))
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
        deeds = [one for one in asked if isinstance(one.order, Deed)]
        orders = [one for one in asked if not isinstance(one.order, Deed)]
        if orders:
            _answer(orders, self._write(orders))
        for deed in deeds:
            _answer([deed], [self._alone(deed)])

    def _write(self, asked: list[_Asked]) -> list[Any]:
        try:
            return write_set([one.order for one in asked])
        except DATABASE_AWAY as error:
            connection.close()
            if len(asked) == 1:
                return [self._later(asked[0], error)]
            return [self._alone(one) for one in asked]
        except Exception as bug:
            log.exception("set_failed")
            return [bug] * len(asked)

    def _alone(self, asked: _Asked) -> Any:
        """A deed, or one order of a set that failed as a whole, by itself."""
        try:
            return _do(asked.order.do) if isinstance(asked.order, Deed) else write_one(asked.order)
        except DATABASE_AWAY as error:
            connection.close()
            return self._later(asked, error)
        except Exception as bug:
            log.exception("order_failed")
            return bug

    def _later(self, asked: _Asked, error: Exception) -> Any:
        if not asked.order.is_owed or time.monotonic() - asked.since > PATIENCE_S:
            log.error("order_failed", error=str(error), owed=asked.order.is_owed)
            return error
        log.warning("database_away", error=str(error).splitlines()[0] if str(error) else type(error).__name__)
        threading.Timer(PAUSE_S, self._queue.put, [asked]).start()
        return _LATER


_LATER = object()


def _do(deed: Callable[[], T]) -> T | QuotaError:
    try:
        with transaction.atomic():
            return deed()
    except QuotaError as refusal:
        return refusal


def _answer(asked: list[_Asked], outcomes: list[Any]) -> None:
    """Wake each loop once for all of its requests."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = defaultdict(list)
    for one, outcome in zip(asked, outcomes, strict=True):
        if outcome is not _LATER:
            by_loop[one.loop].append((one.answer, outcome))
    for loop, answers in by_loop.items():
        loop.call_soon_threadsafe(_tell, answers)


def _tell(answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for answer, outcome in answers:
        if answer.done():
            continue
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)
