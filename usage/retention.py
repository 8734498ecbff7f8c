"""Retention of the usage log: drops the rows of whole months, and keeps their sums in roll-ups and checkpoints.

A month's roll-ups are compared with its rows before the rows are dropped, and its checkpoints are written in the same
transaction. Balances do not change; `reconcile` counts checkpoints in place of the dropped rows.
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
    MIN_KEPT_DAYS,
    HourlyUsage,
    QuarterMark,
    SpaceQuarter,
    UsageCheckpoint,
    UsageRecord,
)
from usage.partitions import TABLE, Month, drop_month, existing_months, lock_month, make_ahead, take_lock
from usage.quarters import close_space

MIN_KEPT = timedelta(days=MIN_KEPT_DAYS)


class RollUpsDifferError(Exception):
    """A month's roll-ups differ from the sums of its rows. The rows are kept, to find out why."""

    def __init__(self, month: Month, space_id: int, differing: int) -> None:
        super().__init__(month, space_id, differing)
        self.month, self.space_id, self.differing = month, space_id, differing


@dataclass(frozen=True)
class Pruned:
    month: Month
    rows: int
    spent_nanos: int


def months_due(keep: timedelta) -> list[Month]:
    """The months that ended at least `keep` ago, oldest first. Raises ValueError below MIN_KEPT_DAYS."""
    if keep < MIN_KEPT:
        raise ValueError(f"usage is kept for {MIN_KEPT_DAYS} days at least")
    # Old rows in the default partition can be dropped only once they are in partitions of their months.
    make_ahead()
    before = origin.now() - keep
    return [month for month in _months() if month.end <= before]


def count_month(month: Month) -> Pruned:
    rows, spent = _rows(month).aggregate(**of_rows(("requests", "cost"))).values()
    return Pruned(month, rows, spent)


def prune_month(month: Month) -> Pruned | None:
    """Close the month's quarters, write its checkpoints and drop its rows. Returns None where it is pruned already.

    Raises RollUpsDifferError and keeps all rows where roll-ups and rows differ. On PostgreSQL the log is locked for the
    drop; raises OperationalError when that lock is not granted in time.
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
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            return existing_months(cursor)
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
    # The mark's lock keeps a backdated charge from reopening a quarter whose rows are about to be dropped.
    list(QuarterMark.objects.select_for_update().filter(space=space_id))
    hours = HourlyUsage.objects.filter(space=space_id, hour__gte=month.start, hour__lt=month.end)
    rows = _rows(month).filter(space=space_id)
    quarters = SpaceQuarter.objects.filter(space=space_id, quarter__gte=month.start, quarter__lt=month.end)
    differing = _differing(rows, hours, ("user_id", "key_id", "model")) + _differing(rows, quarters, ("model",))
    if differing:
        raise RollUpsDifferError(month, space_id, differing)


def _differing(rows: QuerySet[UsageRecord], roll_ups: QuerySet[Any], by: tuple[str, ...]) -> int:
    differences: Counter[tuple[Any, ...]] = Counter()
    for group, figures in _summed(rows, of_rows(), by):
        _add(differences, group, figures, +1)
    for group, figures in _summed(roll_ups, of_roll_ups(), by):
        _add(differences, group, figures, -1)
    return sum(1 for difference in differences.values() if difference)


def _add(differences: Counter[tuple[Any, ...]], group: tuple[Any, ...], figures: tuple[int, ...], sign: int) -> None:
    for name, value in zip(AGGREGATES, figures, strict=True):
        differences[*group, name] += sign * value


def _checkpoints(month: Month, space_id: int) -> Iterator[UsageCheckpoint]:
    by = ("wallet_id", "user_id", "key_id", "model")
    names = [name for name in AGGREGATES if name not in ERROR_TOKENS]
    sums = of_rows(names)
    rows = _rows(month).filter(space=space_id).values(*by).annotate(**sums).values_list(*by, *sums)
    columns = [*by, *("spent" if name == "cost" else name for name in names)]
    for row in rows.iterator():
        yield UsageCheckpoint(space_id=space_id, through=month.end, **dict(zip(columns, row, strict=True)))


def _summed(
    rows: QuerySet[Any], sums: dict[str, Any], by: tuple[str, ...]
) -> Iterator[tuple[tuple[Any, ...], tuple[int, ...]]]:
    found = rows.order_by().values(*by).annotate(**sums).values_list(*by, *sums)
    for row in found.iterator():
        yield row[: len(by)], row[len(by) :]
