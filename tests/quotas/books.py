"""Helpers for tests about money: snapshots of a space's rows to compare before and after, and short names."""

from __future__ import annotations

from typing import Any

from django.db.models import Model

from accounts.models import User
from audit.models import AuditEvent
from core.money import NANOS_PER_USD
from quotas.charging import Call
from quotas.models import Hold, Transfer, Wallet
from quotas.pool import pool_of
from tenants.models import Space
from usage.models import HourlyUsage, UsageRecord

USD = NANOS_PER_USD
CALL = Call(model="gpt-4o-mini", input_tokens=1000, output_tokens=200)
SNAPSHOT_MODELS: list[type[Model]] = [Wallet, Transfer, Hold, UsageRecord, HourlyUsage, AuditEvent, User]

Figures = tuple[int, int, int, int]


def books(space: Space) -> dict[str, list[dict[str, Any]]]:
    """A snapshot of every row that a transfer or charge could write, to assert that nothing was written.

    Audit events of refusals are left out, because a refused deed may record one.
    """
    rows = {
        model.__name__: list(model._base_manager.filter(space=space).order_by("pk").values())
        for model in SNAPSHOT_MODELS
    }
    return rows | {"AuditEvent": [event for event in rows["AuditEvent"] if not event["refusal"]]}


def figures(owner: User | Space) -> Figures:
    """(total, allocated, spent, held) of a member's wallet or of a space's pool."""
    wallet = pool_of(owner) if isinstance(owner, Space) else Wallet.objects.get(user=owner)
    return wallet.total, wallet.allocated, wallet.spent, wallet.held


def journal(space: Space) -> list[tuple[str, int]]:
    """(kind, amount) of every transfer, the oldest first."""
    return list(Transfer.objects.filter(space=space).order_by("id").values_list("kind", "amount"))


def conserved(space: Space) -> tuple[int, int]:
    """The pool's total and the sum of all its parts, which must be equal after every commit."""
    pool = pool_of(space)
    members = Wallet.objects.filter(space=space, kind=Wallet.Kind.MEMBER)
    living = sum(wallet.remaining + wallet.spent for wallet in members if not wallet.is_closed)
    deleted = sum(wallet.spent + wallet.held for wallet in members if wallet.is_closed)
    return pool.total, pool.available + pool.spent + pool.held + living + deleted
