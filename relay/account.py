"""What a key and its owner have spent and what remains: GET /v1/key, and the billing addresses that clients ask for."""

from __future__ import annotations

from typing import Any, NamedTuple

from accounts.keys import Presented, usable_key
from accounts.models import ApiKey
from core.money import NANOS_PER_USD, format_exact
from quotas.charging import spent_by
from quotas.models import Wallet

_NANOS_PER_CENT = NANOS_PER_USD // 100


class Account(NamedTuple):
    key: ApiKey
    wallet: Wallet


def account_of(presented: Presented, address: str | None) -> Account:
    """Raises KeyRefused."""
    key = usable_key(presented, address=address)
    return Account(key, Wallet.objects.get(spent_by(key.user)))


def key_json(account: Account) -> dict[str, Any]:
    """The key's state. `data` repeats it in the shape that OpenRouter's clients read, with numbers of USD."""
    key, wallet = account
    limit_left = None if key.limit is None else max(0, key.limit - key.spent - key.held)
    remaining = wallet.available if limit_left is None else min(wallet.available, limit_left)
    return {
        "object": "key",
        "name": key.name,
        "spent_usd": format_exact(key.spent),
        "held_usd": format_exact(key.held),
        "limit_usd": None if key.limit is None else format_exact(key.limit),
        "remaining_usd": format_exact(remaining),
        "models": key.models_allowed,
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "owner": {
            "username": key.user.username,
            "total_usd": format_exact(wallet.total),
            "spent_usd": format_exact(wallet.spent),
            "held_usd": format_exact(wallet.held),
            "available_usd": format_exact(wallet.available),
        },
        "data": {
            "label": key.name,
            "usage": _number(key.spent),
            "limit": None if key.limit is None else _number(key.limit),
            "limit_remaining": None if limit_left is None else _number(limit_left),
            "is_free_tier": False,
        },
    }


def subscription_json(account: Account) -> dict[str, Any]:
    limit = _number(_tighter(account)[0])
    return {
        "object": "billing_subscription",
        "has_payment_method": True,
        "soft_limit_usd": limit,
        "hard_limit_usd": limit,
        "system_hard_limit_usd": limit,
        "access_until": int(account.key.expires_at.timestamp()) if account.key.expires_at else 0,
    }


def usage_json(account: Account) -> dict[str, Any]:
    # In cents, as these clients expect.
    return {"object": "list", "total_usage": _tighter(account)[1] / _NANOS_PER_CENT}


def credits_json(account: Account) -> dict[str, Any]:
    limit, spent = _tighter(account)
    return {
        "object": "credit_summary",
        "total_granted": _number(limit),
        "total_used": _number(spent),
        "total_available": _number(max(0, limit - spent)),
    }


SHAPES = {
    "/key": key_json,
    "/dashboard/billing/subscription": subscription_json,
    "/dashboard/billing/usage": usage_json,
    "/dashboard/billing/credit_grants": credits_json,
}


def _tighter(account: Account) -> tuple[int, int]:
    """(limit, spent) of the key or of its owner's wallet, whichever leaves less."""
    key, wallet = account
    if key.limit is not None and key.limit - key.spent < wallet.total - wallet.spent:
        return key.limit, key.spent
    return wallet.total - wallet.allocated, wallet.spent


def _number(nanos: int) -> float:
    return nanos / NANOS_PER_USD
