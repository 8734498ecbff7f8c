"""The rules that refuse a request, in the order in which they are checked, each with its HTTP status.

Each rule has two spellings: in Python for one request, and in SQL for a set of requests on PostgreSQL. The SQL is
rendered into the function charge_set (quotas/charge_set.py), so a change here needs a new version of that function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from accounts.models import ApiKey, User
    from tenants.models import Space

T = TypeVar("T")


@dataclass(frozen=True)
class Rule(Generic[T]):
    """One reason to refuse a request. `sql` is the same condition as `refuses`; it must not be true for a NULL value.

    The SQL can use `a`, the request (address, model); `k`, its key; `u` and `s`, the user and space of the key; `w`,
    the wallet that the user spends from; `moment`, now; `granted`, the amount to hold (a name that released
    versions of the function fix); `free` and `key_free`, what the wallet and the key's limit have left. Amounts are
    nanos.
    """

    code: str
    status: int
    refuses: Callable[[T], bool]
    sql: str


class Owner(NamedTuple):
    user: User
    space: Space


class KeyUse(NamedTuple):
    """`model` is None for a request without one, such as the list of models."""

    key: ApiKey
    address: str | None
    model: str | None
    moment: datetime


class Funds(NamedTuple):
    """`key_free_nanos` is None for a key without a limit."""

    amount_nanos: int
    wallet_free_nanos: int
    key_free_nanos: int | None


def _is_unknown(key: ApiKey | None) -> bool:
    return key is None


def _is_suspended(owner: Owner) -> bool:
    return owner.space.is_suspended


def _is_disabled(owner: Owner) -> bool:
    return not owner.user.is_active


def _has_disabled_key(use: KeyUse) -> bool:
    return not use.key.is_enabled


def _has_expired_key(use: KeyUse) -> bool:
    return use.key.expires_at is not None and use.key.expires_at <= use.moment


def _is_from_elsewhere(use: KeyUse) -> bool:
    networks = use.key.ips_allowed
    if not networks or use.address is None:
        return bool(networks)
    return not any(ip_address(use.address) in ip_network(network) for network in networks)


def _is_for_another_model(use: KeyUse) -> bool:
    return use.model is not None and bool(use.key.models_allowed) and use.model not in use.key.models_allowed


def _exceeds_wallet(funds: Funds) -> bool:
    return funds.amount_nanos > funds.wallet_free_nanos


def _exceeds_key(funds: Funds) -> bool:
    return funds.key_free_nanos is not None and funds.amount_nanos > funds.key_free_nanos


UNKNOWN_KEY: Rule[ApiKey | None] = Rule("invalid_api_key", 401, _is_unknown, "w.id IS NULL")

OWNER_RULES: tuple[Rule[Owner], ...] = (
    Rule("space_suspended", 403, _is_suspended, "s.suspended_at IS NOT NULL"),
    Rule("account_disabled", 403, _is_disabled, "NOT u.is_active"),
)

KEY_RULES: tuple[Rule[KeyUse], ...] = (
    Rule("key_disabled", 401, _has_disabled_key, "NOT k.is_enabled"),
    Rule("key_expired", 401, _has_expired_key, "k.expires_at <= moment"),
    Rule(
        "ip_not_allowed",
        403,
        _is_from_elsewhere,
        "k.ips_allowed <> '[]' AND NOT coalesce((SELECT bool_or(a.address <<= network::inet)"
        " FROM jsonb_array_elements_text(k.ips_allowed) AS networks(network)), false)",
    ),
    Rule(
        "model_not_allowed",
        403,
        _is_for_another_model,
        "a.model <> '' AND k.models_allowed <> '[]' AND NOT k.models_allowed ? a.model",
    ),
)

# Checked last, under the lock of the wallet.
FUNDS_RULES: tuple[Rule[Funds], ...] = (
    Rule("insufficient_quota", 429, _exceeds_wallet, "granted > free"),
    Rule("key_limit_reached", 429, _exceeds_key, "granted > key_free"),
)

ACCESS_RULES: tuple[Rule[Any], ...] = (UNKNOWN_KEY, *OWNER_RULES, *KEY_RULES)
# The HTTP status of each refusal: sent to the client and stored in the usage log.
REFUSAL_STATUS: dict[str, int] = {rule.code: rule.status for rule in (*ACCESS_RULES, *FUNDS_RULES)}


def first_refusal(rules: Sequence[Rule[T]], subject: T) -> str | None:
    return next((rule.code for rule in rules if rule.refuses(subject)), None)


def refusal_of(key: ApiKey | None, *, address: str | None, model: str | None, moment: datetime) -> str | None:
    """Return the code of the first rule that refuses this key at that moment, or None. Funds are not checked."""
    if key is None:
        return first_refusal((UNKNOWN_KEY,), key)
    return first_refusal(OWNER_RULES, Owner(key.user, key.space)) or first_refusal(
        KEY_RULES, KeyUse(key, address, model, moment)
    )
