"""The usage log by months on PostgreSQL: its partitions, made ahead, so that old months can go as a whole.

A row's month is in its id. What belongs to no month that there is (a clock that is far off, a history that is told
afterwards) lands in the rest, the DEFAULT partition, where it is found like any other row, and moves when its month is
made. On SQLite the log is one table, and all of this does nothing.

Partitions change only under an ACCESS EXCLUSIVE lock of the partitioned table, taken before anything moves. Every
statement on the log locks that table while it is parsed, before it is planned, and keeps the lock until its transaction
ends: so none is planned for the old partitions and run after the move. (A lock of the rest alone does not do: a
statement that is planned, and then waits for the rest, sees the rows neither there nor in a partition that its plan
does not have.)
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self
from uuid import UUID

import structlog
from django.db import OperationalError, connection, transaction

from core import append_only, origin
from core.ids import id_at

log = structlog.get_logger(__name__)

TABLE = "usage_usagerecord"
REST = f"{TABLE}_rest"
MONTHS_AHEAD = 3
# Ours alone among a database's advisory locks: who makes or drops months.
LOCK = 0x6D6F6E746873
# Whoever charges waits behind us: rather try again than keep them.
LOCK_TIMEOUT = "2s"
# Rows that were copied in vain would be copied again: worth more than one try to lock the log.
MAX_LOCK_TRIES, LOCK_PAUSE_S = 3, 1.0
# The first instant of an id's month, as PostgreSQL reads it from the milliseconds in front.
_MONTH_OF_ID = (
    "date_trunc('month', to_timestamp(('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0), 'UTC')"
)


class Month(NamedTuple):
    """A calendar month of UTC."""

    year: int
    number: int

    @classmethod
    def of(cls, moment: datetime) -> Self:
        moment = moment.astimezone(UTC)
        return cls(moment.year, moment.month)

    def plus(self, months: int) -> Month:
        years, number = divmod(self.year * 12 + self.number - 1 + months, 12)
        return Month(years, number + 1)

    @property
    def start(self) -> datetime:
        return datetime(self.year, self.number, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """The first moment after it."""
        return self.plus(1).start

    @property
    def ids(self) -> tuple[UUID, UUID]:
        """The least id of the month and the least after it, as the logs' filters count them."""
        first, after = (UUID(int=id_at(moment).int >> 62 << 62) for moment in (self.start, self.end))
        return first, after

    @property
    def table(self) -> str:
        return f"{TABLE}_{self.year:04}_{self.number:02}"

    def __str__(self) -> str:
        return f"{self.year:04}-{self.number:02}"


def months_from(first: Month, last: Month) -> list[Month]:
    count = (last.year - first.year) * 12 + last.number - first.number + 1
    return [first.plus(number) for number in range(count)]


def make_ahead(now: datetime | None = None) -> list[Month]:
    """Make the months that rows will go to next, and those of rows that have none. Returns the new ones.

    Any number of workers may do so at once: one does, the others go on. Gives up, to be called again, when the log is
    too busy to be locked for a moment.
    """
    this = Month.of(now or origin.now())
    try:
        return make_months(months_from(this, this.plus(MONTHS_AHEAD)), wait=False)
    except OperationalError as error:
        log.warning("usage_months_not_made", error=str(error).strip())
        return []


@transaction.atomic
def make_months(wanted: Iterable[Month], *, wait: bool = True) -> list[Month]:
    """Make those of them that are missing, and the months of rows in the rest up to the last of them."""
    if connection.vendor != "postgresql":
        return []
    with connection.cursor() as cursor:
        if not take_lock(cursor, wait=wait):
            return []
        wanted = set(wanted)
        missing = sorted((wanted | _months_in_rest(cursor, max(wanted))) - set(months_made(cursor)))
        if missing:
            _add(cursor, missing)
    return missing


def take_lock(cursor: Any, *, wait: bool) -> bool:
    """Be the only one, until the transaction ends, who makes or drops months."""
    if wait:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    else:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK])
        if not cursor.fetchone()[0]:
            return False
    cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    return True


def months_made(cursor: Any) -> list[Month]:
    """The months that have a partition, the first first."""
    matches = (re.fullmatch(rf"{TABLE}_(\d{{4}})_(\d\d)", name) for name in append_only.partitions_of(cursor, TABLE))
    return sorted(Month(int(match[1]), int(match[2])) for match in matches if match)


def lock_month(cursor: Any, month: Month) -> None:
    """Whoever tells history into it waits, until the transaction ends; readers do not."""
    cursor.execute(f"LOCK TABLE {month.table} IN SHARE MODE")


def drop_month(cursor: Any, month: Month) -> None:
    """With all its rows. Locks the whole log, for the moment that is left of the transaction."""
    cursor.execute(f"DROP TABLE {month.table}")


def make_rest(cursor: Any) -> None:
    cursor.execute(f"CREATE TABLE {REST} PARTITION OF {TABLE} DEFAULT")


def _months_in_rest(cursor: Any, last: Month) -> set[Month]:
    """Not those of a clock that is years ahead."""
    cursor.execute(f"SELECT DISTINCT {_MONTH_OF_ID} FROM {REST} WHERE id < %s", [last.ids[1]])  # noqa: S608
    return {Month.of(start) for (start,) in cursor.fetchall()}


def make_month(cursor: Any, month: Month) -> None:
    """Of a log that nobody reads yet, nor has rows in the rest."""
    _create(cursor, month)
    _attach(cursor, month)


def _add(cursor: Any, months: Sequence[Month]) -> None:
    """Make these months and move the rows of theirs out of the rest.

    Rows are copied while everybody reads and charges; rows never change, so a copy stays right. Under the lock only
    what came meanwhile is copied, and the rest is replaced by one without the rows that moved. The log stays locked for
    some seconds for each million of them, which is what it takes to look for late ones.
    """
    for month in months:
        _create(cursor, month)
    is_moving = _copy(cursor, months) > 0
    _lock_log(cursor, tries=MAX_LOCK_TRIES if is_moving else 1)
    is_moving |= _copy(cursor, months) > 0
    if is_moving:
        _detach_rest(cursor, months)
    for month in months:
        _attach(cursor, month)
    if is_moving:
        cursor.execute(f"ALTER TABLE {TABLE} ATTACH PARTITION {REST} DEFAULT")
        append_only.guard_partition(cursor, REST)


def _create(cursor: Any, month: Month) -> None:
    cursor.execute(f"CREATE TABLE {month.table} (LIKE {TABLE} INCLUDING ALL)")
    # The CHECK spares ATTACH a scan of the month under the lock.
    first, after = month.ids
    cursor.execute(f"ALTER TABLE {month.table} ADD CONSTRAINT bounds CHECK (id >= '{first}' AND id < '{after}')")


def _attach(cursor: Any, month: Month) -> None:
    first, after = month.ids
    cursor.execute(f"ALTER TABLE {TABLE} ATTACH PARTITION {month.table} FOR VALUES FROM ('{first}') TO ('{after}')")
    cursor.execute(f"ALTER TABLE {month.table} DROP CONSTRAINT bounds")
    append_only.guard_partition(cursor, month.table)


def _copy(cursor: Any, months: Sequence[Month]) -> int:
    """Copy what the rest has of these months and they have not; returns how many rows."""
    copied = 0
    for month in months:
        cursor.execute(
            f"INSERT INTO {month.table} SELECT * FROM {REST} WHERE id >= %s AND id < %s "  # noqa: S608
            f"AND NOT EXISTS (SELECT FROM {month.table} AS copy WHERE copy.id = {REST}.id)",
            month.ids,
        )
        if cursor.rowcount:
            copied += cursor.rowcount
            cursor.execute(f"ANALYZE {month.table}")
    return copied


def _lock_log(cursor: Any, *, tries: int) -> None:
    """Wait until no statement is under way that was planned for the partitions as they are; keep out later ones."""
    for left in reversed(range(tries)):
        try:
            with transaction.atomic():
                cursor.execute(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
            return
        except OperationalError:
            if not left:
                raise
        time.sleep(LOCK_PAUSE_S)


def _detach_rest(cursor: Any, months: Sequence[Month]) -> None:
    """Replace the rest by a table, not yet attached, of what belongs to none of these months.

    Deleting what moved would keep the log locked for a time that grows with the rows.
    """
    moved = " OR ".join("id >= '{}' AND id < '{}'".format(*month.ids) for month in months)
    cursor.execute(f"CREATE TABLE {REST}_next (LIKE {TABLE} INCLUDING ALL)")
    cursor.execute(f"INSERT INTO {REST}_next SELECT * FROM {REST} WHERE NOT ({moved})")  # noqa: S608
    cursor.execute(f"ALTER TABLE {TABLE} DETACH PARTITION {REST}")
    cursor.execute(f"DROP TABLE {REST}")
    cursor.execute(f"ALTER TABLE {REST}_next RENAME TO {REST}")
