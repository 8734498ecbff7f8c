"""The hours, days or weeks that the bars of the chart stand for."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import NamedTuple, Self

from django.utils.translation import gettext as _

from console.periods import Period, first_moment
from usage.figures import HOUR, floor

MAX_DAYS_IN_HOURS, MAX_DAYS_IN_DAYS = 2, 62


class BarUnit(NamedTuple):
    name: str
    title: str
    head: str
    label: str
    tick: str

    @classmethod
    def of(cls, period: Period) -> Self:
        days = (period.end - period.start).days + 1
        if days <= MAX_DAYS_IN_HOURS:
            return cls("hour", _("Spend per hour"), _("Hour"), _("j M H:i"), _("H:i"))
        if days <= MAX_DAYS_IN_DAYS:
            return cls("day", _("Spend per day"), _("Day"), _("D j M"), _("j M"))
        return cls("week", _("Spend per week"), _("Week from"), _("j M Y"), _("j M"))

    def cuts(self, first: datetime, after: datetime, zone: tzinfo) -> list[datetime]:
        """Return the boundaries of the bars in [first, after]: the start of each, and the end of the last.

        Hours start at UTC hours, because roll-ups do. In a zone with a half-hour offset, the first and last bar cover
        half an hour.
        """
        if self.name == "hour":
            hours = (after - first) // HOUR + 1
            starts = [floor(first, HOUR) + HOUR * n for n in range(1, hours + 1)]
        else:
            day = first.astimezone(zone).date()
            step = timedelta(days=1 if self.name == "day" else 7)
            day -= timedelta(days=0 if self.name == "day" else day.weekday())
            last = after.astimezone(zone).date()
            starts = [first_moment(day + step * n, zone) for n in range(1, (last - day) // step + 1)]
        return [first, *sorted({start for start in starts if first < start < after}), after]
