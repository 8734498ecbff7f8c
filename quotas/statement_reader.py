"""Reads for a monthly statement: its month, its database snapshot, and the charges up to a moment."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any, NamedTuple, Self, TypeVar
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Count, QuerySet, Sum
from django.utils import timezone

from accounts.models import User
from core import origin
from quotas.models import Transfer
from tenants.models import Space
from usage.figures import first_id
from usage.models import HourlyUsage, UsageRecord
from usage.partitions import TABLE

_MONTH = re.compile(r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})", re.ASCII)
MIN_YEAR, MAX_YEAR = 1971, 9998
# Attribute of Django's SQLite connection: IMMEDIATE takes the write lock at BEGIN, DEFERRED at the first write.
_TRANSACTION_MODE = "transaction_mode"

UsageRow = TypeVar("UsageRow", UsageRecord, HourlyUsage)


class StatementMonth(NamedTuple):
    """A calendar month in the viewer's time zone."""

    year: int
    month: int
    zone: tzinfo

    @classmethod
    def of(cls, text: str) -> Self:
        """Parse `2026-10` in the active time zone; any other text gives the current month."""
        zone = timezone.get_current_timezone()
        now = origin.now().astimezone(zone)
        match = _MONTH.fullmatch(text)
        year, month = (int(match["year"]), int(match["month"])) if match else (0, 0)
        if MIN_YEAR <= year <= MAX_YEAR and 1 <= month <= 12:
            return cls(year, month, zone)
        return cls(now.year, now.month, zone)

    @property
    def first_day(self) -> date:
        return date(self.year, self.month, 1)

    @property
    def last_day(self) -> date:
        return self.next.first_day - timedelta(days=1)

    @property
    def start(self) -> datetime:
        return datetime.combine(self.first_day, time(), self.zone).astimezone(UTC)

    @property
    def end(self) -> datetime:
        # Exclusive.
        return self.next.start

    @property
    def next(self) -> StatementMonth:
        return StatementMonth(self.year + self.month // 12, self.month % 12 + 1, self.zone)

    @property
    def previous(self) -> StatementMonth:
        return StatementMonth(self.year - (self.month == 1), (self.month - 2) % 12 + 1, self.zone)

    @property
    def has_ended(self) -> bool:
        return self.end <= origin.now()

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"


class StatementCharge(NamedTuple):
    """The sum of one user's requests by API key and model."""

    user_id: int
    key_id: UUID
    model: str
    requests: int
    cost_nanos: int


@contextmanager
def snapshot() -> Iterator[None]:
    """Read everything inside from one database snapshot, so concurrent charges cannot split a statement.

    PostgreSQL uses a REPEATABLE READ READ ONLY transaction. SQLite uses a DEFERRED one, which takes no write lock, so
    a long export does not block writers. Inside an outer transaction the isolation level stays as it is.
    """
    is_outermost = not connection.in_atomic_block
    usual = getattr(connection, _TRANSACTION_MODE, None)
    if usual and is_outermost:
        setattr(connection, _TRANSACTION_MODE, "DEFERRED")
    try:
        with transaction.atomic():
            if is_outermost and connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    # Before the first query, which takes the snapshot: rows that move to a new month's partition after
                    # the snapshot are visible to it in neither partition. LOCK TABLE itself takes no snapshot.
                    cursor.execute(f"LOCK TABLE {TABLE} IN ACCESS SHARE MODE")
            yield
    finally:
        if usual:
            setattr(connection, _TRANSACTION_MODE, usual)


def charge_cutoff(space: Space, moment: datetime) -> datetime:
    """Return `moment`, or the start of its UTC hour when that hour's usage records are pruned.

    A month can begin within a UTC hour (UTC+05:30), and only usage records can split an hour.
    """
    hour = moment.replace(minute=0, second=0, microsecond=0)
    rows = UsageRecord.objects.filter(space=space, id__gte=first_id(hour), id__lt=first_id(hour + timedelta(hours=1)))
    return moment if moment == hour or rows.exists() else hour


class StatementReader:
    """Sums transfers and charges of one space, optionally restricted to `people`."""

    def __init__(self, space: Space, people: list[User] | None = None) -> None:
        self._space = space
        self._people = people

    def transfers(self, start: datetime, end: datetime | None = None) -> QuerySet[Transfer]:
        moves = Transfer.objects.filter(space=self._space, id__gte=first_id(start))
        moves = moves.filter(id__lt=first_id(end)) if end else moves
        if self._people is None:
            return moves
        return moves.filter(member_number__in=[person.number for person in self._people])

    def moved(self, start: datetime, end: datetime | None = None) -> dict[int | None, Counter[str]]:
        """Return nanos by member number, then kind. Transfers of the pool alone have the number None."""
        found: dict[int | None, Counter[str]] = defaultdict(Counter)
        moves = self.transfers(start, end).order_by().values("member_number", "kind").annotate(sum=Sum("amount"))
        for number, kind, amount in moves.values_list("member_number", "kind", "sum"):
            found[number][kind] += amount
        return found

    def moved_by_kind(self, start: datetime, end: datetime | None = None) -> Counter[str]:
        moves = self.transfers(start, end).order_by().values("kind").annotate(sum=Sum("amount"))
        return Counter(dict(moves.values_list("kind", "sum")))

    def charges(self, start: datetime, end: datetime) -> list[StatementCharge]:
        found = self._charges(("user_id", "key_id", "model"), start, end)
        charges = [StatementCharge(user, key, model, *sums) for (user, key, model), sums in found.items()]
        return sorted(charges, key=lambda charge: (-charge.cost_nanos, charge.model, charge.key_id))

    def by_model(self, start: datetime, end: datetime) -> list[tuple[str, int, int]]:
        # Rows of (model, requests, cost), the highest cost first.
        found = self._charges(("model",), start, end)
        return sorted(((model, *sums) for (model,), sums in found.items()), key=lambda row: (-row[2], row[0]))

    def spent_by_user(self, start: datetime, end: datetime | None = None) -> Counter[int]:
        found = self._charges(("user_id",), start, end)
        return Counter({user_id: cost for (user_id,), (_requests, cost) in found.items()})

    def spent(self, start: datetime, end: datetime | None = None) -> int:
        return sum(cost for _requests, cost in self._charges(("space_id",), start, end).values())

    def _charges(
        self, by: tuple[str, ...], start: datetime, end: datetime | None
    ) -> dict[tuple[Any, ...], tuple[int, int]]:
        """Return (requests, cost) by the columns in `by`.

        Full UTC hours are read from HourlyUsage. When `start` or `end` lies within an hour, that part of the hour is
        read from usage records.
        """
        start = charge_cutoff(self._space, start)
        first = hour_up(start)
        hours = self._of_people(HourlyUsage.objects.filter(space=self._space, hour__gte=first))
        rows = [self._rows(start, first)]
        if end is not None:
            end = charge_cutoff(self._space, end)
            last = hour_down(end)
            hours = hours.filter(hour__lt=last)
            rows.append(self._rows(last, end))
        sums: dict[tuple[Any, ...], tuple[int, int]] = {}
        counted = [(hours, Sum("requests")), *((part, Count("id")) for part in rows)]
        for source, calls in counted:
            found = source.order_by().values(*by).annotate(calls=calls, charged=Sum("cost"))
            for *place, requests, cost in found.values_list(*by, "calls", "charged"):
                had = sums.get(tuple(place), (0, 0))
                sums[tuple(place)] = (had[0] + requests, had[1] + cost)
        return sums

    def _rows(self, start: datetime, end: datetime) -> QuerySet[UsageRecord]:
        if start == end:
            return UsageRecord.objects.none()
        rows = UsageRecord.objects.filter(space=self._space, id__gte=first_id(start), id__lt=first_id(end))
        return self._of_people(rows)

    def _of_people(self, rows: QuerySet[UsageRow]) -> QuerySet[UsageRow]:
        if self._people is None:
            return rows
        return rows.filter(user_id__in=[person.pk for person in self._people])


def hour_down(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def hour_up(at: datetime) -> datetime:
    hour = hour_down(at)
    return hour if hour == at else hour + timedelta(hours=1)
