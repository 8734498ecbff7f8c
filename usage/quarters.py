"""Closes what is over: the usage of a space by model and quarter of an hour, of which its long sums are made.

A quarter and not an hour, since that is what the days of every time zone are made of. Nothing is written while a
request is settled; whoever finds a quarter over, closes it, once, and what is not closed is read from hours and rows.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from django.db import connection, transaction
from django.db.models import DateTimeField, Q, QuerySet, Value
from django.db.models.functions import Now

from core import origin
from core.ids import moment_of
from tenants.models import Space
from usage.aggregates import AGGREGATES, of_rows
from usage.figures import EPOCH, QUARTER, first_id, floor, place_among
from usage.models import QuarterMark, SpaceQuarter, UsageCheckpoint, UsageRecord

log = structlog.get_logger(__name__)

# A charge is dated before its transaction begins; what it takes to commit and what its clock lags stay below this.
MARGIN = timedelta(minutes=10)
# How many are closed in one transaction: on SQLite nobody else writes meanwhile.
AT_ONCE = 24


class NotClosedError(Exception):
    """Of these spaces what is over was not closed, each logged with its reason; of all others it was."""

    def __init__(self, space_ids: list[int]) -> None:
        super().__init__(f"quarters are not closed of space {', '.join(map(str, space_ids))}")
        self.space_ids = space_ids


class PrunedError(Exception):
    """Rows were to be written, or read, of a time of which they are no longer kept."""


def close_quarters(*, now: datetime | None = None) -> int:
    """Close what is over, of every space; returns how many quarters had any usage. Any number may do so at once.

    Over is what both clocks, this process's and the database's, have left behind by MARGIN. A charge is dated by the
    clock of the process that writes it: it is in the sums as long as that clock is less than MARGIN behind the
    database's, however far ahead any clock may be. A mark that a clock since put right has left ahead of the
    database's goes back by itself. Raises NotClosedError at the end where a space went wrong, which stops no other.
    """
    ours = now or origin.now()
    clock = Value(now, DateTimeField()) if now else Now()
    through = floor(ours - MARGIN, QUARTER)
    is_due = Q(quarter_mark=None) | Q(quarter_mark__through__lt=through) | Q(quarter_mark__through__gt=clock)
    due = Space.objects.filter(is_due).order_by("pk").values_list("pk", "quarter_mark__through", clock)
    closed, failed = 0, []
    for space_id, mark, theirs in due:
        try:
            closed += _bring_to(space_id, mark, ours, theirs)
        except Exception:
            if not connection.is_usable():
                raise
            log.exception("quarters_not_closed", space=space_id)
            failed.append(space_id)
    if failed:
        raise NotClosedError(failed)
    return closed


def _bring_to(space_id: int, mark: datetime | None, ours: datetime, theirs: datetime) -> int:
    """Close a space by both clocks; where its mark is ahead of the database's, reopen it as far as rows may be new."""
    if mark and mark > theirs:
        with transaction.atomic():
            reopen(space_id=space_id, at=theirs - MARGIN)
    through = floor(min(ours, theirs) - MARGIN, QUARTER)
    # Nothing is asked about a space that our clock alone takes for due.
    return close_space(space_id, through) if mark is None or mark < through else 0


def reopen(*, space_id: int, at: datetime) -> None:
    """What is over was written to: read it from the rows again from there on, until it is closed anew.

    In the transaction that writes; for whoever writes history, or rows past the services. Raises PrunedError where the
    rows are no longer kept that it would be read from.
    """
    # Locked before the look, for which whoever prunes at this moment is waited for.
    list(QuarterMark.objects.select_for_update().filter(space=space_id))
    pruned = pruned_through(space_id)
    if pruned is not None and at < pruned:
        raise PrunedError(at, pruned)
    start = floor(at, QUARTER)
    if QuarterMark.objects.filter(space=space_id, through__gt=start).update(through=start):
        SpaceQuarter.objects.filter(space=space_id, quarter__gte=start).delete()


def pruned_through(space_id: int) -> datetime | None:
    """Before this moment the space's rows are gone; None when all are there."""
    last = UsageCheckpoint.objects.filter(space=space_id).order_by("-through")
    return last.values_list("through", flat=True).first()


def close_space(space_id: int, through: datetime) -> int:
    """Of one space, up to a whole quarter that is over."""
    count = 0
    while (closed := _close_some(space_id, through)) is not None:
        count += closed
    return count


def _locked_mark(space_id: int) -> QuarterMark:
    QuarterMark.objects.bulk_create([QuarterMark(space_id=space_id, through=EPOCH)], ignore_conflicts=True)
    return QuarterMark.objects.select_for_update().get(space=space_id)


@transaction.atomic
def _close_some(space_id: int, through: datetime) -> int | None:
    """None when there is nothing left to close."""
    mark = _locked_mark(space_id)
    if mark.through >= through:
        return None
    reached, quarters = through, set[datetime]()
    oldest = _rows(space_id, mark.through, through).order_by("id").values_list("pk", flat=True).first()
    if oldest is not None:
        start = floor(moment_of(oldest), QUARTER)
        reached = min(start + AT_ONCE * QUARTER, through)
        quarters = {each.quarter for each in _write(space_id, start, reached)}
    QuarterMark.objects.filter(space=space_id).update(through=reached)
    return len(quarters)


def _write(space_id: int, first: datetime, after: datetime) -> list[SpaceQuarter]:
    """What the rows come to from one whole quarter to another."""
    starts = [first + number * QUARTER for number in range((after - first) // QUARTER + 1)]
    place = place_among("id", [first_id(start) for start in starts])
    rows = _rows(space_id, first, after).order_by().annotate(place=place)
    sums = of_rows()
    found = rows.values("place", "model").annotate(**sums).values_list("place", "model", *sums)
    columns = ["model", *AGGREGATES]
    return SpaceQuarter.objects.bulk_create(
        SpaceQuarter(space_id=space_id, quarter=starts[number], **dict(zip(columns, values, strict=True)))
        for number, *values in found
    )


def _rows(space_id: int, first: datetime, after: datetime) -> QuerySet[UsageRecord]:
    return UsageRecord.objects.filter(space=space_id, id__gte=first_id(first), id__lt=first_id(after))
