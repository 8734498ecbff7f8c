"""Grant, revoke, allocate, reclaim and return: transfers between operator, pool and members.

Only this module, charging.py and the SQL function for sets write balances. Every transfer is one Transfer row. Wallets
are locked in id order, as late as possible, and limits are checked under that lock, never against an earlier read.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import F, Q

from accounts.models import User
from audit.services import record
from core import origin
from core.errors import BelowHeld, InsufficientPool, KeyReused, PoolLimit, QuotaError, StaleTotal, WalletClosed
from core.ids import id_at
from core.money import MAX_AMOUNT_NANOS, format_exact
from quotas.models import Transfer, Wallet
from tenants.models import Space

# Fields of the pool's and the member's wallet that each kind changes, and the sign of the change.
_POOL_EFFECT = {
    Transfer.Kind.GRANT: {"total": +1},
    Transfer.Kind.REVOKE: {"total": -1},
    Transfer.Kind.ALLOCATE: {"allocated": +1},
    Transfer.Kind.RECLAIM: {"allocated": -1},
    Transfer.Kind.RETURN: {"allocated": -1},
}
_MEMBER_EFFECT = {
    Transfer.Kind.ALLOCATE: {"total": +1},
    Transfer.Kind.RECLAIM: {"total": -1},
    Transfer.Kind.RETURN: {"total": -1},
}


def open_pool(*, space: Space) -> Wallet:
    return Wallet.objects.create(space=space, kind=Wallet.Kind.POOL)


def open_wallet(*, member: User) -> Wallet:
    assert member.space is not None
    return Wallet.objects.create(space=member.space, kind=Wallet.Kind.MEMBER, user=member)


@transaction.atomic
def grant(*, space: Space, amount_nanos: int, reason: str, actor: User | None, key: str = "") -> Transfer:
    """Raise a pool's total. `key` is an idempotency key: a repeat moves nothing and returns the first transfer.

    Raises PoolLimit when the total would exceed MAX_AMOUNT_NANOS, KeyReused when the key was used for another transfer.
    """
    return _move_pool_total(
        Transfer.Kind.GRANT, space=space, amount_nanos=amount_nanos, reason=reason, actor=actor, key=key
    )


@transaction.atomic
def revoke(*, space: Space, amount_nanos: int, reason: str, actor: User | None, key: str = "") -> Transfer:
    """Lower a pool's total, by at most what it has available. Raises InsufficientPool, KeyReused."""
    return _move_pool_total(
        Transfer.Kind.REVOKE, space=space, amount_nanos=amount_nanos, reason=reason, actor=actor, key=key
    )


class QuotaChange(NamedTuple):
    """The transfer, None when nothing had to move, and both wallets with their new figures."""

    transfer: Transfer | None
    pool: Wallet
    wallet: Wallet


@transaction.atomic
def set_remaining(
    *, member: User, remaining_nanos: int, actor: User, was_total_nanos: int | None = None, key: str = ""
) -> QuotaChange:
    """Move the difference between pool and member, so that at commit the member's remaining is `remaining_nanos`.

    Writes nothing when there is no difference. Raises InsufficientPool, BelowHeld, KeyReused, WalletClosed, and
    StaleTotal when `was_total_nanos` (optimistic locking) is not the wallet's current total.
    """
    if not 0 <= remaining_nanos <= MAX_AMOUNT_NANOS:
        raise QuotaError(f"remaining must be 0 to {MAX_AMOUNT_NANOS} nanos")
    pool, wallet = _lock_pair(member)
    if key and (done := _earlier_transfer(member.space_id, key)):
        if (done.member_number, done.member_remaining_after) != (member.number, remaining_nanos):
            raise KeyReused(key)
        return QuotaChange(done, pool, wallet)
    if was_total_nanos is not None and wallet.total != was_total_nanos:
        raise StaleTotal(total=wallet.total, remaining=wallet.remaining)
    if remaining_nanos < wallet.held:
        raise BelowHeld(held=wallet.held)
    before = wallet.remaining
    difference = remaining_nanos - before
    if difference == 0:
        return QuotaChange(None, pool, wallet)
    transfer = _move(
        Transfer.Kind.ALLOCATE if difference > 0 else Transfer.Kind.RECLAIM,
        pool=pool,
        wallet=wallet,
        member=member,
        amount_nanos=abs(difference),
        actor=actor,
        key=key,
    )
    record(
        "member.quota_set",
        space=member.space,
        actor=actor,
        target=member,
        before={"remaining": format_exact(before), "total": format_exact(wallet.total - difference)},
        after={"remaining": format_exact(remaining_nanos), "total": format_exact(wallet.total)},
    )
    return QuotaChange(transfer, pool, wallet)


def close_wallet(*, member: User, actor: User) -> Transfer | None:
    """Return a deleted member's available money to the pool. What is on hold returns when each hold ends.

    Must run in the transaction that deletes the member.
    """
    pool, wallet = _lock_pair(member)
    Wallet.objects.filter(space=member.space_id, pk=wallet.pk).update(is_closed=True)
    return return_free(pool=pool, wallet=wallet, member=member, actor=actor, key=f"delete:{member.pk}")


def return_free(*, pool: Wallet, wallet: Wallet, member: User, actor: User | None, key: str) -> Transfer | None:
    """Move what a closed wallet has available to the pool. The caller must have locked both wallets."""
    if wallet.available == 0:
        return None
    return _move(
        Transfer.Kind.RETURN,
        pool=pool,
        wallet=wallet,
        member=member,
        amount_nanos=wallet.available,
        actor=actor,
        key=key,
    )


def lock(space_id: int, *wallet_ids: UUID) -> dict[UUID, Wallet]:
    # In id order, so that opposite transfers cannot deadlock.
    wallets = Wallet.objects.select_for_update(no_key=True).filter(space=space_id, pk__in=wallet_ids).order_by("pk")
    return {wallet.pk: wallet for wallet in wallets}


def _move_pool_total(
    kind: Transfer.Kind, *, space: Space, amount_nanos: int, reason: str, actor: User | None, key: str
) -> Transfer:
    if not 0 < amount_nanos <= MAX_AMOUNT_NANOS:
        raise QuotaError(f"amount must be 1 to {MAX_AMOUNT_NANOS} nanos")
    pool = _lock_pool(space)
    if key and (done := _earlier_transfer(space.pk, key)):
        if (done.kind, done.amount) != (kind, amount_nanos):
            raise KeyReused(key)
        return done
    if kind == Transfer.Kind.GRANT and pool.total + amount_nanos > MAX_AMOUNT_NANOS:
        raise PoolLimit(room=MAX_AMOUNT_NANOS - pool.total)
    before = pool.total
    transfer = _move(
        kind, pool=pool, wallet=None, member=None, amount_nanos=amount_nanos, actor=actor, reason=reason, key=key
    )
    record(
        f"pool.{kind}",
        space=space,
        actor=actor,
        target=space,
        before={"total": format_exact(before)},
        after={"total": format_exact(pool.total), "reason": reason},
    )
    return transfer


def _lock_pool(space: Space) -> Wallet:
    return Wallet.objects.select_for_update(no_key=True).get(space=space, kind=Wallet.Kind.POOL)


def _lock_pair(member: User) -> tuple[Wallet, Wallet]:
    locked = (
        Wallet.objects.select_for_update(no_key=True)
        .filter(Q(kind=Wallet.Kind.POOL) | Q(user=member), space=member.space_id)
        .order_by("pk")
    )
    by_kind = {wallet.kind: wallet for wallet in locked}
    if by_kind[Wallet.Kind.MEMBER].is_closed:
        raise WalletClosed
    return by_kind[Wallet.Kind.POOL], by_kind[Wallet.Kind.MEMBER]


def _earlier_transfer(space_id: int | None, key: str) -> Transfer | None:
    return Transfer.objects.filter(space=space_id, idempotency_key=key).first()


def _apply_effect(wallet: Wallet, effect: dict[str, int], amount_nanos: int) -> None:
    signed = {field: sign * amount_nanos for field, sign in effect.items()}
    Wallet.objects.filter(space=wallet.space_id, pk=wallet.pk).update(
        **{field: F(field) + change for field, change in signed.items()}
    )
    for field, change in signed.items():
        setattr(wallet, field, getattr(wallet, field) + change)


def _move(
    kind: Transfer.Kind,
    *,
    pool: Wallet,
    wallet: Wallet | None,
    member: User | None,
    amount_nanos: int,
    actor: User | None,
    reason: str = "",
    key: str = "",
) -> Transfer:
    """Move money and write its Transfer; the only place that does. The caller must have locked the wallets."""
    source, target = _ends(kind, pool, wallet)
    if source is not None and source.available < amount_nanos:
        raise InsufficientPool(available=source.available, amount=amount_nanos)
    _apply_effect(pool, _POOL_EFFECT[kind], amount_nanos)
    if wallet is not None:
        _apply_effect(wallet, _MEMBER_EFFECT[kind], amount_nanos)
    pool_available, member_remaining = pool.available, wallet.remaining if wallet else None
    at = origin.now()
    return Transfer.objects.create(
        id=id_at(at),
        space_id=pool.space_id,
        at=at,
        kind=kind,
        amount=amount_nanos,
        source=source,
        target=target,
        member_number=member.number if member else None,
        member_name=member.username if member else "",
        actor=actor,
        actor_name=actor.username if actor else "",
        reason=reason,
        pool_total_after=pool.total,
        pool_available_after=pool_available,
        member_total_after=wallet.total if wallet else None,
        member_remaining_after=member_remaining,
        idempotency_key=key or str(uuid4()),
    )


def _ends(kind: Transfer.Kind, pool: Wallet, wallet: Wallet | None) -> tuple[Wallet | None, Wallet | None]:
    if kind == Transfer.Kind.GRANT:
        return None, pool
    if kind == Transfer.Kind.REVOKE:
        return pool, None
    return (pool, wallet) if kind == Transfer.Kind.ALLOCATE else (wallet, pool)
