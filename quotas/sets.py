"""What many requests want of the books at once, written as one set: one transaction, one commit.

On PostgreSQL a set is one call of the function in sql/charge_set_v*.sql; on SQLite, and for what the function leaves
(a hold that is gone, a deleted member's, a cost beyond the hold), the same is done one by one by charging.py. One suite
of tests holds both to one contract: tests/quotas/test_sets.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
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
    # A hold brings no refusal with it.
    status: ClassVar[int] = 0
    code: ClassVar[str] = ""


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
    # A check holds nothing.
    least_nanos: ClassVar[int] = 0
    most_nanos: ClassVar[int] = 0
    lifetime_s: ClassVar[int] = 0


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
    cost_nanos: ClassVar[int] = 0
    is_owed: ClassVar[bool] = True


class RenewOrder(Order[bool], frozen=True, kw_only=True):
    """Keep a hold alive and note what its answer has come to, as charging.renew does."""

    space_id: int
    request_id: UUID
    delivered_bytes: int
    accrued_nanos: int
    lifetime_s: int = HOLD_LIFETIME_S


def write_set(orders: Sequence[Order[Any]], wallets: WalletHints | None = None) -> list[Any]:
    """The outcome of each order, in their order: its result, or the QuotaError that refused it and wrote nothing.

    Durable when it returns. `wallets` is what earlier sets have learnt, and learns from this one. Raises DatabaseError
    when the set was not written; write_one then tells which.
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


# The outcome of an order that the function left to be done one by one.
NOT_WRITTEN = object()

KeyOrder = HoldOrder | CheckOrder | SettleOrder | ReleaseOrder
# API key → wallet id, only to lock wallets without looking them up. The SQL checks it again under the lock.
WalletHints = dict[Presented, str]
MAX_WALLET_HINTS = 20_000


class ChargeSet:
    """Orders as one call of PostgreSQL's function: its values, and its rows as outcomes."""

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
        """The outcome of each order, as write_set has it; NOT_WRITTEN where the function did nothing."""
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
        """Settlements and releases, holds and checks, renewals."""
        settled: dict[UUID, SetEntry] = {}
        asked: list[SetEntry] = []
        renewed: dict[UUID, SetEntry] = {}
        for entry in map(SetEntry, range(len(self.orders)), records, self.orders):
            match entry.order:
                # A second one of the same request is left: the function would see the hold under both.
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
