"""The monthly partitions of the usage log on PostgreSQL, made ahead of time so that an old month can be dropped whole.

The table is partitioned by range of its id, a UUIDv7 that begins with the row's time. A row whose month has no
partition (a clock that is far off, or history that is written later) goes to the DEFAULT partition. It is read there
like any other row, and moves when its month is made. On SQLite the log is one table and these functions do nothing.

Partitions change only under an ACCESS EXCLUSIVE lock on the partitioned table, taken before rows move. PostgreSQL locks
that table when it parses a statement, before it plans it, and keeps the lock until the transaction ends. So no
statement is planned with the old partitions and executed after the move. A lock on the DEFAULT partition alone is not
enough: a statement that was planned before the move and then waited for that lock would see the moved rows neither
there nor in the new partition, which its plan does not include.

A REPEATABLE READ transaction keeps the snapshot of its first query, so it locks the table (ACCESS SHARE) before that
query: quotas.statement_reader.snapshot does.
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
DEFAULT_PARTITION = f"{TABLE}_rest"
MONTHS_AHEAD = 3
# Key of the advisory lock that serialises making and dropping months.
ADVISORY_LOCK = 0x6D6F6E746873
# Charges queue behind a waiting ACCESS EXCLUSIVE lock, so give up soon and try again later.
LOCK_TIMEOUT = "2s"
# Giving up rolls back the copied rows, so try more than once where any were copied.
MAX_LOCK_TRIES, LOCK_PAUSE_S = 3, 1.0
# SQL: the start of a UUIDv7's month. Its first 48 bits are milliseconds since 1970.
_MONTH_OF_ID = (
    "date_trunc('month', to_timestamp(('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0), 'UTC')"
)


class Month(NamedTuple):
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
        return self.plus(1).start

    @property
    def ids(self) -> tuple[UUID, UUID]:
        # The smallest ids: the random bits are zero, as in usage.figures.first_id.
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
    """Make this month, the next MONTHS_AHEAD, and those of rows in the default partition. Returns the new ones.

    Safe to call from several workers at once: one takes the advisory lock, the others return []. Also returns [] when
    the log cannot be locked within LOCK_TIMEOUT; the worker calls again within the hour.
    """
    this = Month.of(now or origin.now())
    try:
        return make_months(months_from(this, this.plus(MONTHS_AHEAD)), wait=False)
    except OperationalError as error:
        log.warning("usage_months_not_made", error=str(error).strip())
        return []


@transaction.atomic
def make_months(wanted: Iterable[Month], *, wait: bool = True) -> list[Month]:
    """Make the wanted months that are missing, and those of rows in the default partition up to the last of them.

    Returns the new ones. Raises OperationalError when the log cannot be locked within LOCK_TIMEOUT.
    """
    if connection.vendor != "postgresql":
        return []
    with connection.cursor() as cursor:
        if not take_lock(cursor, wait=wait):
            return []
        wanted = set(wanted)
        missing = sorted((wanted | _months_in_default(cursor, max(wanted))) - set(existing_months(cursor)))
        if missing:
            _add_months(cursor, missing)
    return missing


def take_lock(cursor: Any, *, wait: bool) -> bool:
    """Take the advisory lock for making and dropping months, until the transaction ends.

    Returns False where another transaction holds it and `wait` is false. Sets LOCK_TIMEOUT for the locks that follow.
    """
    if wait:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [ADVISORY_LOCK])
    else:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [ADVISORY_LOCK])
        if not cursor.fetchone()[0]:
            return False
    cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    return True


def existing_months(cursor: Any) -> list[Month]:
    matches = (re.fullmatch(rf"{TABLE}_(\d{{4}})_(\d\d)", name) for name in append_only.partitions_of(cursor, TABLE))
    return sorted(Month(int(match[1]), int(match[2])) for match in matches if match)


def lock_month(cursor: Any, month: Month) -> None:
    """Block backdated inserts into this month until the transaction ends. Reads go on."""
    cursor.execute(f"LOCK TABLE {month.table} IN SHARE MODE")


def drop_month(cursor: Any, month: Month) -> None:
    """Drop a month with its rows. Holds an ACCESS EXCLUSIVE lock on the whole log until the transaction ends."""
    cursor.execute(f"DROP TABLE {month.table}")


def make_default_partition(cursor: Any) -> None:
    cursor.execute(f"CREATE TABLE {DEFAULT_PARTITION} PARTITION OF {TABLE} DEFAULT")


def _months_in_default(cursor: Any, last: Month) -> set[Month]:
    # Bounded by `last`: a clock that is years ahead must not make months of the far future.
    query = f"SELECT DISTINCT {_MONTH_OF_ID} FROM {DEFAULT_PARTITION} WHERE id < %s"  # noqa: S608
    cursor.execute(query, [last.ids[1]])
    return {Month.of(start) for (start,) in cursor.fetchall()}


def make_month(cursor: Any, month: Month) -> None:
    """Make one month of a new log: one without readers, and without rows of that month in the default partition."""
    _create_month_table(cursor, month)
    _attach_month(cursor, month)


def _add_months(cursor: Any, months: Sequence[Month]) -> None:
    """Make these months and move their rows out of the default partition.

    Rows are copied before the lock, while others read and charge; the log is append-only, so a copy stays valid. Under
    the lock only rows inserted since are copied, and the default partition is replaced by a table without the moved
    rows. The search for late rows keeps the log locked for some seconds per million moved rows.
    """
    for month in months:
        _create_month_table(cursor, month)
    is_moving = _copy_rows(cursor, months) > 0
    _lock_log(cursor, tries=MAX_LOCK_TRIES if is_moving else 1)
    is_moving |= _copy_rows(cursor, months) > 0
    if is_moving:
        _replace_default_partition(cursor, months)
    for month in months:
        _attach_month(cursor, month)
    if is_moving:
        cursor.execute(f"ALTER TABLE {TABLE} ATTACH PARTITION {DEFAULT_PARTITION} DEFAULT")
        append_only.guard_partition(cursor, DEFAULT_PARTITION)


def _create_month_table(cursor: Any, month: Month) -> None:
    cursor.execute(f"CREATE TABLE {month.table} (LIKE {TABLE} INCLUDING ALL)")
    # With a CHECK of the same bounds, ATTACH PARTITION does not scan the table while it holds its lock.
    first, after = month.ids
    cursor.execute(f"ALTER TABLE {month.table} ADD CONSTRAINT bounds CHECK (id >= '{first}' AND id < '{after}')")


def _attach_month(cursor: Any, month: Month) -> None:
    first, after = month.ids
    cursor.execute(f"ALTER TABLE {TABLE} ATTACH PARTITION {month.table} FOR VALUES FROM ('{first}') TO ('{after}')")
    cursor.execute(f"ALTER TABLE {month.table} DROP CONSTRAINT bounds")
    append_only.guard_partition(cursor, month.table)


def _copy_rows(cursor: Any, months: Sequence[Month]) -> int:
    copied = 0
    for month in months:
        cursor.execute(
            f"INSERT INTO {month.table} SELECT * FROM {DEFAULT_PARTITION} WHERE id >= %s AND id < %s "  # noqa: S608
            f"AND NOT EXISTS (SELECT FROM {month.table} AS copy WHERE copy.id = {DEFAULT_PARTITION}.id)",
            month.ids,
        )
        if cursor.rowcount:
            copied += cursor.rowcount
            cursor.execute(f"ANALYZE {month.table}")
    return copied


def _lock_log(cursor: Any, *, tries: int) -> None:
    for left in reversed(range(tries)):
        try:
            with transaction.atomic():
                cursor.execute(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
            return
        except OperationalError:
            if not left:
                raise
        time.sleep(LOCK_PAUSE_S)


def _replace_default_partition(cursor: Any, months: Sequence[Month]) -> None:
    # A DELETE of the moved rows would keep the log locked for a time that grows with their number.
    moved = " OR ".join("id >= '{}' AND id < '{}'".format(*month.ids) for month in months)
    new = f"{DEFAULT_PARTITION}_next"
    cursor.execute(f"CREATE TABLE {new} (LIKE {TABLE} INCLUDING ALL)")
    cursor.execute(f"INSERT INTO {new} SELECT * FROM {DEFAULT_PARTITION} WHERE NOT ({moved})")  # noqa: S608
    cursor.execute(f"ALTER TABLE {TABLE} DETACH PARTITION {DEFAULT_PARTITION}")
    cursor.execute(f"DROP TABLE {DEFAULT_PARTITION}")
    cursor.execute(f"ALTER TABLE {new} RENAME TO {DEFAULT_PARTITION}")
