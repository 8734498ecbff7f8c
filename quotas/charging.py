"""Hold, renew, settle, release, expire: what a request does to a wallet. With services.py the only writers of balances.

A hold's id is the request's id and the key of every step's idempotency: a repeat moves nothing. Each step is one
transaction; the wallet is locked first, and everything is decided under that lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
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
from core.ids import NIL, id_at, moment_of
from core.money import MAX_AMOUNT_NANOS
from quotas.models import Hold, Wallet
from quotas.services import lock, return_free
from usage.aggregates import of_record
from usage.models import LEAST_KEPT_DAYS, HourlyUsage, UsageRecord
from usage.quarters import reopen

log = structlog.get_logger(__name__)

HOLD_LIFETIME_S = 60
SWEPT = "hold_expired"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What the log keeps of a request beside its money. Model and key are those it was held with."""

    model: str
    key_id: UUID = NIL
    key_name: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    images: int = 0
    seconds: int = 0
    price: dict[str, Any] = msgspec.field(default_factory=dict)
    duration_ms: int = 0
    first_token_ms: int | None = None
    status: int = 200
    code: str = ""
    is_estimated: bool = False


@transaction.atomic
def hold_for_key(
    *,
    request_id: UUID,
    presented: Presented,
    model: str,
    address: str | None,
    least_nanos: int,
    most_nanos: int,
    lifetime_s: int = HOLD_LIFETIME_S,
) -> tuple[Hold, ApiKey]:
    """Hold for the request of a key as much as there is, from `least_nanos` to `most_nanos`.

    Raises KeyRefused with the code that stops it, and what `hold` raises when even the least is not there.
    """
    key = usable_key(presented, address=address, model=model)
    wallet = _spending_wallet(key.user)
    key.refresh_from_db(fields=["limit", "spent", "held"])
    key_free = _free_of_key(key)
    free = wallet.available if key_free is None else min(wallet.available, key_free)
    call = Call(model=model, key_id=key.pk, key_name=key.name)
    amount = min(most_nanos, max(least_nanos, free))
    made, _is_new = hold(request_id=request_id, user=key.user, amount_nanos=amount, call=call, lifetime_s=lifetime_s)
    return made, key


@transaction.atomic
def hold(
    *, request_id: UUID, user: User, amount_nanos: int, call: Call, lifetime_s: int = HOLD_LIFETIME_S
) -> tuple[Hold, bool]:
    """Set money aside for a request: (hold, True), or (the first one, False) when this id already holds.

    Raises InsufficientQuota or KeyLimitReached with what is free, NotSpending when user or space may not spend,
    HoldUnknown when a request of this id was settled before, or may have been: it is as old as rows that are pruned.
    """
    if amount_nanos <= 0:
        raise QuotaError("a hold is more than nothing")
    wallet = _spending_wallet(user)
    if earlier := Hold.objects.filter(space=user.space_id, pk=request_id).first():
        if earlier.user_id != user.pk:
            raise HoldUnknown(request_id)
        return earlier, False
    if _is_forgotten(request_id):
        raise HoldUnknown(request_id)
    # A refusal's row held nothing, and does not stand in the way of a second try.
    if UsageRecord.objects.filter(space=user.space_id, request_id=request_id, held__gt=0).exists():
        raise HoldUnknown(request_id)
    _check_funds(wallet, call.key_id, amount_nanos)
    _shift_key(wallet, call.key_id, held=amount_nanos, spent=0)
    _shift(wallet, held=amount_nanos, spent=0)
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
    """Keep a hold alive and note what its answer has come to; False when it is gone (settled or swept).

    What was delivered only grows, in whatever order renewals arrive, and accrues up to the hold at most.
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
    """Charge a request what it cost and let go of the rest of its hold.

    Beyond the hold it charges as far as the wallet's available goes; the rest is the record's shortfall. A repeat
    returns the first record. After a sweep it charges what the sweep had not. Raises HoldUnknown.

    No wallet holds more than MAX_AMOUNT_NANOS, so a cost beyond that is taken as that much.
    """
    if cost_nanos < 0:
        raise QuotaError("a cost is not negative")
    cost_nanos = min(cost_nanos, MAX_AMOUNT_NANOS)
    locked = _lock_hold(space_id, request_id)
    if locked is None:
        return _settle_late(space_id, request_id, cost_nanos, call)
    return _close(locked, cost_nanos, call)


@transaction.atomic
def release(*, space_id: int, request_id: UUID, call: Call | None = None) -> bool:
    """Let go of a hold without a charge; with `call` the log gets an Error row. A repeat does nothing: False."""
    locked = _lock_hold(space_id, request_id)
    if locked is None:
        return False
    _free(locked, 0)
    if call is not None:
        _log(locked.wallet, locked.hold, 0, 0, call)
    _return_rest(locked)
    return True


@transaction.atomic
def log_refusal(*, request_id: UUID, user: User, call: Call) -> None:
    """An Error row for a request that was refused before it held anything. A repeat writes nothing."""
    wallet = Wallet.objects.select_for_update(no_key=True).get(_spent_by(user))
    if not UsageRecord.objects.filter(space=wallet.space_id, request_id=request_id).exists():
        none = Hold(
            id=request_id, user_id=user.pk, key_id=call.key_id, key_name=call.key_name, model=call.model, amount=0
        )
        _log(wallet, none, 0, 0, call)


def expire_holds(*, now: datetime | None = None, most: int = 1000) -> int:
    """Sweep holds that nobody renewed: charge what they had accrued, release the rest. Returns how many.

    Any number of sweepers may run at once; each hold is swept by one of them.
    """
    now = now or origin.now()
    due = Hold.objects.filter(expires_at__lte=now).order_by("expires_at").values_list("space_id", "pk")
    return sum(_sweep(space_id, request_id, now) for space_id, request_id in list(due[:most]))


@transaction.atomic
def _sweep(space_id: int, request_id: UUID, now: datetime) -> bool:
    locked = _lock_hold(space_id, request_id)
    if locked is None or locked.hold.expires_at > now:
        return False
    held = locked.hold
    call = Call(model=held.model, key_id=held.key_id, key_name=held.key_name, status=504, code=SWEPT, is_estimated=True)
    _close(locked, held.accrued, call)
    log.warning("hold_swept", space=space_id, request=str(request_id), charged_nanos=held.accrued)
    return True


@dataclass(frozen=True)
class _Locked:
    """A hold with its wallet locked; and the pool, where the wallet is a deleted member's and its rest goes back."""

    hold: Hold
    wallet: Wallet
    pool: Wallet | None


class _ClosedError(Exception):
    """The wallet turned out to be a deleted member's: the pool must be locked before it."""


def wallet_id_of(user: User) -> UUID:
    """Of the wallet that this user spends from: the manager's is the pool."""
    return Wallet.objects.values_list("pk", flat=True).get(_spent_by(user))


def _spent_by(user: User) -> Q:
    owner = Q(kind=Wallet.Kind.POOL) if user.is_manager else Q(user=user)
    return owner & Q(space=user.space_id)


def _spending_wallet(user: User) -> Wallet:
    """The locked wallet that this user spends from: the manager's is the pool. Raises NotSpending."""
    wallet = Wallet.objects.select_for_update(no_key=True).filter(_spent_by(user)).first()
    if wallet is None:
        raise NotSpending
    # Read again under the lock: what `user` carries may be older than the act that disabled them.
    owner = User.objects.select_related("space").filter(pk=user.pk).first()
    if owner is None or owner.space is None or first_refusal(OWNER_RULES, Owner(owner, owner.space)):
        raise NotSpending
    return wallet


def _lock_hold(space_id: int, request_id: UUID) -> _Locked | None:
    """The hold under its wallet's lock, or None when it has been settled, released or swept."""
    wallet_id = Hold.objects.filter(space=space_id, pk=request_id).values_list("wallet_id", flat=True).first()
    if wallet_id is None:
        return None
    wallet, pool = _lock_wallet(space_id, wallet_id)
    held = Hold.objects.filter(space=space_id, pk=request_id).first()
    return _Locked(held, wallet, pool) if held else None


def _lock_wallet(space_id: int, wallet_id: UUID) -> tuple[Wallet, Wallet | None]:
    try:
        with transaction.atomic():
            wallet = lock(space_id, wallet_id)[wallet_id]
            if wallet.is_closed:
                raise _ClosedError
            return wallet, None
    except _ClosedError:
        # Going back to the savepoint let go of the wallet, so both are now locked in id order.
        pool_id = Wallet.objects.values_list("pk", flat=True).get(space=space_id, kind=Wallet.Kind.POOL)
        both = lock(space_id, pool_id, wallet_id)
        return both[wallet_id], both[pool_id]


def _close(locked: _Locked, cost_nanos: int, call: Call) -> UsageRecord:
    """End a hold with a charge: the balance, the log row and the roll-up; what is left goes free."""
    charged = min(cost_nanos, locked.hold.amount + locked.wallet.available)
    _free(locked, charged)
    record = _log(locked.wallet, locked.hold, charged, cost_nanos - charged, call)
    _return_rest(locked)
    return record


def _free(locked: _Locked, charged: int) -> None:
    _shift(locked.wallet, held=-locked.hold.amount, spent=charged)
    _shift_key(locked.wallet, locked.hold.key_id, held=-locked.hold.amount, spent=charged)
    Hold.objects.filter(space=locked.hold.space_id, pk=locked.hold.pk).delete()


def _return_rest(locked: _Locked) -> None:
    if locked.pool is not None:
        member = User.everyone.get(pk=locked.hold.user_id)
        key = f"release:{locked.hold.pk}"
        return_free(pool=locked.pool, wallet=locked.wallet, member=member, actor=None, key=key)


def _is_forgotten(request_id: UUID) -> bool:
    """Whether the row that would tell of an earlier settlement may have been pruned, by the age of the id."""
    return request_id.version == 7 and moment_of(request_id) < origin.now() - timedelta(days=LEAST_KEPT_DAYS)


def _settle_late(space_id: int, request_id: UUID, cost_nanos: int, call: Call) -> UsageRecord:
    """The hold is gone. Settled before: that record. Swept: charge what is available of what the sweep had not.

    So late that its rows are pruned: HoldUnknown, and nothing moves.
    """
    records = UsageRecord.objects.filter(space=space_id, request_id=request_id)
    first = records.first()
    if first is None:
        raise HoldUnknown(request_id)
    wallet, _pool = _lock_wallet(space_id, first.wallet_id)
    # By code and not by order: the sweeper's clock may have been ahead of ours.
    if settled := records.exclude(code=SWEPT).first():
        return settled
    due = max(0, cost_nanos - first.cost)
    charged = min(due, wallet.available)
    _shift(wallet, held=0, spent=charged)
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
    return _log(wallet, gone, charged, due - charged, call)


def _shift(wallet: Wallet, *, held: int, spent: int) -> None:
    """Change a locked wallet's held and spent, in the database by what it holds there, and in `wallet` alike."""
    Wallet.objects.filter(space=wallet.space_id, pk=wallet.pk).update(held=F("held") + held, spent=F("spent") + spent)
    wallet.held += held
    wallet.spent += spent


def _check_funds(wallet: Wallet, key_id: UUID, amount_nanos: int) -> None:
    """Raises InsufficientQuota or KeyLimitReached. The wallet's lock guards the limits of its owner's keys as well."""
    key = None if key_id == NIL else ApiKey.with_deleted.get(space=wallet.space_id, pk=key_id)
    key_free = None if key is None else _free_of_key(key)
    code = first_refusal(FUNDS_RULES, Funds(amount_nanos, wallet.available, key_free))
    if code == KeyLimitReached.code and key is not None and key.limit is not None:
        available = max(0, key_free or 0)
        raise KeyLimitReached(available=available, amount=amount_nanos, spent=key.spent, limit=key.limit)
    if code is not None:
        raise InsufficientQuota(available=wallet.available, amount=amount_nanos, spent=wallet.spent, limit=wallet.total)


def _free_of_key(key: ApiKey) -> int | None:
    """None for a key without a limit."""
    return None if key.limit is None else key.limit - key.spent - key.held


def _shift_key(wallet: Wallet, key_id: UUID, *, held: int, spent: int) -> None:
    if key_id != NIL:
        ApiKey.with_deleted.filter(space=wallet.space_id, pk=key_id).update(
            held=F("held") + held, spent=F("spent") + spent, last_used_at=origin.now()
        )


def _log(wallet: Wallet, held: Hold, charged: int, shortfall: int, call: Call) -> UsageRecord:
    """The log row and the roll-up of one charge, in its transaction, so that logs and wallets cannot disagree."""
    at = origin.now()
    record = UsageRecord.objects.create(
        id=id_at(at),
        space_id=wallet.space_id,
        wallet_id=wallet.pk,
        user_id=held.user_id,
        username=User.everyone.values_list("username", flat=True).get(pk=held.user_id),
        kind=UsageRecord.Kind.CONSUME if charged or call.status < 400 else UsageRecord.Kind.ERROR,
        request_id=held.pk,
        held=held.amount,
        cost=charged,
        shortfall=shortfall,
        available_after=wallet.available,
        **msgspec.structs.asdict(call) | {"model": held.model, "key_id": held.key_id, "key_name": held.key_name},
    )
    _roll_up(record, at.astimezone(UTC).replace(minute=0, second=0, microsecond=0))
    if origin.current().moment is not None:
        # History is being written: what was closed of it is no longer right.
        reopen(space_id=wallet.space_id, at=at)
    return record


def _roll_up(record: UsageRecord, hour: datetime) -> None:
    """Raise the hour's figures. The wallet's lock keeps others from making the same row meanwhile."""
    place = {
        "space_id": record.space_id,
        "user_id": record.user_id,
        "key_id": record.key_id,
        "model": record.model,
        "hour": hour,
    }
    figures = of_record(record)
    raised = {name: F(name) + value for name, value in figures.items()}
    if not HourlyUsage.objects.filter(**place).update(**raised):
        HourlyUsage.objects.create(**place, **figures)
