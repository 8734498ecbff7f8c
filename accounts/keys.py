"""API keys: create, rotate, revoke and look up.

Only this module makes, parses and hashes API keys. Their text is returned once, when it is made, and never stored.

A key is `sk-<space>-` and 43 random characters (256 bits). The database stores its SHA-256 hash, its prefix and its
last four characters. A slow password hash would add no security, because the secret is random.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Max, Q

from accounts.models import ApiKey, User
from accounts.sessions import lock_user
from accounts.spending import refusal_of
from audit.services import record
from core import origin
from core.errors import KeyRefused
from core.ids import id_at
from core.money import format_exact
from tenants.policies import can_revoke_key, can_use_key

GRACES = {"none": timedelta(0), "1h": timedelta(hours=1), "1d": timedelta(days=1)}
_KEY = re.compile(r"sk-([1-9][0-9]{0,17})-([A-Za-z0-9_-]{43})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class KeyTerms:
    """The restrictions of a key. An empty tuple of models or networks allows any; a limit of None is no limit."""

    name: str
    expires_at: datetime | None = None
    limit_nanos: int | None = None
    models: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()


class Presented(msgspec.Struct, frozen=True):
    """A key that a client sent: the id of the space in its prefix, and its SHA-256 hash to look up in that space."""

    space_id: int
    hash: str


def parse_key(text: str) -> Presented | None:
    match = _KEY.fullmatch(text)
    return Presented(int(match[1]), _digest(text)) if match else None


def find_key(presented: Presented) -> ApiKey | None:
    """Find a key by its secret, or by its old secret during the grace after a rotation. Deleted keys are not found."""
    keys = ApiKey.objects.select_related("user", "space").filter(space=presented.space_id)
    in_grace = Q(old_hash=presented.hash, old_until__gt=origin.now())
    return keys.filter(Q(hash=presented.hash) | in_grace).first()


def usable_key(presented: Presented, *, address: str | None, model: str | None = None) -> ApiKey:
    key = find_key(presented)
    if code := refusal_of(key, address=address, model=model, moment=origin.now()):
        raise KeyRefused(code)
    assert key is not None
    return key


def create_key(*, owner: User, terms: KeyTerms) -> tuple[ApiKey, str]:
    assert owner.space is not None
    text = _generate_key(owner)
    with transaction.atomic():
        # The lock on the owner's row prevents two keys with one number. Deleted keys keep their numbers.
        lock_user(owner)
        theirs = ApiKey.with_deleted.filter(space=owner.space_id, user=owner)
        last = theirs.aggregate(last=Max("number", default=0))["last"]
        at = origin.now()
        key = ApiKey.objects.create(
            id=id_at(at),
            space=owner.space,
            user=owner,
            number=last + 1,
            created_at=at,
            **_secret_fields(text),
            **_term_fields(terms),
        )
        record("key.created", space=owner.space, actor=owner, target=owner, after=_audited_terms(key))
    return key, text


@transaction.atomic
def edit_key(*, key: ApiKey, terms: KeyTerms, actor: User) -> ApiKey:
    """Replace the restrictions of a key. A limit below what was spent is allowed: the key is then exhausted.

    Raises PermissionDenied, and ApiKey.DoesNotExist when the key was deleted during the request, as do set_key_enabled,
    rotate_key and delete_key.
    """
    key = _lock_own_key(key, actor)
    before = _audited_terms(key)
    fields = _term_fields(terms)
    for name, value in fields.items():
        setattr(key, name, value)
    if _audited_terms(key) != before:
        key.save(update_fields=list(fields))
        record("key.edited", space=key.space, actor=actor, target=key.user, before=before, after=_audited_terms(key))
    return key


@transaction.atomic
def set_key_enabled(*, key: ApiKey, is_enabled: bool, actor: User) -> ApiKey:
    key = _lock_own_key(key, actor)
    if key.is_enabled != is_enabled:
        key.is_enabled = is_enabled
        key.save(update_fields=["is_enabled"])
        kind = "key.enabled" if is_enabled else "key.disabled"
        record(kind, space=key.space, actor=actor, target=key.user, after=_audited_terms(key))
    return key


def rotate_key(*, key: ApiKey, grace: timedelta, actor: User) -> tuple[ApiKey, str]:
    """Give the key a new secret; limits and history stay. The old secret works until `grace` is over."""
    text = _generate_key(key.user)
    with transaction.atomic():
        key = _lock_own_key(key, actor)
        before = _audited_terms(key)
        key.old_hash, key.old_until = (key.hash, origin.now() + grace) if grace else ("", None)
        fields = _secret_fields(text)
        for name, value in fields.items():
            setattr(key, name, value)
        key.save(update_fields=["old_hash", "old_until", *fields])
        until = key.old_until.isoformat() if key.old_until else None
        after = _audited_terms(key) | {"old_key_until": until}
        record("key.rotated", space=key.space, actor=actor, target=key.user, before=before, after=after)
    return key, text


@transaction.atomic
def delete_key(*, key: ApiKey, actor: User) -> None:
    """Stop the key's secrets immediately, also the old one during its grace. Open holds still settle."""
    key = _lock_key(key)
    if not (can_use_key(actor, key.user) or can_revoke_key(actor, key.user)):
        raise PermissionDenied
    _soft_delete(key, actor)


def revoke_keys(*, owner: User, actor: User) -> int:
    """Delete all keys of a user. Call it in the transaction that deletes the user."""
    keys = list(ApiKey.objects.select_for_update(no_key=True).filter(space=owner.space_id, user=owner).order_by("pk"))
    for key in keys:
        _soft_delete(key, actor)
    return len(keys)


def _soft_delete(key: ApiKey, actor: User) -> None:
    key.deleted_at = origin.now()
    key.is_enabled = False
    key.old_hash, key.old_until = "", None
    key.save(update_fields=["deleted_at", "is_enabled", "old_hash", "old_until"])
    record("key.deleted", space=key.space, actor=actor, target=key.user, before=_audited_terms(key))


def _lock_key(key: ApiKey) -> ApiKey:
    return (
        ApiKey.objects.select_for_update(no_key=True, of=("self",))
        .select_related("user", "space")
        .get(space=key.space_id, pk=key.pk)
    )


def _lock_own_key(key: ApiKey, actor: User) -> ApiKey:
    key = _lock_key(key)
    if not can_use_key(actor, key.user):
        raise PermissionDenied
    return key


def _generate_key(owner: User) -> str:
    return f"sk-{owner.space_id}-{secrets.token_urlsafe(32)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _secret_fields(text: str) -> dict[str, str]:
    secret_at = text.rindex("-", 0, len(text) - 43) + 1
    return {"hash": _digest(text), "prefix": text[: secret_at + 4], "last_four": text[-4:]}


def _term_fields(terms: KeyTerms) -> dict[str, object]:
    return {
        "name": terms.name,
        "expires_at": terms.expires_at,
        "limit": terms.limit_nanos,
        "models_allowed": list(terms.models),
        "ips_allowed": list(terms.ips),
    }


def _audited_terms(key: ApiKey) -> dict[str, object]:
    # Never includes the secret.
    return {
        "key": key.shown,
        "name": key.name,
        "limit": None if key.limit is None else format_exact(key.limit),
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "models": key.models_allowed,
        "ips": key.ips_allowed,
    }
