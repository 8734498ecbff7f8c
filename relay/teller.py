"""The teller: group commit for the holds, renewals and settlements of concurrent requests.

Requests put orders into a queue and await their outcomes. While one set of orders is written, the next one gathers: a
single request waits for no other, and many concurrent ones share one commit.

On PostgreSQL, sets go over an asynchronous connection of the event loop, because a thread would wait for the GIL, which
a busy event loop releases only every few milliseconds. SQLite, and orders written one by one, use one worker thread.
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
from quotas.sets import NOT_WRITTEN, ChargeSet, Order, WalletHints, write_one, write_set
from relay.renewals import Renewals

T = TypeVar("T")
log = structlog.get_logger(__name__)

MAX_SET_ORDERS = 200
# While the database is unavailable, settlements and other owed orders are retried for this long.
MAX_RETRY_S = 60.0
RETRY_INTERVAL_S = 0.25
# The connection is closed and the set retried if the database has not answered by then.
SET_TIMEOUT_S = 20.0

# Raised when a connection pooler sends a prepared statement to a session that has not prepared it. Nothing was written.
PREPARED_STATEMENT_ERRORS = (InvalidSqlStatementName, DuplicatePreparedStatement)
DATABASE_ERRORS = (DatabaseError, InterfaceError, psycopg.Error, OSError)


class CallOrder(Order[T], frozen=True):
    """Calls a function in a transaction of its own, outside of any set. For rare orders, such as opening a task."""

    do: Callable[[], T]


@dataclass(slots=True)
class _Pending:
    order: Order[Any]
    future: asyncio.Future[Any]
    queued_at: float


class Teller:
    """Writes orders in sets. `start` it in the callers' event loop; `close` first writes what is queued or retried."""

    def __init__(self) -> None:
        self.renewals = Renewals()
        self._queue: deque[_Pending] = deque()
        self._has_work = asyncio.Event()
        self._is_closing = False
        # Number of owed orders that wait to be queued again after a database error.
        self._retrying = 0
        self._loop: asyncio.AbstractEventLoop
        self._writer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="teller")
        self._connection: psycopg.AsyncConnection[Any] | None = None
        # Set to False once a connection pooler turns out not to support them. Parsing and planning the call each time
        # takes a tenth of a single request's time.
        self._uses_prepared_statements = True
        self._wallets: WalletHints = {}

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._writer = self._loop.create_task(self._run())

    async def close(self) -> None:
        self._is_closing = True
        self._has_work.set()
        if self._writer is not None:
            await self._writer
        await self._disconnect()
        await self._in_thread(_close_thread_connection)
        self._thread.shutdown()

    async def ask(self, order: Order[T]) -> T:
        """Queue the order and return its outcome once it is committed. Cancelling the caller does not cancel the order.

        Raises the QuotaError that refused it, or DatabaseError if nothing was written.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._enqueue(_Pending(order, future, time.monotonic()))
        return await future

    def _enqueue(self, pending: _Pending) -> None:
        self._queue.append(pending)
        self._has_work.set()

    def _enqueue_again(self, pending: _Pending) -> None:
        self._retrying -= 1
        self._enqueue(pending)

    async def _run(self) -> None:
        while self._queue or self._retrying or not self._is_closing:
            if not self._queue:
                self._has_work.clear()
                await self._has_work.wait()
            gathered = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_SET_ORDERS))]
            await self._serve(gathered)

    async def _serve(self, pending: list[_Pending]) -> None:
        orders = [one for one in pending if not isinstance(one.order, CallOrder)]
        if orders:
            for one, outcome in zip(orders, await self._write(orders), strict=True):
                _resolve(one, await self._write_alone(one) if outcome is NOT_WRITTEN else outcome)
        if len(orders) < len(pending):
            for call in pending:
                if isinstance(call.order, CallOrder):
                    _resolve(call, await self._write_alone(call))

    async def _write(self, pending: list[_Pending]) -> list[Any]:
        orders = [one.order for one in pending]
        try:
            if connection.vendor == "postgresql":
                return await self._call(ChargeSet(orders, self._wallets))
            written: list[Any] = await self._in_thread(write_set, orders)
            return written
        except (*DATABASE_ERRORS, TimeoutError) as error:
            is_lost = self._connection is None or self._connection.broken or isinstance(error, TimeoutError)
            await self._disconnect()
            # After a lost connection the whole set is retried. Otherwise a single order may have made it fail, so the
            # orders are written one by one.
            if len(pending) == 1 or (is_lost and connection.vendor == "postgresql"):
                return [self._retry_later(one, error) for one in pending]
            return [NOT_WRITTEN] * len(pending)
        except Exception as bug:
            log.exception("set_failed")
            return [bug] if len(pending) == 1 else [NOT_WRITTEN] * len(pending)

    async def _call(self, gathered: ChargeSet) -> list[Any]:
        async with asyncio.timeout(SET_TIMEOUT_S):
            try:
                return gathered.outcomes(await self._fetch(gathered))
            except PREPARED_STATEMENT_ERRORS:
                log.warning("statements_not_prepared")
                self._uses_prepared_statements = False
                await self._disconnect()
                return gathered.outcomes(await self._fetch(gathered))

    async def _fetch(self, gathered: ChargeSet) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = await _connect()
        cursor = await self._connection.execute(
            ChargeSet.STATEMENT, gathered.values, prepare=self._uses_prepared_statements
        )
        return await cursor.fetchall()

    async def _write_alone(self, pending: _Pending) -> Any:
        order = pending.order
        try:
            if isinstance(order, CallOrder):
                return await self._in_thread(_call_in_transaction, order.do)
            return await self._in_thread(write_one, order)
        except DATABASE_ERRORS as error:
            return self._retry_later(pending, error)
        except Exception as bug:
            log.exception("order_failed")
            return bug

    async def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        return await self._loop.run_in_executor(self._thread, _in_database, work, *args)

    def _retry_later(self, pending: _Pending, error: BaseException) -> Any:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        if not pending.order.is_owed or time.monotonic() - pending.queued_at > MAX_RETRY_S:
            log.error("order_failed", error=message, owed=pending.order.is_owed)
            return error if isinstance(error, DatabaseError) else DatabaseError(message)
        log.warning("database_away", error=message)
        self._retrying += 1
        self._loop.call_later(RETRY_INTERVAL_S, self._enqueue_again, pending)
        return _WILL_RETRY

    async def _disconnect(self) -> None:
        if self._connection is not None:
            lost, self._connection = self._connection, None
            await lost.close()


_WILL_RETRY = object()


def _resolve(pending: _Pending, outcome: Any) -> None:
    if outcome is _WILL_RETRY or pending.future.done():
        return
    if isinstance(outcome, Exception):
        pending.future.set_exception(outcome)
    else:
        pending.future.set_result(outcome)


async def _connect() -> psycopg.AsyncConnection[Any]:
    # With autocommit, each statement is a transaction of its own.
    wanted = connection.get_connection_params()
    known = {name: wanted[name] for name in wanted if name not in ("cursor_factory", "context", "prepare_threshold")}
    return await psycopg.AsyncConnection.connect(**known, autocommit=True)


def _in_database(work: Callable[..., T], *args: Any) -> T:
    try:
        return work(*args)
    except DATABASE_ERRORS:
        connection.close()
        raise


def _close_thread_connection() -> None:
    # Django's `connection` is thread-local, so this is the calling thread's.
    connection.close()


def _call_in_transaction(call: Callable[[], T]) -> T | QuotaError:
    try:
        with transaction.atomic():
            return call()
    except QuotaError as refusal:
        return refusal
