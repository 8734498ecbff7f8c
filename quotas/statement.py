"""Monthly statements of a member and of a space: opening balance, transfers, charges and closing balance, in nanos.

Opening and closing balances are computed backwards from the current wallets. The transfers and charges of the month
are summed independently, and assertions compare both, so a statement that does not add up raises AssertionError.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet, Sum

from accounts.models import ApiKey, User
from quotas.models import Transfer, Wallet
from quotas.pool import pool_of
from quotas.statement_reader import StatementCharge, StatementMonth, StatementReader, hour_down, snapshot
from tenants.models import Space
from usage.figures import first_id
from usage.models import HourlyUsage

Kind = Transfer.Kind
# Sign of each transfer kind in the balance of the pool, and of a member.
POOL_SIGNS = {Kind.GRANT: 1, Kind.REVOKE: -1, Kind.ALLOCATE: -1, Kind.RECLAIM: 1, Kind.RETURN: 1}
MEMBER_SIGNS = {Kind.ALLOCATE: 1, Kind.RECLAIM: -1, Kind.RETURN: -1}
# A statement with more transfers than this shows their sums by kind instead of a list.
MAX_LISTED_TRANSFERS = 100
MEMBERS_PER_PAGE = 50
MEMBERS_PER_BATCH = 1000


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


# -- Statement of a member ----------------------------------------------------------------------------------------


class MemberLine(NamedTuple):
    member: User
    balance: Balance


def member_lines(space: Space, people: list[User], month: StatementMonth) -> list[MemberLine]:
    # The number of queries does not depend on the number of members.
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
    """Return rows of (name, requests, cost), the highest cost first."""
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
    # Includes deleted members.
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
    """Return the lines, and the number to continue after (None on the last page)."""
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
    hours = HourlyUsage.objects.filter(space=space, user_id=OuterRef("pk"), hour__gte=hour_down(month.start))
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
