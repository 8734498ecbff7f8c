"""Closes quarters of an hour: materialises the usage of a space by model and quarter, for the sums of long periods.

Quarters, because days begin at half and three quarter hours in some time zones. They are not raised when a request is
settled, since all requests of a space would wait for the lock of one row: the worker reads them from the usage records
once they are over. Later usage is read from hours and records.
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
from usage.figures import EPOCH, QUARTER, first_id, floor, interval_index
from usage.models import QuarterMark, SpaceQuarter, UsageCheckpoint, UsageRecord

log = structlog.get_logger(__name__)

# A charge is dated before its transaction begins, by its own process's clock. A quarter is closed this long after its
# end, which must exceed the time to commit plus the lag of that clock.
MARGIN = timedelta(minutes=10)
# On SQLite a transaction that writes blocks every other writer, so each one is kept short.
MAX_QUARTERS_PER_TRANSACTION = 24


class NotClosedError(Exception):
    """The quarters of these spaces could not be closed; each error was logged. All other spaces were closed."""

    def __init__(self, space_ids: list[int]) -> None:
        super().__init__(f"quarters are not closed of space {', '.join(map(str, space_ids))}")
        self.space_ids = space_ids


class PrunedError(Exception):
    """The rows of this time were pruned, so they can be neither read nor added to."""


def close_quarters(*, now: datetime | None = None) -> int:
    """Close the quarters of every space that are over. Returns how many of them had usage.

    Idempotent; several workers may call it at once, since the space's mark is their lock.

    A quarter is over when both clocks, this process's and the database's, are MARGIN past its end. So a clock that runs
    ahead closes nothing early, and a charge is counted as long as its process's clock lags less than MARGIN behind the
    database's. A mark ahead of the database's clock, left by a clock that was wrong, is moved back. An error in one
    space does not stop the others; NotClosedError is raised at the end.
    """
    process_now = now or origin.now()
    clock = Value(now, DateTimeField()) if now else Now()
    through = floor(process_now - MARGIN, QUARTER)
    is_due = Q(quarter_mark=None) | Q(quarter_mark__through__lt=through) | Q(quarter_mark__through__gt=clock)
    due = Space.objects.filter(is_due).order_by("pk").values_list("pk", "quarter_mark__through", clock)
    closed, failed = 0, []
    for space_id, mark, database_now in due:
        try:
            closed += _close_or_reopen(space_id, mark, process_now, database_now)
        except Exception:
            if not connection.is_usable():
                raise
            log.exception("quarters_not_closed", space=space_id)
            failed.append(space_id)
    if failed:
        raise NotClosedError(failed)
    return closed


def _close_or_reopen(space_id: int, mark: datetime | None, process_now: datetime, database_now: datetime) -> int:
    if mark and mark > database_now:
        with transaction.atomic():
            reopen(space_id=space_id, at=database_now - MARGIN)
    through = floor(min(process_now, database_now) - MARGIN, QUARTER)
    # No query for a space that is due only by this process's clock, which runs ahead.
    return close_space(space_id, through) if mark is None or mark < through else 0


def reopen(*, space_id: int, at: datetime) -> None:
    """Reopen the closed quarters from this moment on, because a backdated row falls into them.

    Whoever inserts such a row, through a service or past them, calls this in the same transaction. Until the worker
    closes the quarters again, they are read from hours and rows. Raises PrunedError where the rows of that time are
    pruned.
    """
    # Lock the mark before reading checkpoints: pruning holds the same lock while it writes them.
    list(QuarterMark.objects.select_for_update().filter(space=space_id))
    pruned = pruned_through(space_id)
    if pruned is not None and at < pruned:
        raise PrunedError(at, pruned)
    start = floor(at, QUARTER)
    if QuarterMark.objects.filter(space=space_id, through__gt=start).update(through=start):
        SpaceQuarter.objects.filter(space=space_id, quarter__gte=start).delete()


def pruned_through(space_id: int) -> datetime | None:
    last = UsageCheckpoint.objects.filter(space=space_id).order_by("-through")
    return last.values_list("through", flat=True).first()


def close_space(space_id: int, through: datetime) -> int:
    """Close quarters up to `through`, which is the end of one. Returns how many of them had usage."""
    count = 0
    while (closed := _close_batch(space_id, through)) is not None:
        count += closed
    return count


def _locked_mark(space_id: int) -> QuarterMark:
    QuarterMark.objects.bulk_create([QuarterMark(space_id=space_id, through=EPOCH)], ignore_conflicts=True)
    return QuarterMark.objects.select_for_update().get(space=space_id)


@transaction.atomic
def _close_batch(space_id: int, through: datetime) -> int | None:
    mark = _locked_mark(space_id)
    if mark.through >= through:
        return None  # Nothing is left to close.
    reached, quarters = through, set[datetime]()
    oldest = _rows(space_id, mark.through, through).order_by("id").values_list("pk", flat=True).first()
    if oldest is not None:
        start = floor(moment_of(oldest), QUARTER)
        reached = min(start + MAX_QUARTERS_PER_TRANSACTION * QUARTER, through)
        quarters = {each.quarter for each in _write_quarters(space_id, start, reached)}
    QuarterMark.objects.filter(space=space_id).update(through=reached)
    return len(quarters)


def _write_quarters(space_id: int, first: datetime, after: datetime) -> list[SpaceQuarter]:
    starts = [first + number * QUARTER for number in range((after - first) // QUARTER + 1)]
    place = interval_index("id", [first_id(start) for start in starts])
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
