"""The usage log by months on PostgreSQL: its partitions, made ahead, so that old months can go as a whole.

A row's month is in its id. What belongs to no month that there is (a clock that is far off, a history that is told
afterwards) lands in the rest, where it is found like any other, and moves when its month is made. On SQLite the log is
one table, and all of this does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
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
        missing = (wanted | _months_in_rest(cursor, max(wanted))) - set(months_made(cursor))
        for month in sorted(missing):
            make_month(cursor, month)
    return sorted(missing)


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
    """Made beside the log and then attached, which locks out nobody who reads or charges but in the rest."""
    first, after = month.ids
    cursor.execute(f"CREATE TABLE {month.table} (LIKE {TABLE} INCLUDING ALL)")
    _move_from_rest(cursor, month)
    cursor.execute(f"ALTER TABLE {TABLE} ATTACH PARTITION {month.table} FOR VALUES FROM ('{first}') TO ('{after}')")
    append_only.guard_partition(cursor, month.table)


def _move_from_rest(cursor: Any, month: Month) -> None:
    cursor.execute(f"SELECT EXISTS (SELECT FROM {REST} WHERE id >= %s AND id < %s)", month.ids)  # noqa: S608
    if not cursor.fetchone()[0]:
        return
    # Nobody writes to the rest from here on, until the transaction ends.
    cursor.execute(f"ALTER TABLE {REST} DISABLE TRIGGER USER")
    cursor.execute(
        f"WITH moved AS (DELETE FROM {REST} WHERE id >= %s AND id < %s RETURNING *) "  # noqa: S608
        f"INSERT INTO {month.table} SELECT * FROM moved",
        month.ids,
    )
    cursor.execute(f"ALTER TABLE {REST} ENABLE TRIGGER USER")
