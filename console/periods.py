"""Periods of whole days in the viewer's time zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import NamedTuple, Self

# UUIDv7 ids start at the Unix epoch, and the day after the last one must still be a valid date.
FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(9999, 12, 30)
DEFAULT_DAYS = 7


class Period(NamedTuple):
    """Whole days in the viewer's time zone, both ends included."""

    start: date
    end: date

    @classmethod
    def of(cls, start: str, end: str, *, today: date) -> Self:
        """Parse ISO dates; an invalid one counts as missing. The default is DEFAULT_DAYS days that end today."""
        last = _day(end) or today
        first = _day(start) or max(FIRST_DAY, last - timedelta(days=DEFAULT_DAYS - 1))
        return cls(first, last)

    @classmethod
    def latest(cls, days: int, *, today: date) -> Self:
        return cls(today - timedelta(days=days - 1), today)

    def moments(self, zone: tzinfo) -> tuple[datetime, datetime]:
        """Return the half-open interval [start, end) in UTC. A day with a clock change (DST) has 23 or 25 hours."""
        return first_moment(self.start, zone), first_moment(self.end + timedelta(days=1), zone)


def first_moment(day: date, zone: tzinfo) -> datetime:
    """Return local midnight in UTC.

    If a clock change (DST) skips midnight, it is the end of the gap; if midnight occurs twice, the earlier one.
    """
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _day(text: str) -> date | None:
    try:
        return min(max(date.fromisoformat(text), FIRST_DAY), LAST_DAY)
    except ValueError:
        return None
