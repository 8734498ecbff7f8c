"""Closes what is over: the usage of a space by model and quarter of an hour, of which its long sums are made.

A quarter and not an hour, since that is what the days of every time zone are made of. Nothing is written while a
request is settled; whoever finds a quarter over, closes it, once, and what is not closed is read from hours and rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Count, Q, QuerySet, Sum

from audit import origin
from tenants.ids import moment_of
from tenants.models import Space
from usage.figures import EPOCH, QUARTER, first_id, floor
from usage.models import QuarterMark, SpaceQuarter, UsageRecord

# A charge is dated before its transaction begins, and none takes as long as this to commit.
MARGIN = timedelta(minutes=10)
# How many are closed in one transaction: on SQLite nobody else writes meanwhile.
AT_ONCE = 24
_FAILED = Q(kind=UsageRecord.Kind.ERROR)
# By the names of a quarter's columns, which are a row's as well.
_SUMS: dict[str, Any] = {
    "requests_sum": Count("id"),
    "errors_sum": Count("id", filter=_FAILED),
    "input_tokens_sum": Sum("input_tokens"),
    "output_tokens_sum": Sum("output_tokens"),
    "error_input_tokens_sum": Sum("input_tokens", filter=_FAILED, default=0),
    "error_output_tokens_sum": Sum("output_tokens", filter=_FAILED, default=0),
    "cost_sum": Sum("cost"),
}


def close_quarters(*, now: datetime | None = None) -> int:
    """Close what is over, of every space; returns how many quarters had any usage. Any number may do so at once."""
    through = floor((now or origin.now()) - MARGIN, QUARTER)
    behind = Space.objects.exclude(quarter_mark__through__gte=through).order_by("pk").values_list("pk", flat=True)
    return sum(_close_all(space_id, through) for space_id in behind)


def reopen(*, space_id: int, at: datetime) -> None:
    """What is over was written to: read it from the rows again from there on, until it is closed anew.

    In the transaction that writes; for whoever writes history, or rows past the services.
    """
    start = floor(at, QUARTER)
    if QuarterMark.objects.filter(space=space_id, through__gt=start).update(through=start):
        SpaceQuarter.objects.filter(space=space_id, quarter__gte=start).delete()


def _close_all(space_id: int, through: datetime) -> int:
    count = 0
    while (closed := _close_some(space_id, through)) is not None:
        count += closed
    return count


@transaction.atomic
def _close_some(space_id: int, through: datetime) -> int | None:
    """None when there is nothing left to close."""
    QuarterMark.objects.bulk_create([QuarterMark(space_id=space_id, through=EPOCH)], ignore_conflicts=True)
    mark = QuarterMark.objects.select_for_update().get(space=space_id)
    if mark.through >= through:
        return None
    count, reached = 0, through
    for start in _used(space_id, mark.through, through):
        if count == AT_ONCE:
            reached = start
            break
        SpaceQuarter.objects.bulk_create(_sums(space_id, start))
        count += 1
    QuarterMark.objects.filter(space=space_id).update(through=reached)
    return count


def _used(space_id: int, first: datetime, after: datetime) -> Iterator[datetime]:
    """The quarters in which there was anything, the oldest first."""
    while (found := _rows(space_id, first, after).order_by("id").values_list("pk", flat=True).first()) is not None:
        first = floor(moment_of(found), QUARTER)
        yield first
        first += QUARTER


def _sums(space_id: int, start: datetime) -> list[SpaceQuarter]:
    rows = _rows(space_id, start, start + QUARTER).order_by().values("model").annotate(**_SUMS)
    columns = ("model", *(name.removesuffix("_sum") for name in _SUMS))
    return [
        SpaceQuarter(space_id=space_id, quarter=start, **dict(zip(columns, row, strict=True)))
        for row in rows.values_list("model", *_SUMS)
    ]


def _rows(space_id: int, first: datetime, after: datetime) -> QuerySet[UsageRecord]:
    return UsageRecord.objects.filter(space=space_id, id__gte=first_id(first), id__lt=first_id(after))
