"""Monthly statements of a member and of a space: opening balance, transfers, charges and closing balance, in nanos.

Opening and closing balances are computed backwards from the current wallets. The transfers and charges of the month
are summed independently, and assertions compare both, so a statement that does not add up raises AssertionError.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any, NamedTuple, Self, TypeVar
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Sum
from django.utils import timezone

from accounts.models import ApiKey, User
from core import origin
from quotas.models import Transfer, Wallet
from quotas.pool import pool_of
from tenants.models import Space
from usage.figures import first_id
from usage.models import HourlyUsage, UsageRecord

Kind = Transfer.Kind
# Sign of each transfer kind in the balance of the pool, and of a member.
POOL_SIGNS = {Kind.GRANT: 1, Kind.REVOKE: -1, Kind.ALLOCATE: -1, Kind.RECLAIM: 1, Kind.RETURN: 1}
MEMBER_SIGNS = {Kind.ALLOCATE: 1, Kind.RECLAIM: -1, Kind.RETURN: -1}
_MONTH = re.compile(r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})", re.ASCII)
MIN_YEAR, MAX_YEAR = 1971, 9998
# Attribute of Django's SQLite connection: IMMEDIATE takes the write lock at BEGIN, DEFERRED at the first write.
_TRANSACTION_MODE = "transaction_mode"
# A statement with more transfers than this shows their sums by kind instead of a list.
MAX_LISTED_TRANSFERS = 100
MEMBERS_PER_PAGE = 50
MEMBERS_PER_BATCH = 1000

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
        """The exclusive end, in UTC."""
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


@dataclass(frozen=True)
class Balance:
    """opening + transfers (signed) - spent = closing. Raises AssertionError when that does not hold."""

    opening_nanos: int = 0
    moved_nanos: dict[str, int] = field(default_factory=dict)
    spent_nanos: int = 0
    closing_nanos: int = 0

    def __post_init__(self) -> None:
        assert self.opening_nanos + sum(self.moved_nanos.values()) - self.spent_nanos == self.closing_nanos, self

    def moved(self, kind: str) -> int:
        return self.moved_nanos.get(kind, 0)


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
            yield
    finally:
        if usual:
            setattr(connection, _TRANSACTION_MODE, usual)


# -- Sums of transfers and charges --------------------------------------------------------------------------------


def charge_cutoff(space: Space, moment: datetime) -> datetime:
    """The moment at which charges are cut: `moment`, or the start of its UTC hour when that hour's rows are pruned.

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
        """Transferred nanos by member number, then kind. Transfers of the pool alone have the number None."""
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
        """(model, requests, cost), the highest cost first."""
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
        """(requests, cost) by the columns in `by`.

        Full UTC hours are read from HourlyUsage. When `start` or `end` lies within an hour, that part of the hour is
        read from usage records.
        """
        start = charge_cutoff(self._space, start)
        first = _hour_up(start)
        hours = self._of_people(HourlyUsage.objects.filter(space=self._space, hour__gte=first))
        rows = [self._rows(start, first)]
        if end is not None:
            end = charge_cutoff(self._space, end)
            last = _hour_down(end)
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


def _hour_down(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _hour_up(at: datetime) -> datetime:
    hour = _hour_down(at)
    return hour if hour == at else hour + timedelta(hours=1)


# -- Statement of a member ----------------------------------------------------------------------------------------


class MemberLine(NamedTuple):
    member: User
    balance: Balance


def member_lines(space: Space, people: list[User], month: StatementMonth) -> list[MemberLine]:
    """The balances of these members; the number of queries does not depend on the number of members."""
    reader = StatementReader(space, people)
    wallets = {wallet.user_id: wallet for wallet in Wallet.objects.filter(space=space, user__in=people)}
    moved = [reader.moved(month.start), reader.moved(month.end), reader.moved(month.start, month.end)]
    spent = [
        reader.spent_by_user(month.start),
        reader.spent_by_user(month.end),
        reader.spent_by_user(month.start, month.end),
    ]
    return [
        MemberLine(person, _member_balance(wallets[person.pk], person, moved, [one[person.pk] for one in spent]))
        for person in people
    ]


def _member_balance(
    wallet: Wallet, person: User, moved: list[dict[int | None, Counter[str]]], spent: list[int]
) -> Balance:
    since_start, since_end, within = [_signed(MEMBER_SIGNS, one.get(person.number, Counter())) for one in moved]
    return Balance(
        opening_nanos=wallet.remaining - sum(since_start.values()) + spent[0],
        moved_nanos=within,
        spent_nanos=spent[2],
        closing_nanos=wallet.remaining - sum(since_end.values()) + spent[1],
    )


def _signed(signs: dict[Any, int], amounts: Counter[str]) -> dict[str, int]:
    return {kind: signs[kind] * amount for kind, amount in amounts.items() if kind in signs}


@dataclass(frozen=True)
class MemberStatement:
    """The statement of one wallet. The balance is `Wallet.remaining`, which includes money on hold."""

    member: User
    month: StatementMonth
    balance: Balance
    charges: list[StatementCharge]
    transfers: list[Transfer]
    transfer_count: int
    held_nanos: int
    key_names: dict[UUID, str]

    @property
    def is_grouped(self) -> bool:
        """Whether there are too many transfers to list, so that only their sums by kind are shown."""
        return self.transfer_count > len(self.transfers)

    @property
    def by_model(self) -> list[tuple[str, int, int]]:
        return _grouped(self.charges, lambda charge: charge.model)

    @property
    def by_key(self) -> list[tuple[str, int, int]]:
        return _grouped(self.charges, lambda charge: self.key_names.get(charge.key_id, ""))


def member_statement(
    member: User, month: StatementMonth, *, max_transfers: int | None = MAX_LISTED_TRANSFERS
) -> MemberStatement:
    """Lists every transfer, or no transfer when there are more than `max_transfers`. None means no limit."""
    assert member.space is not None
    with snapshot():
        reader = StatementReader(member.space, [member])
        wallet = Wallet.objects.get(space=member.space, user=member)
        transfers = reader.transfers(month.start, month.end).order_by("id")
        transfer_count = transfers.count()
        charges = reader.charges(month.start, month.end)
        keys = ApiKey.with_deleted.filter(space=member.space, user=member)
        statement = MemberStatement(
            member=member,
            month=month,
            balance=member_lines(member.space, [member], month)[0].balance,
            charges=charges,
            transfers=[] if max_transfers is not None and transfer_count > max_transfers else list(transfers),
            transfer_count=transfer_count,
            held_nanos=0 if month.has_ended else wallet.held,
            key_names=dict(keys.values_list("pk", "name")),
        )
    assert sum(charge.cost_nanos for charge in charges) == statement.balance.spent_nanos
    return statement


def _grouped(charges: list[StatementCharge], name: Callable[[StatementCharge], str]) -> list[tuple[str, int, int]]:
    """(name, requests, cost), the highest cost first."""
    sums: dict[str, tuple[int, int]] = {}
    for charge in charges:
        requests, cost = sums.get(name(charge), (0, 0))
        sums[name(charge)] = (requests + charge.requests, cost + charge.cost_nanos)
    return sorted(((key, *both) for key, both in sums.items()), key=lambda row: (-row[2], row[0]))


# -- Statement of a space -----------------------------------------------------------------------------------------


class PoolFigures(NamedTuple):
    """The pool at one moment: total - allocated - the manager's own spending = left."""

    total_nanos: int
    allocated_nanos: int
    own_nanos: int

    @property
    def left_nanos(self) -> int:
        return self.total_nanos - self.allocated_nanos - self.own_nanos


@dataclass(frozen=True)
class SpaceStatement:
    """The statement of a space: the pool, all members together, and both combined.

    Transfers between pool and members cancel out, so `combined` has only grants, revokes and charges.
    """

    space: Space
    month: StatementMonth
    pool: Balance
    members: Balance
    opening: PoolFigures
    closing: PoolFigures
    by_model: list[tuple[str, int, int]]
    held_nanos: int
    lines: list[MemberLine]
    next_after: int | None

    @property
    def combined(self) -> Balance:
        return Balance(
            opening_nanos=self.pool.opening_nanos + self.members.opening_nanos,
            moved_nanos={kind: self.pool.moved(kind) for kind in (Kind.GRANT, Kind.REVOKE)},
            spent_nanos=self.pool.spent_nanos + self.members.spent_nanos,
            closing_nanos=self.pool.closing_nanos + self.members.closing_nanos,
        )


def space_statement(
    space: Space, month: StatementMonth, *, after: int = 1, max_members: int | None = MEMBERS_PER_PAGE
) -> SpaceStatement:
    """Lists up to `max_members` members with a number above `after` (keyset pagination). None lists all of them."""
    with snapshot():
        pool, opening, closing = _pool_statement(space, month)
        members = _members_balance(space, month)
        by_model = StatementReader(space).by_model(month.start, month.end)
        lines, next_after = _member_page(space, month, after, max_members)
        held = 0 if month.has_ended else _held(space)
    assert sum(cost for _model, _requests, cost in by_model) == pool.spent_nanos + members.spent_nanos
    assert (opening.left_nanos, closing.left_nanos) == (pool.opening_nanos, pool.closing_nanos)
    if max_members is None:
        _assert_lines_add_up(members, lines)
    return SpaceStatement(space, month, pool, members, opening, closing, by_model, held, lines, next_after)


def _pool_statement(space: Space, month: StatementMonth) -> tuple[Balance, PoolFigures, PoolFigures]:
    wallet = pool_of(space)
    own = StatementReader(space, list(User.everyone.filter(space=space, number=1)))
    opening = _pool_at(wallet, own, month.start)
    closing = _pool_at(wallet, own, month.end)
    balance = Balance(
        opening_nanos=opening.left_nanos,
        moved_nanos=_signed(POOL_SIGNS, StatementReader(space).moved_by_kind(month.start, month.end)),
        spent_nanos=own.spent(month.start, month.end),
        closing_nanos=closing.left_nanos,
    )
    return balance, opening, closing


def _pool_at(wallet: Wallet, own: StatementReader, moment: datetime) -> PoolFigures:
    moved = StatementReader(wallet.space).moved_by_kind(moment)
    total = wallet.total - moved[Kind.GRANT] + moved[Kind.REVOKE]
    allocated = wallet.allocated - moved[Kind.ALLOCATE] + moved[Kind.RECLAIM] + moved[Kind.RETURN]
    return PoolFigures(total, allocated, wallet.spent - own.spent(moment))


def _members_balance(space: Space, month: StatementMonth) -> Balance:
    """The combined balance of all members, including deleted ones."""
    everybody = StatementReader(space)
    own = StatementReader(space, list(User.everyone.filter(space=space, number=1)))
    periods = [(month.start, None), (month.end, None), (month.start, month.end)]
    moved = [_signed(MEMBER_SIGNS, everybody.moved_by_kind(*period)) for period in periods]
    spent = [everybody.spent(*period) - own.spent(*period) for period in periods]
    sums = Wallet.objects.filter(space=space, kind=Wallet.Kind.MEMBER).aggregate(
        total=Sum("total", default=0), spent=Sum("spent", default=0)
    )
    remaining = sums["total"] - sums["spent"]
    return Balance(
        opening_nanos=remaining - sum(moved[0].values()) + spent[0],
        moved_nanos=moved[2],
        spent_nanos=spent[2],
        closing_nanos=remaining - sum(moved[1].values()) + spent[1],
    )


def _member_page(
    space: Space, month: StatementMonth, after: int, max_members: int | None
) -> tuple[list[MemberLine], int | None]:
    """The lines, and the number to continue after, None on the last page."""
    people = _people_in(space, month).order_by("number")
    if max_members is not None:
        found = list(people.filter(number__gt=after)[: max_members + 1])
        lines = member_lines(space, found[:max_members], month)
        return lines, found[max_members - 1].number if len(found) > max_members else None
    lines = []
    while found := list(people.filter(number__gt=after)[:MEMBERS_PER_BATCH]):
        lines += member_lines(space, found, month)
        after = found[-1].number or after
    return lines, None


def _people_in(space: Space, month: StatementMonth) -> QuerySet[User]:
    """Members who existed in the month, and members deleted before it whose last holds ended after it began.

    Settling such a hold leaves a charge, a RETURN transfer, or both; an open one is still in `held`.
    """
    moves = Transfer.objects.filter(space=space, member_number=OuterRef("number"), id__gte=first_id(month.start))
    hours = HourlyUsage.objects.filter(space=space, user_id=OuterRef("pk"), hour__gte=_hour_down(month.start))
    there = Q(deleted_at=None) | Q(deleted_at__gte=month.start) | Q(wallet__held__gt=0)
    people = User.everyone.filter(space=space, number__gt=1, created_at__lt=month.end)
    return people.filter(there | Exists(moves) | Exists(hours))


def _held(space: Space) -> int:
    return int(Wallet.objects.filter(space=space).aggregate(held=Sum("held", default=0))["held"])


def _assert_lines_add_up(members: Balance, lines: list[MemberLine]) -> None:
    balances = [line.balance for line in lines]
    assert members.opening_nanos == sum(balance.opening_nanos for balance in balances)
    assert members.closing_nanos == sum(balance.closing_nanos for balance in balances)
    assert members.spent_nanos == sum(balance.spent_nanos for balance in balances)
