"""The teller: writes what many requests want, a set at a time, and answers when it is durable.

Requests put orders (hold, renew, settle) into a queue and await. While one set is being written the next gathers, so a
lone request waits for nobody and a crowd shares one commit (group commit).

On PostgreSQL the sets go over a connection of the event loop's own: a thread would wait for the interpreter's lock, of
which a busy loop lets go every few milliseconds only. SQLite, and what is done one by one, has one thread.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
import structlog
from django.db import DatabaseError, InterfaceError, connection, transaction
from psycopg.errors import DuplicatePreparedStatement, InvalidSqlStatementName

from core.errors import QuotaError
from quotas.sets import LEFT, Order, Set, WalletHints, write_one, write_set
from relay.renewals import Renewals

T = TypeVar("T")
log = structlog.get_logger(__name__)

SET_MOST = 200
# A settlement is owed: it is tried again while the database is away, as long as this.
PATIENCE_S = 60.0
PAUSE_S = 0.25
# A database that does not answer a set within so long is taken for lost.
SET_TIMEOUT_S = 20.0

# What says that a pooler gave the statement to another session than the one that prepared it: nothing was done.
NOT_PREPARED = (InvalidSqlStatementName, DuplicatePreparedStatement)
DATABASE_AWAY = (DatabaseError, InterfaceError, psycopg.Error, OSError)


class Deed(Order[T], frozen=True):
    """Something rare that is no part of a set: done by itself, in a transaction of its own."""

    do: Callable[[], T]


@dataclass(slots=True)
class _Asked:
    order: Order[Any]
    answer: asyncio.Future[Any]
    since: float


class Teller:
    """Start it in the loop that asks; `close` writes what is still queued, and what waits for the database."""

    def __init__(self) -> None:
        self.renewals = Renewals()
        self._queue: deque[_Asked] = deque()
        self._is_waiting = asyncio.Event()
        self._is_closing = False
        # Owed, and waiting for the database.
        self._put_off = 0
        self._loop: asyncio.AbstractEventLoop
        self._working: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="teller")
        self._connection: psycopg.AsyncConnection[Any] | None = None
        # Until a pooler shows that it cannot: to read and plan the call anew costs a lone request a tenth of it all.
        self._prepares = True
        self._wallets: WalletHints = {}

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._working = self._loop.create_task(self._run())

    async def close(self) -> None:
        self._is_closing = True
        self._is_waiting.set()
        if self._working is not None:
            await self._working
        await self._hang_up()
        await self._in_thread(_hang_up)
        self._thread.shutdown()

    async def ask(self, order: Order[T]) -> T:
        """The order's outcome once it is committed. Who is cancelled meanwhile loses the answer, not the order.

        Raises the QuotaError that refused it, or DatabaseError when nothing was written.
        """
        answer: asyncio.Future[T] = self._loop.create_future()
        self._put(_Asked(order, answer, time.monotonic()))
        return await answer

    def _put(self, asked: _Asked) -> None:
        self._queue.append(asked)
        self._is_waiting.set()

    def _put_again(self, asked: _Asked) -> None:
        self._put_off -= 1
        self._put(asked)

    async def _run(self) -> None:
        while self._queue or self._put_off or not self._is_closing:
            if not self._queue:
                self._is_waiting.clear()
                await self._is_waiting.wait()
            gathered = [self._queue.popleft() for _ in range(min(len(self._queue), SET_MOST))]
            await self._serve(gathered)

    async def _serve(self, asked: list[_Asked]) -> None:
        orders = [one for one in asked if not isinstance(one.order, Deed)]
        if orders:
            for one, outcome in zip(orders, await self._write(orders), strict=True):
                _tell(one, await self._alone(one) if outcome is LEFT else outcome)
        if len(orders) < len(asked):
            for deed in asked:
                if isinstance(deed.order, Deed):
                    _tell(deed, await self._alone(deed))

    async def _write(self, asked: list[_Asked]) -> list[Any]:
        """The outcomes of a set; LEFT for what is to be tried by itself."""
        orders = [one.order for one in asked]
        try:
            if connection.vendor == "postgresql":
                return await self._call(Set(orders, self._wallets))
            written: list[Any] = await self._in_thread(write_set, orders)
            return written
        except (*DATABASE_AWAY, TimeoutError) as error:
            is_lost = self._connection is None or self._connection.broken or isinstance(error, TimeoutError)
            await self._hang_up()
            if len(asked) == 1 or (is_lost and connection.vendor == "postgresql"):
                return [self._later(one, error) for one in asked]
            return [LEFT] * len(asked)
        except Exception as bug:
            log.exception("set_failed")
            return [bug] if len(asked) == 1 else [LEFT] * len(asked)

    async def _call(self, gathered: Set) -> list[Any]:
        async with asyncio.timeout(SET_TIMEOUT_S):
            try:
                return gathered.outcomes(await self._fetch(gathered))
            except NOT_PREPARED:
                log.warning("statements_not_prepared")
                self._prepares = False
                await self._hang_up()
                return gathered.outcomes(await self._fetch(gathered))

    async def _fetch(self, gathered: Set) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = await _connect()
        cursor = await self._connection.execute(Set.STATEMENT, gathered.values, prepare=self._prepares)
        return await cursor.fetchall()

    async def _alone(self, asked: _Asked) -> Any:
        """A deed, what a set left, or one order of a set that failed as a whole, by itself."""
        order = asked.order
        try:
            if isinstance(order, Deed):
                return await self._in_thread(_do, order.do)
            return await self._in_thread(write_one, order)
        except DATABASE_AWAY as error:
            return self._later(asked, error)
        except Exception as bug:
            log.exception("order_failed")
            return bug

    async def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        return await self._loop.run_in_executor(self._thread, _in_database, work, *args)

    def _later(self, asked: _Asked, error: BaseException) -> Any:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        if not asked.order.is_owed or time.monotonic() - asked.since > PATIENCE_S:
            log.error("order_failed", error=words, owed=asked.order.is_owed)
            return error if isinstance(error, DatabaseError) else DatabaseError(words)
        log.warning("database_away", error=words)
        self._put_off += 1
        self._loop.call_later(PAUSE_S, self._put_again, asked)
        return _LATER

    async def _hang_up(self) -> None:
        if self._connection is not None:
            lost, self._connection = self._connection, None
            await lost.close()


_LATER = object()


def _tell(asked: _Asked, outcome: Any) -> None:
    if outcome is _LATER or asked.answer.done():
        return
    if isinstance(outcome, Exception):
        asked.answer.set_exception(outcome)
    else:
        asked.answer.set_result(outcome)


async def _connect() -> psycopg.AsyncConnection[Any]:
    """A connection as Django's own, of the loop's: each statement is a transaction."""
    wanted = connection.get_connection_params()
    known = {name: wanted[name] for name in wanted if name not in ("cursor_factory", "context", "prepare_threshold")}
    return await psycopg.AsyncConnection.connect(**known, autocommit=True)


def _in_database(work: Callable[..., T], *args: Any) -> T:
    try:
        return work(*args)
    except DATABASE_AWAY:
        connection.close()
        raise


def _hang_up() -> None:
    """By this name each thread finds the connection of its own."""
    connection.close()


def _do(deed: Callable[[], T]) -> T | QuotaError:
    try:
        with transaction.atomic():
            return deed()
    except QuotaError as refusal:
        return refusal
