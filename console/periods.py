"""Periods of whole days in the viewer's time zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import NamedTuple, Self

# The first day that a UUIDv7 can tell, and the last one that still has a day after it.
FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(9999, 12, 30)
DEFAULT_DAYS = 7


class Period(NamedTuple):
    """Whole days in the viewer's time zone, the last one included."""

    start: date
    end: date

    @classmethod
    def of(cls, start: str, end: str, *, today: date) -> Self:
        """A text that is no date counts as not given. The other end is today, or lies a usual period before."""
        last = _day(end) or today
        first = _day(start) or max(FIRST_DAY, last - timedelta(days=DEFAULT_DAYS - 1))
        return cls(first, last)

    @classmethod
    def latest(cls, days: int, *, today: date) -> Self:
        return cls(today - timedelta(days=days - 1), today)

    def moments(self, zone: tzinfo) -> tuple[datetime, datetime]:
        """The first moment and the first one after, in UTC. A day has 23 or 25 hours where clocks change."""
        return first_moment(self.start, zone), first_moment(self.end + timedelta(days=1), zone)


def first_moment(day: date, zone: tzinfo) -> datetime:
    """Midnight in UTC. Where clocks skip midnight, the moment after the gap; where it comes twice, the earlier one."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _day(text: str) -> date | None:
    try:
        return min(max(date.fromisoformat(text), FIRST_DAY), LAST_DAY)
    except ValueError:
        return None
