"""Usage that is no longer kept: whole months go, and what they came to stays, in roll-ups and checkpoints.

Before anything goes, the month's roll-ups are compared with its rows; the checkpoints are written in the transaction in
which the rows go. Balances are not touched, and reconcile counts checkpoints in the place of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import QuerySet

from core import append_only, origin
from core.ids import moment_of
from usage.aggregates import AGGREGATES, ERROR_TOKENS, of_roll_ups, of_rows
from usage.models import (
    LEAST_KEPT_DAYS,
    HourlyUsage,
    QuarterMark,
    SpaceQuarter,
    UsageCheckpoint,
    UsageRecord,
)
from usage.partitions import TABLE, Month, drop_month, lock_month, make_ahead, months_made, take_lock
from usage.quarters import close_space

LEAST_KEPT = timedelta(days=LEAST_KEPT_DAYS)


class RollUpsDifferError(Exception):
    """The roll-ups of a month are not what its rows come to: the rows are needed to find out why."""

    def __init__(self, month: Month, space_id: int, differing: int) -> None:
        super().__init__(month, space_id, differing)
        self.month, self.space_id, self.differing = month, space_id, differing


@dataclass(frozen=True)
class Pruned:
    """What went, or would go."""

    month: Month
    rows: int
    spent_nanos: int


def months_due(keep: timedelta) -> list[Month]:
    """The months that are wholly older, the oldest first; of those that are over, what is in the rest as well."""
    if keep < LEAST_KEPT:
        raise ValueError(f"usage is kept for {LEAST_KEPT_DAYS} days at least")
    make_ahead()
    before = origin.now() - keep
    return [month for month in _months() if month.end <= before]


def count_month(month: Month) -> Pruned:
    rows, spent = _rows(month).aggregate(**of_rows(("requests", "cost"))).values()
    return Pruned(month, rows, spent)


def prune_month(month: Month) -> Pruned | None:
    """Close the month's quarters, write its checkpoints and drop its rows; None when somebody else was faster.

    Raises RollUpsDifferError, with all rows still there. On PostgreSQL the log is locked for the moment of the drop; an
    OperationalError says that it was too busy for that.
    """
    for space_id in _spaces(month):
        close_space(space_id, month.end)
    return _prune(month)


@transaction.atomic
def _prune(month: Month) -> Pruned | None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            take_lock(cursor, wait=True)
        if month not in _months():
            return None
        if connection.vendor == "postgresql":
            lock_month(cursor, month)
        pruned = count_month(month)
        for space_id in _spaces(month):
            _compare(month, space_id)
            UsageCheckpoint.objects.bulk_create(_checkpoints(month, space_id), batch_size=1000)
        _drop(cursor, month)
    return pruned


def _drop(cursor: Any, month: Month) -> None:
    if connection.vendor == "postgresql":
        drop_month(cursor, month)
        return
    with append_only.without_append_only_triggers(connection, TABLE):
        _rows(month).delete()


def _months() -> list[Month]:
    """Those that can go: on PostgreSQL the partitions, on SQLite the months that have rows."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            return months_made(cursor)
    return list(_months_with_rows())


def _months_with_rows() -> Iterator[Month]:
    ids = UsageRecord.objects.order_by("id").values_list("pk", flat=True)
    first = ids.first()
    while first is not None:
        month = Month.of(moment_of(first))
        yield month
        first = ids.filter(id__gte=month.ids[1]).first()


def _rows(month: Month) -> QuerySet[UsageRecord]:
    first, after = month.ids
    return UsageRecord.objects.filter(id__gte=first, id__lt=after).order_by()


def _spaces(month: Month) -> list[int]:
    return sorted(_rows(month).values_list("space_id", flat=True).distinct())


def _compare(month: Month, space_id: int) -> None:
    """The mark is locked: nobody reopens a quarter that is about to lose its rows."""
    list(QuarterMark.objects.select_for_update().filter(space=space_id))
    hours = HourlyUsage.objects.filter(space=space_id, hour__gte=month.start, hour__lt=month.end)
    rows = _rows(month).filter(space=space_id)
    quarters = SpaceQuarter.objects.filter(space=space_id, quarter__gte=month.start, quarter__lt=month.end)
    differing = _differing(rows, hours, ("user_id", "key_id", "model")) + _differing(rows, quarters, ("model",))
    if differing:
        raise RollUpsDifferError(month, space_id, differing)


def _differing(rows: QuerySet[UsageRecord], rolled_up: QuerySet[Any], places: tuple[str, ...]) -> int:
    """How many figures of roll-ups are not what the rows come to, by these columns."""
    kept: Counter[tuple[Any, ...]] = Counter()
    for place, figures in _summed(rows, of_rows(), places):
        _count(kept, place, figures, +1)
    for place, figures in _summed(rolled_up, of_roll_ups(), places):
        _count(kept, place, figures, -1)
    return sum(1 for difference in kept.values() if difference)


def _count(kept: Counter[tuple[Any, ...]], place: tuple[Any, ...], figures: tuple[int, ...], sign: int) -> None:
    for name, value in zip(AGGREGATES, figures, strict=True):
        kept[*place, name] += sign * value


def _checkpoints(month: Month, space_id: int) -> Iterator[UsageCheckpoint]:
    places = ("wallet_id", "user_id", "key_id", "model")
    names = [name for name in AGGREGATES if name not in ERROR_TOKENS]
    sums = of_rows(names)
    rows = _rows(month).filter(space=space_id).values(*places).annotate(**sums).values_list(*places, *sums)
    columns = [*places, *("spent" if name == "cost" else name for name in names)]
    for row in rows.iterator():
        yield UsageCheckpoint(space_id=space_id, through=month.end, **dict(zip(columns, row, strict=True)))


def _summed(
    rows: QuerySet[Any], sums: dict[str, Any], places: tuple[str, ...]
) -> Iterator[tuple[tuple[Any, ...], tuple[int, ...]]]:
    found = rows.order_by().values(*places).annotate(**sums).values_list(*places, *sums)
    for row in found.iterator():
        yield row[: len(places)], row[len(places) :]
