"""What many requests want of the books at once, written as one set: one transaction, one commit.

On PostgreSQL a set is one call of the function in sql/charge_set_v*.sql; on SQLite, and for what the function leaves
(a hold that is gone, a deleted member's, a cost beyond the hold), the same is done one by one by charging.py. One suite
of tests holds both to one contract: tests/quotas/test_sets.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar
from uuid import UUID

import msgspec
from django.db import connection, transaction

from accounts.keys import Presented, find_key, usable_key
from accounts.spending import REFUSAL_STATUS
from audit import origin
from quotas import charging
from quotas.charging import HOLD_LIFETIME_S, Call
from quotas.errors import InsufficientQuota, KeyLimitReached, KeyRefused, QuotaError
from tenants.ids import hex_ids_at

T_co = TypeVar("T_co", covariant=True)


class Order(msgspec.Struct, Generic[T_co], frozen=True, kw_only=True):
    """Something to be done in a set, with an outcome of its own. Owed ones must be written, however long it takes."""

    is_owed: ClassVar[bool] = False


class Held(msgspec.Struct, frozen=True):
    """How much was set aside."""

    amount_nanos: int


class Settled(msgspec.Struct, frozen=True):
    """What was charged, and what the wallet had free after it."""

    cost_nanos: int
    available_nanos: int


class HoldOrder(Order[Held], frozen=True, kw_only=True):
    """Hold for the request of a key as much as there is, from `least_nanos` to `most_nanos`.

    Refused with KeyRefused, InsufficientQuota or KeyLimitReached; the refusal of a known key is logged. The id is the
    request's own, made for it.
    """

    request_id: UUID
    presented: Presented
    model: str
    address: str | None
    least_nanos: int
    most_nanos: int
    lifetime_s: int = HOLD_LIFETIME_S


class CheckOrder(Order[list[str]], frozen=True, kw_only=True):
    """Whether a key may be used at all: the models that it is limited to, empty for all. Refused with KeyRefused.

    With `code`, the log gets an Error row of a request that was refused before any money was asked for.
    """

    request_id: UUID
    presented: Presented
    address: str | None
    model: str = ""
    status: int = 0
    code: str = ""


class SettleOrder(Order[Settled], frozen=True, kw_only=True):
    """Charge a request what it cost and let go of the rest of its hold, as charging.settle does.

    `presented` is the key that held, where that is known: its wallet is found sooner.
    """

    space_id: int
    request_id: UUID
    cost_nanos: int
    call: Call
    presented: Presented | None = None
    is_owed: ClassVar[bool] = True


class ReleaseOrder(Order[bool], frozen=True, kw_only=True):
    """Let go of a hold without a charge and log why, as charging.release does. `presented` as of a SettleOrder."""

    space_id: int
    request_id: UUID
    call: Call
    presented: Presented | None = None
    is_owed: ClassVar[bool] = True


class RenewOrder(Order[bool], frozen=True, kw_only=True):
    """Keep a hold alive and note what its answer has come to, as charging.renew does."""

    space_id: int
    request_id: UUID
    delivered_bytes: int
    accrued_nanos: int
    lifetime_s: int = HOLD_LIFETIME_S


def write_set(orders: Sequence[Order[Any]], wallets: Wallets | None = None) -> list[Any]:
    """The outcome of each order, in their order: its result, or the QuotaError that refused it and wrote nothing.

    Durable when it returns. `wallets` is what earlier sets have learnt, and learns from this one. Raises DatabaseError
    when the set was not written; write_one then tells which.
    """
    if connection.vendor == "postgresql":
        gathered = Set(orders, {} if wallets is None else wallets)
        with connection.cursor() as cursor:
            cursor.execute(Set.STATEMENT, gathered.values)
            outcomes = gathered.outcomes(cursor.fetchall())
        return [
            write_one(order) if outcome is LEFT else outcome for order, outcome in zip(orders, outcomes, strict=True)
        ]
    # What ends goes first, so that what it frees can be held.
    places = sorted(range(len(orders)), key=lambda place: isinstance(orders[place], HoldOrder | CheckOrder))
    with transaction.atomic():
        by_place = {place: write_one(orders[place]) for place in places}
    return [by_place[place] for place in range(len(orders))]


@transaction.atomic
def write_one(order: Order[Any]) -> Any:
    """As write_set, of one order. A repeat of an order whose answer was lost moves nothing twice."""
    try:
        with transaction.atomic():
            return _do(order)
    except QuotaError as refusal:
        if isinstance(order, HoldOrder) or (isinstance(order, CheckOrder) and (order.model or order.code)):
            _log_refusal(order, refusal.code, REFUSAL_STATUS.get(refusal.code, 400))
        return refusal


def _do(order: Order[Any]) -> Any:
    match order:
        case HoldOrder():
            hold, _key = charging.hold_for_key(
                request_id=order.request_id,
                presented=order.presented,
                model=order.model,
                address=order.address,
                least_nanos=order.least_nanos,
                most_nanos=order.most_nanos,
                lifetime_s=order.lifetime_s,
            )
            return Held(hold.amount)
        case CheckOrder():
            return _check(order)
        case SettleOrder():
            record = charging.settle(
                space_id=order.space_id, request_id=order.request_id, cost_nanos=order.cost_nanos, call=order.call
            )
            return Settled(record.cost, record.available_after)
        case ReleaseOrder():
            return charging.release(space_id=order.space_id, request_id=order.request_id, call=order.call)
        case RenewOrder():
            return charging.renew(
                space_id=order.space_id,
                request_id=order.request_id,
                delivered_bytes=order.delivered_bytes,
                accrued_nanos=order.accrued_nanos,
                lifetime_s=order.lifetime_s,
            )
    raise TypeError(order)


def _check(order: CheckOrder) -> list[str]:
    key = usable_key(order.presented, address=order.address, model=order.model or None)
    if order.code:
        _log_refusal(order, order.code, order.status)
    return list(key.models_allowed)


def _log_refusal(order: HoldOrder | CheckOrder, code: str, status: int) -> None:
    """Unknown keys leave no row: they are nobody's."""
    if key := find_key(order.presented):
        call = Call(model=order.model, key_id=key.pk, key_name=key.name, status=status, code=code)
        charging.log_refusal(request_id=order.request_id, user=key.user, call=call)


# What the function left to be done one by one.
LEFT = object()

OfAKey = HoldOrder | CheckOrder | SettleOrder | ReleaseOrder
# From which wallet a key was seen to spend: what a set need not look for before it locks. Never believed beyond that.
Wallets = dict[Presented, str]
WALLETS_MOST = 20_000


class Set:
    """Orders as one call of PostgreSQL's function: its statement and values, and its rows as outcomes."""

    # How many columns the function takes of settlements, asks and renewals.
    COLUMNS = (16, 12, 6)
    STATEMENT = f"SELECT * FROM quotas_charge_set(%s, %s, %s{', %s' * sum(COLUMNS)})"  # noqa: S608

    def __init__(self, orders: Sequence[Order[Any]], wallets: Wallets) -> None:
        self.orders = orders
        self._wallets = wallets
        at = origin.now()
        self._records = hex_ids_at(at, len(orders))
        kinds = zip(self._sorted(), self.COLUMNS, strict=True)
        columns = (column for rows, width in kinds for column in _columns(rows, width))
        self.values: list[Any] = [at, *self._known(), *columns]

    def _known(self) -> tuple[str, bool]:
        """The wallets to lock that need not be looked for, and whether they are all."""
        keys = {order.presented for order in self.orders if isinstance(order, OfAKey)}
        known = [wallet for key in keys if key is not None and (wallet := self._wallets.get(key))]
        return f"{{{','.join(known)}}}", len(known) == len(keys)

    def outcomes(self, rows: Iterable[tuple[Any, ...]]) -> list[Any]:
        """As of write_set, with LEFT where the function did nothing."""
        by_place = {row[0]: _Row(*row) for row in rows}
        for place, order in enumerate(self.orders):
            if isinstance(order, HoldOrder | CheckOrder):
                self._learn(order.presented, by_place.get(place))
        return [_outcome(order, by_place.get(place)) for place, order in enumerate(self.orders)]

    def _learn(self, presented: Presented, row: _Row | None) -> None:
        if row is None:
            self._wallets.pop(presented, None)
        elif row.wallet is not None:
            if len(self._wallets) >= WALLETS_MOST:
                self._wallets.clear()
            self._wallets[presented] = row.wallet

    def _sorted(self) -> tuple[Rows, Rows, Rows]:
        settlements: dict[UUID, tuple[Any, ...]] = {}
        asks: Rows = []
        renewals: dict[UUID, tuple[Any, ...]] = {}
        for place, order in enumerate(self.orders):
            match order:
                # A second one of the same request is left: the function would see the hold under both.
                case SettleOrder() | ReleaseOrder():
                    settlements.setdefault(order.request_id, self._settlement(place, order))
                case HoldOrder() | CheckOrder():
                    asks.append(self._ask(place, order))
                case RenewOrder():
                    renewals[order.request_id] = _renewal(place, order)
        return list(settlements.values()), asks, list(renewals.values())

    def _ask(self, place: int, order: HoldOrder | CheckOrder) -> tuple[Any, ...]:
        # PostgreSQL knows no zones in an address.
        address = order.address.partition("%")[0] if order.address else None
        presented = order.presented
        named = (place, self._records[place], order.request_id.hex, presented.space_id, presented.hash, address)
        if isinstance(order, CheckOrder):
            return (*named, order.model, 0, 0, 0, order.status, order.code)
        return (*named, order.model, order.least_nanos, order.most_nanos, order.lifetime_s, 0, "")

    def _settlement(self, place: int, order: SettleOrder | ReleaseOrder) -> tuple[Any, ...]:
        call = order.call
        return (
            place,
            self._records[place],
            order.space_id,
            order.request_id.hex,
            order.cost_nanos if isinstance(order, SettleOrder) else 0,
            call.input_tokens,
            call.cached_tokens,
            call.output_tokens,
            call.images,
            call.seconds,
            msgspec.json.encode(call.price).decode(),
            call.duration_ms,
            call.first_token_ms,
            call.status,
            call.code,
            call.is_estimated,
        )


Rows = list[tuple[Any, ...]]


def _columns(rows: Rows, width: int) -> list[str]:
    """Rows as PostgreSQL's arrays, one for each column."""
    return [_array(column) for column in zip(*rows, strict=True)] or ["{}"] * width


def _array(column: tuple[str | int | None, ...]) -> str:
    """By Python's own loops where no value needs care, since a set has hundreds of them. A column is of one type."""
    if None in column:
        return f"{{{','.join(map(_element, column))}}}"
    if isinstance(column[0], int):
        return f"{{{','.join(map(str, column))}}}"
    text = '","'.join(map(str, column))
    is_plain = "\\" not in text and text.count('"') == 2 * (len(column) - 1)
    return f'{{"{text}"}}' if is_plain else f"{{{','.join(map(_element, column))}}}"


def _element(value: str | int | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


ALLOWED = "allowed"


class _Row(NamedTuple):
    """What the function answers for one order; which figures are there depends on the outcome."""

    place: int
    outcome: str
    nanos: int
    free_nanos: int
    spent_nanos: int
    limit_nanos: int
    models: str
    wallet: str | None

    def refusal(self) -> QuotaError:
        error = {"insufficient_quota": InsufficientQuota, "key_limit_reached": KeyLimitReached}.get(self.outcome)
        if error is None:
            return KeyRefused(self.outcome)
        return error(available=self.free_nanos, amount=self.nanos, spent=self.spent_nanos, limit=self.limit_nanos)


def _outcome(order: Order[Any], row: _Row | None) -> Any:
    match order:
        case RenewOrder():
            return row is not None
        case SettleOrder() if row:
            return Settled(row.nanos, row.free_nanos)
        case ReleaseOrder() if row:
            return True
        case HoldOrder() if row and row.outcome == ALLOWED:
            return Held(row.nanos)
        case CheckOrder() if row and row.outcome == ALLOWED:
            return json.loads(row.models)
    return LEFT if row is None else row.refusal()


def _renewal(place: int, order: RenewOrder) -> tuple[Any, ...]:
    hold = (place, order.space_id, order.request_id.hex)
    return (*hold, order.delivered_bytes, order.accrued_nanos, order.lifetime_s)
