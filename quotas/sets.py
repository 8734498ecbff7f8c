"""Batched writes: the orders of many requests (hold, check, settle, release, renew) as one set, with one commit.

On PostgreSQL a set is one call of the function in sql/charge_set_v*.sql. On SQLite, charging.py writes the orders one
by one; so it does on PostgreSQL for orders that the function does not write (the hold is gone, the member was deleted,
the cost exceeds the hold). tests/quotas/test_sets.py holds both implementations to the same contract.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

import msgspec
from django.db import connection, transaction

from accounts.keys import Presented, find_key, usable_key
from accounts.spending import REFUSAL_STATUS
from core import origin
from core.errors import InsufficientQuota, KeyLimitReached, KeyRefused, QuotaError
from core.ids import hex_ids_at
from quotas import charging
from quotas.charge_set import CALL_SQL, ChargeSetRow, SetEntry, values_of
from quotas.charging import HOLD_LIFETIME_S, Call

T_co = TypeVar("T_co", covariant=True)


class Order(msgspec.Struct, Generic[T_co], frozen=True, kw_only=True):
    """One write in a set, with an outcome of type T_co. An owed order is retried while the database is away."""

    is_owed: ClassVar[bool] = False


class Held(msgspec.Struct, frozen=True):
    """Outcome of a HoldOrder: the amount on hold."""

    amount_nanos: int


class Settled(msgspec.Struct, frozen=True):
    """Outcome of a SettleOrder: the charged cost, and what the wallet had available after it."""

    cost_nanos: int
    available_nanos: int


class HoldOrder(Order[Held], frozen=True, kw_only=True):
    """Hold as much as wallet and key have available, between `least_nanos` and `most_nanos`.

    `usual_nanos` and a `most_nanos` of 0 are as in charging.hold_for_key. `details` are written with a refusal.

    Refused with KeyRefused, InsufficientQuota or KeyLimitReached; the refusal of a known key is logged. `request_id`
    must be new: the SQL function does not look for an earlier hold or settlement with the same id.
    """

    request_id: UUID
    presented: Presented
    model: str
    address: str | None
    least_nanos: int
    most_nanos: int
    usual_nanos: int = 0
    details: dict[str, Any] = msgspec.field(default_factory=dict)
    # Greater than zero, which tells a hold of nothing from a check.
    lifetime_s: int = HOLD_LIFETIME_S
    # Holds and checks share the function's "asked" parameters; these two are fields of checks only.
    status: ClassVar[int] = 0
    code: ClassVar[str] = ""


class CheckOrder(Order[list[str]], frozen=True, kw_only=True):
    """Check an API key without holding. The outcome lists the models that it is limited to; empty means all.

    Refused with KeyRefused. A `code` logs an Error record, with `details`, for a request that the relay refused before
    its hold.
    """

    request_id: UUID
    presented: Presented
    address: str | None
    model: str = ""
    status: int = 0
    code: str = ""
    details: dict[str, Any] = msgspec.field(default_factory=dict)
    # The function's "asked" parameters that only holds use.
    usual_nanos: ClassVar[int] = 0
    least_nanos: ClassVar[int] = 0
    most_nanos: ClassVar[int] = 0
    lifetime_s: ClassVar[int] = 0


class SettleOrder(Order[Settled], frozen=True, kw_only=True):
    """Charge a request its cost and release the rest of its hold, as charging.settle does.

    `presented`, when known, is the API key that held: WalletHints may then spare the look-up of its wallet.
    """

    space_id: int
    request_id: UUID
    cost_nanos: int
    call: Call
    presented: Presented | None = None
    is_owed: ClassVar[bool] = True


class ReleaseOrder(Order[bool], frozen=True, kw_only=True):
    """End a hold without a charge and log the reason, as charging.release does. `presented` is as in SettleOrder."""

    space_id: int
    request_id: UUID
    call: Call
    presented: Presented | None = None
    cost_nanos: ClassVar[int] = 0
    is_owed: ClassVar[bool] = True


class RenewOrder(Order[bool], frozen=True, kw_only=True):
    """Extend a hold's expiry and note the cost of its answer so far, as charging.renew does."""

    space_id: int
    request_id: UUID
    delivered_bytes: int
    accrued_nanos: int
    lifetime_s: int = HOLD_LIFETIME_S


def write_set(orders: Sequence[Order[Any]], wallets: WalletHints | None = None) -> list[Any]:
    """Write all orders and return the outcome of each, in the same sequence: its result, or the QuotaError.

    An order that was refused moves no money. Everything is committed when this returns. `wallets` carries hints from
    earlier sets and is updated. Raises DatabaseError when the whole set was rolled back; the caller can then find the
    order at fault with write_one.
    """
    if connection.vendor == "postgresql":
        gathered = ChargeSet(orders, {} if wallets is None else wallets)
        with connection.cursor() as cursor:
            cursor.execute(ChargeSet.STATEMENT, gathered.values)
            outcomes = gathered.outcomes(cursor.fetchall())
        return [
            write_one(order) if outcome is NOT_WRITTEN else outcome
            for order, outcome in zip(orders, outcomes, strict=True)
        ]
    # Settlements and releases come first, so that later holds can use the money that they free.
    places = sorted(range(len(orders)), key=lambda place: isinstance(orders[place], HoldOrder | CheckOrder))
    with transaction.atomic():
        by_place = {place: write_one(orders[place]) for place in places}
    return [by_place[place] for place in range(len(orders))]


@transaction.atomic
def write_one(order: Order[Any]) -> Any:
    """Write one order and return its outcome as write_set does. Idempotent: a retry after a lost reply is safe."""
    try:
        with transaction.atomic():
            return _write_order(order)
    except QuotaError as refusal:
        if isinstance(order, HoldOrder) or (isinstance(order, CheckOrder) and (order.model or order.code)):
            _log_refusal(order, refusal.code, REFUSAL_STATUS.get(refusal.code, 400), figures=_figures(refusal))
        return refusal


def _write_order(order: Order[Any]) -> Any:
    match order:
        case HoldOrder():
            hold, _key = charging.hold_for_key(
                request_id=order.request_id,
                presented=order.presented,
                model=order.model,
                address=order.address,
                least_nanos=order.least_nanos,
                most_nanos=order.most_nanos,
                usual_nanos=order.usual_nanos,
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


def _figures(refusal: QuotaError) -> dict[str, int]:
    """The figures of a refusal that a page shows: limit, spent, available and amount, in nanos."""
    if not isinstance(refusal, InsufficientQuota | KeyLimitReached):
        return {}
    return {name: getattr(refusal, name) for name in ("limit", "spent", "available", "amount")}


def _log_refusal(
    order: HoldOrder | CheckOrder, code: str, status: int, *, figures: Mapping[str, int] | None = None
) -> None:
    # An unknown key belongs to no space, so there is no log to write its refusal to.
    if key := find_key(order.presented):
        details = order.details | dict(figures or {})
        call = Call(model=order.model, key_id=key.pk, key_name=key.name, status=status, code=code, details=details)
        charging.log_refusal(request_id=order.request_id, user=key.user, call=call)


# Outcome of an order that the set did not write; the caller must pass it to write_one.
NOT_WRITTEN = object()

KeyOrder = HoldOrder | CheckOrder | SettleOrder | ReleaseOrder
# API key → wallet id, only to lock wallets without looking them up. The SQL checks it again under the lock.
# When it is full, a set clears the whole cache, which then fills again.
WalletHints = dict[Presented, str]
MAX_WALLET_HINTS = 20_000


class ChargeSet:
    """A set as one call of the PostgreSQL function: `values` are its parameters, `outcomes` reads its rows."""

    STATEMENT: ClassVar[str] = CALL_SQL

    def __init__(self, orders: Sequence[Order[Any]], wallets: WalletHints) -> None:
        self.orders = orders
        self._wallets = wallets
        at = origin.now()
        settled, asked, renewed = self._entries(hex_ids_at(at, len(orders)))
        keys = {order.presented for order in orders if isinstance(order, KeyOrder)}
        known = [wallet for key in keys if key is not None and (wallet := wallets.get(key))]
        self.values: dict[str, Any] = values_of(
            moment=at,
            wallets=known,
            are_all=len(known) == len(keys),
            settled=settled,
            asked=asked,
            renewed=renewed,
        )

    def outcomes(self, rows: Iterable[tuple[Any, ...]]) -> list[Any]:
        answers = {answer.place: answer for answer in map(ChargeSetRow._make, rows)}
        for place, order in enumerate(self.orders):
            if isinstance(order, HoldOrder | CheckOrder):
                self._learn(order.presented, answers.get(place))
        return [_outcome(order, answers.get(place)) for place, order in enumerate(self.orders)]

    def _learn(self, presented: Presented, answer: ChargeSetRow | None) -> None:
        if answer is None:
            self._wallets.pop(presented, None)
        elif answer.spent_from is not None:
            if len(self._wallets) >= MAX_WALLET_HINTS:
                self._wallets.clear()
            self._wallets[presented] = answer.spent_from

    def _entries(self, records: Sequence[str]) -> tuple[list[SetEntry], list[SetEntry], list[SetEntry]]:
        settled: dict[UUID, SetEntry] = {}
        asked: list[SetEntry] = []
        renewed: dict[UUID, SetEntry] = {}
        for entry in map(SetEntry, range(len(self.orders)), records, self.orders):
            match entry.order:
                # Only the first per request; a second is NOT_WRITTEN, as one statement would charge the hold for both.
                case SettleOrder() | ReleaseOrder():
                    settled.setdefault(entry.order.request_id, entry)
                case HoldOrder() | CheckOrder():
                    asked.append(entry)
                case RenewOrder():
                    renewed[entry.order.request_id] = entry
        return list(settled.values()), asked, list(renewed.values())


OUTCOME_ALLOWED = "allowed"


def _outcome(order: Order[Any], answer: ChargeSetRow | None) -> Any:
    match order:
        case RenewOrder():
            return answer is not None
        case SettleOrder() if answer:
            return Settled(answer.nanos, answer.free_nanos)
        case ReleaseOrder() if answer:
            return True
        case HoldOrder() if answer and answer.outcome == OUTCOME_ALLOWED:
            return Held(answer.nanos)
        case CheckOrder() if answer and answer.outcome == OUTCOME_ALLOWED:
            return json.loads(answer.models)
    return NOT_WRITTEN if answer is None else _refusal(answer)


def _refusal(answer: ChargeSetRow) -> QuotaError:
    too_little = {each.code: each for each in (InsufficientQuota, KeyLimitReached)}.get(answer.outcome)
    if too_little is None:
        return KeyRefused(answer.outcome)
    return too_little(
        available=answer.free_nanos, amount=answer.nanos, spent=answer.spent_nanos, limit=answer.limit_nanos
    )
