"""Hold, renew, settle, release and sweep: how a request changes wallets. Transfers are in services.py.

On PostgreSQL the relay's sets are written by the SQL function rendered in charge_set.py.

A hold's id is the request's id and the idempotency key of every step, so a repeat moves no money. Each step is one
transaction that locks the wallet first and decides under that lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import F, Q, Value
from django.db.models.functions import Greatest, Least

from accounts.keys import Presented, usable_key
from accounts.models import ApiKey, User
from accounts.spending import FUNDS_RULES, OWNER_RULES, Funds, Owner, first_refusal
from core import origin
from core.errors import (
    HoldUnknown,
    InsufficientQuota,
    KeyLimitReached,
    NotSpending,
    QuotaError,
)
from core.ids import NIL, moment_of
from core.money import MAX_AMOUNT_NANOS
from quotas.models import Hold, Wallet
from quotas.records import Call, write_record
from quotas.services import lock, return_free
from usage.models import MIN_KEPT_DAYS, UsageRecord

# Callers import Call from here, with the functions that take one.
__all__ = ["Call"]

log = structlog.get_logger(__name__)

HOLD_LIFETIME_S = 60
# `UsageRecord.code` of a record that the sweep wrote.
SWEPT = "hold_expired"


@transaction.atomic
def hold_for_key(
    *,
    request_id: UUID,
    presented: Presented,
    model: str,
    address: str | None,
    least_nanos: int,
    most_nanos: int,
    usual_nanos: int = 0,
    lifetime_s: int = HOLD_LIFETIME_S,
) -> tuple[Hold, ApiKey]:
    """Hold as much as wallet and key have available, between `least_nanos` and `most_nanos`.

    With `usual_nanos`, hold no more than that or a quarter of what is available, whichever is more, so that one request
    does not take all. Where `most_nanos` is 0 (a free model), hold nothing, whatever wallet and key have.

    Raises KeyRefused when the key may not be used, and whatever `hold` raises when less than `least_nanos` is
    available.
    """
    key = usable_key(presented, address=address, model=model)
    wallet = _spending_wallet(key.user)
    key.refresh_from_db(fields=["limit", "spent", "held"])
    key_free = _key_free(key)
    reachable = wallet.available if key_free is None else min(wallet.available, key_free)
    if usual_nanos:
        reachable = min(reachable, max(usual_nanos, reachable // 4))
    call = Call(model=model, key_id=key.pk, key_name=key.name)
    amount = min(most_nanos, max(least_nanos, reachable))
    made, _is_new = hold(request_id=request_id, user=key.user, amount_nanos=amount, call=call, lifetime_s=lifetime_s)
    return made, key


@transaction.atomic
def hold(
    *, request_id: UUID, user: User, amount_nanos: int, call: Call, lifetime_s: int = HOLD_LIFETIME_S
) -> tuple[Hold, bool]:
    """Set money aside for a request. Returns (hold, True), or (existing hold, False) when this request already holds.

    Raises InsufficientQuota or KeyLimitReached with the available amount, and NotSpending when the user or space may
    not spend. Raises HoldUnknown when this request was settled before, when another user's hold has this id, and when
    the id is so old that the record of an earlier settlement may have been pruned.
    """
    if amount_nanos < 0:
        raise QuotaError("a hold must not be negative")
    wallet = _spending_wallet(user)
    if earlier := Hold.objects.filter(space=user.space_id, pk=request_id).first():
        if earlier.user_id != user.pk:
            raise HoldUnknown(request_id)
        return earlier, False
    if _may_be_pruned(request_id):
        raise HoldUnknown(request_id)
    # The error record of a refused request has held=0; it must not prevent a retry with the same id.
    was_held = Q(held__gt=0) | Q(kind=UsageRecord.Kind.CONSUME)
    if UsageRecord.objects.filter(was_held, space=user.space_id, request_id=request_id).exists():
        raise HoldUnknown(request_id)
    if amount_nanos:
        _check_funds(wallet, call.key_id, amount_nanos)
    _shift_key(wallet, call.key_id, held=amount_nanos, spent=0)
    _shift_wallet(wallet, held=amount_nanos, spent=0)
    now = origin.now()
    made = Hold.objects.create(
        id=request_id,
        space_id=wallet.space_id,
        wallet=wallet,
        user_id=user.pk,
        key_id=call.key_id,
        key_name=call.key_name,
        model=call.model,
        amount=amount_nanos,
        created_at=now,
        expires_at=now + timedelta(seconds=lifetime_s),
    )
    return made, True


def renew(
    *, space_id: int, request_id: UUID, delivered_bytes: int, accrued_nanos: int, lifetime_s: int = HOLD_LIFETIME_S
) -> bool:
    """Extend a hold's expiry and note the cost of its answer so far. False when the hold is gone (settled or swept).

    Renewals may arrive out of order: `delivered_bytes` and `accrued` only grow, and `accrued` stops at the hold.
    """
    return bool(
        Hold.objects.filter(space=space_id, pk=request_id).update(
            delivered_bytes=Greatest(F("delivered_bytes"), Value(delivered_bytes)),
            accrued=Greatest(F("accrued"), Least(Value(accrued_nanos), F("amount"))),
            expires_at=origin.now() + timedelta(seconds=lifetime_s),
        )
    )


@transaction.atomic
def settle(*, space_id: int, request_id: UUID, cost_nanos: int, call: Call) -> UsageRecord:
    """Charge a request its cost and release the rest of its hold.

    A cost beyond the hold is charged as far as the wallet and the key's limit go; the uncharged rest is the record's
    shortfall. A repeat returns the first record. After a sweep, only the cost that the sweep did not charge is charged.
    Raises HoldUnknown when there is neither a hold nor a usage record with this id.

    A cost above MAX_AMOUNT_NANOS, which no wallet can exceed, is reduced to it.
    """
    if cost_nanos < 0:
        raise QuotaError("a cost must not be negative")
    cost_nanos = min(cost_nanos, MAX_AMOUNT_NANOS)
    locked = _lock_hold(space_id, request_id)
    if locked is None:
        return _settle_late(space_id, request_id, cost_nanos, call)
    return _close_hold(locked, cost_nanos, call)


@transaction.atomic
def release(*, space_id: int, request_id: UUID, call: Call | None = None) -> bool:
    """End a hold without a charge; with `call`, log an Error record. False when the hold is gone, as on a repeat."""
    locked = _lock_hold(space_id, request_id)
    if locked is None:
        return False
    _free_hold(locked, 0)
    if call is not None:
        write_record(locked.wallet, locked.hold, 0, 0, call)
    _return_rest(locked)
    return True


@transaction.atomic
def log_refusal(*, request_id: UUID, user: User, call: Call) -> None:
    wallet = Wallet.objects.select_for_update(no_key=True).get(spent_by(user))
    if not UsageRecord.objects.filter(space=wallet.space_id, request_id=request_id).exists():
        # Stands for the hold that a refused request never had.
        none = Hold(
            id=request_id, user_id=user.pk, key_id=call.key_id, key_name=call.key_name, model=call.model, amount=0
        )
        write_record(wallet, none, 0, 0, call)


def expire_holds(*, now: datetime | None = None, max_holds: int = 1000) -> int:
    """Sweep expired holds: charge what they had accrued and release the rest. Returns the number of swept holds.

    Safe to run concurrently: a hold is checked again under its wallet's lock, so only one worker sweeps it.
    """
    now = now or origin.now()
    due = Hold.objects.filter(expires_at__lte=now).order_by("expires_at").values_list("space_id", "pk")
    return sum(_sweep(space_id, request_id, now) for space_id, request_id in list(due[:max_holds]))


@transaction.atomic
def _sweep(space_id: int, request_id: UUID, now: datetime) -> bool:
    locked = _lock_hold(space_id, request_id)
    if locked is None or locked.hold.expires_at > now:
        return False
    held = locked.hold
    call = Call(model=held.model, key_id=held.key_id, key_name=held.key_name, status=504, code=SWEPT, is_estimated=True)
    _close_hold(locked, held.accrued, call)
    log.warning("hold_swept", space=space_id, request=str(request_id), charged_nanos=held.accrued)
    return True


@dataclass(frozen=True)
class _LockedHold:
    """A hold and its locked wallet. `pool` is set and locked when the wallet is closed: the rest returns to it."""

    hold: Hold
    wallet: Wallet
    pool: Wallet | None


class _ClosedWalletError(Exception):
    """The locked wallet belongs to a deleted member, so the pool must be locked with it, in id order."""


def spent_by(user: User) -> Q:
    """The wallet that the user spends from: a manager from the pool, everybody else from their own."""
    owner = Q(kind=Wallet.Kind.POOL) if user.is_manager else Q(user=user)
    return owner & Q(space=user.space_id)


def _spending_wallet(user: User) -> Wallet:
    wallet = Wallet.objects.select_for_update(no_key=True).filter(spent_by(user)).first()
    if wallet is None:
        raise NotSpending
    # Reload under the lock: `user` may have been read before they were disabled or deleted, or the space suspended.
    owner = User.objects.select_related("space").filter(pk=user.pk).first()
    if owner is None or owner.space is None or first_refusal(OWNER_RULES, Owner(owner, owner.space)):
        raise NotSpending
    return wallet


def _lock_hold(space_id: int, request_id: UUID) -> _LockedHold | None:
    wallet_id = Hold.objects.filter(space=space_id, pk=request_id).values_list("wallet_id", flat=True).first()
    if wallet_id is None:
        return None
    wallet, pool = _lock_wallet(space_id, wallet_id)
    # Read under the wallet's lock: it may have been settled, released or swept meanwhile.
    held = Hold.objects.filter(space=space_id, pk=request_id).first()
    return _LockedHold(held, wallet, pool) if held else None


def _lock_wallet(space_id: int, wallet_id: UUID) -> tuple[Wallet, Wallet | None]:
    try:
        with transaction.atomic():
            wallet = lock(space_id, wallet_id)[wallet_id]
            if wallet.is_closed:
                raise _ClosedWalletError
            return wallet, None
    except _ClosedWalletError:
        # Rolling back to the savepoint released the wallet's lock, so both can be locked in id order: no deadlock.
        pool_id = Wallet.objects.values_list("pk", flat=True).get(space=space_id, kind=Wallet.Kind.POOL)
        both = lock(space_id, pool_id, wallet_id)
        return both[wallet_id], both[pool_id]


def _close_hold(locked: _LockedHold, cost_nanos: int, call: Call) -> UsageRecord:
    charged = min(cost_nanos, locked.hold.amount + _reachable(locked.wallet, locked.hold.key_id))
    _free_hold(locked, charged)
    record = write_record(locked.wallet, locked.hold, charged, cost_nanos - charged, call)
    _return_rest(locked)
    return record


def _free_hold(locked: _LockedHold, charged: int) -> None:
    _shift_wallet(locked.wallet, held=-locked.hold.amount, spent=charged)
    _shift_key(locked.wallet, locked.hold.key_id, held=-locked.hold.amount, spent=charged)
    Hold.objects.filter(space=locked.hold.space_id, pk=locked.hold.pk).delete()


def _return_rest(locked: _LockedHold) -> None:
    if locked.pool is not None:
        member = User.everyone.get(pk=locked.hold.user_id)
        key = f"release:{locked.hold.pk}"
        return_free(pool=locked.pool, wallet=locked.wallet, member=member, actor=None, key=key)


def _may_be_pruned(request_id: UUID) -> bool:
    # A request id of version 7 tells the request's age.
    return request_id.version == 7 and moment_of(request_id) < origin.now() - timedelta(days=MIN_KEPT_DAYS)


def _settle_late(space_id: int, request_id: UUID, cost_nanos: int, call: Call) -> UsageRecord:
    """Settle a request whose hold is gone.

    Settled before: return that record. Swept: charge the difference to what the sweep charged, as far as the wallet
    and the key's limit go. No record, for instance because it was pruned: raise HoldUnknown.
    """
    records = UsageRecord.objects.filter(space=space_id, request_id=request_id)
    first = records.first()
    if first is None:
        raise HoldUnknown(request_id)
    wallet, _pool = _lock_wallet(space_id, first.wallet_id)
    # Found by code, not as the newest record: clock skew can date the sweep's record after the settlement's.
    if settled := records.exclude(code=SWEPT).first():
        return settled
    due = max(0, cost_nanos - first.cost)
    charged = min(due, _reachable(wallet, first.key_id))
    _shift_wallet(wallet, held=0, spent=charged)
    _shift_key(wallet, first.key_id, held=0, spent=charged)
    gone = Hold(
        id=request_id,
        space_id=space_id,
        wallet=wallet,
        user_id=first.user_id,
        key_id=first.key_id,
        key_name=first.key_name,
        model=first.model,
        amount=0,
    )
    return write_record(wallet, gone, charged, due - charged, call)


def _shift_wallet(wallet: Wallet, *, held: int, spent: int) -> None:
    Wallet.objects.filter(space=wallet.space_id, pk=wallet.pk).update(held=F("held") + held, spent=F("spent") + spent)
    wallet.held += held
    wallet.spent += spent


def _key_of(wallet: Wallet, key_id: UUID) -> ApiKey | None:
    # Read under the wallet's lock, which also serialises the limits of its owner's keys.
    return None if key_id == NIL else ApiKey.with_deleted.get(space=wallet.space_id, pk=key_id)


def _reachable(wallet: Wallet, key_id: UUID) -> int:
    """What may still be charged: the wallet's available amount, but no more than the key's limit leaves."""
    key = _key_of(wallet, key_id)
    key_free = None if key is None else _key_free(key)
    return wallet.available if key_free is None else max(0, min(wallet.available, key_free))


def _check_funds(wallet: Wallet, key_id: UUID, amount_nanos: int) -> None:
    key = _key_of(wallet, key_id)
    key_free = None if key is None else _key_free(key)
    code = first_refusal(FUNDS_RULES, Funds(amount_nanos, wallet.available, key_free))
    if code == KeyLimitReached.code and key is not None and key.limit is not None:
        available = max(0, key_free or 0)
        raise KeyLimitReached(available=available, amount=amount_nanos, spent=key.spent, limit=key.limit)
    if code is not None:
        raise InsufficientQuota(available=wallet.available, amount=amount_nanos, spent=wallet.spent, limit=wallet.total)


def _key_free(key: ApiKey) -> int | None:
    return None if key.limit is None else key.limit - key.spent - key.held


def _shift_key(wallet: Wallet, key_id: UUID, *, held: int, spent: int) -> None:
    if key_id != NIL:
        ApiKey.with_deleted.filter(space=wallet.space_id, pk=key_id).update(
            held=F("held") + held, spent=F("spent") + spent, last_used_at=origin.now()
        )
