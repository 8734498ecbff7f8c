"""API keys: the only code that sees one in clear.

A key is `sk-<space>-` and 43 random characters (256 bits). Kept are its SHA-256 (the secret is random, so a slow hash
would buy nothing), its beginning and its last four.
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
    """What a key may do: nanos of its limit or None, models and networks (empty: any), and until when."""

    name: str
    expires_at: datetime | None = None
    limit_nanos: int | None = None
    models: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()


class Presented(msgspec.Struct, frozen=True):
    """Of a key that a client sent: the space it names, and what to look for there."""

    space_id: int
    hash: str


def parse_key(text: str) -> Presented | None:
    """Read a key; None when it cannot be one."""
    match = _KEY.fullmatch(text)
    return Presented(int(match[1]), _digest(text)) if match else None


def find_key(presented: Presented) -> ApiKey | None:
    """The living key of this secret, or of the one before a rotation while its grace lasts; with user and space."""
    keys = ApiKey.objects.select_related("user", "space").filter(space=presented.space_id)
    in_grace = Q(old_hash=presented.hash, old_until__gt=origin.now())
    return keys.filter(Q(hash=presented.hash) | in_grace).first()


def usable_key(presented: Presented, *, address: str | None, model: str | None = None) -> ApiKey:
    """The key, with user and space, if it may be used now (accounts/spending.py). Raises KeyRefused."""
    key = find_key(presented)
    if code := refusal_of(key, address=address, model=model, moment=origin.now()):
        raise KeyRefused(code)
    assert key is not None
    return key


def create_key(*, owner: User, terms: KeyTerms) -> tuple[ApiKey, str]:
    """A new key of the owner's and its text, which is shown once and kept nowhere."""
    assert owner.space is not None
    text = _mint(owner)
    with transaction.atomic():
        # The owner's row makes numbers unique; deleted keys keep theirs.
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
        record("key.created", space=owner.space, actor=owner, target=owner, after=_told(key))
    return key, text


@transaction.atomic
def edit_key(*, key: ApiKey, terms: KeyTerms, actor: User) -> ApiKey:
    """Lowering the limit below what was spent is allowed: the key is then exhausted."""
    key = _locked_own(key, actor)
    before = _told(key)
    fields = _term_fields(terms)
    for name, value in fields.items():
        setattr(key, name, value)
    if _told(key) != before:
        key.save(update_fields=list(fields))
        record("key.edited", space=key.space, actor=actor, target=key.user, before=before, after=_told(key))
    return key


@transaction.atomic
def set_key_enabled(*, key: ApiKey, is_enabled: bool, actor: User) -> ApiKey:
    """Says what shall be, so a repeat changes nothing."""
    key = _locked_own(key, actor)
    if key.is_enabled != is_enabled:
        key.is_enabled = is_enabled
        key.save(update_fields=["is_enabled"])
        kind = "key.enabled" if is_enabled else "key.disabled"
        record(kind, space=key.space, actor=actor, target=key.user, after=_told(key))
    return key


def rotate_key(*, key: ApiKey, grace: timedelta, actor: User) -> tuple[ApiKey, str]:
    """A new secret in the same row: limits and history stay. The old one works until its grace is over."""
    text = _mint(key.user)
    with transaction.atomic():
        key = _locked_own(key, actor)
        before = _told(key)
        key.old_hash, key.old_until = (key.hash, origin.now() + grace) if grace else ("", None)
        fields = _secret_fields(text)
        for name, value in fields.items():
            setattr(key, name, value)
        key.save(update_fields=["old_hash", "old_until", *fields])
        until = key.old_until.isoformat() if key.old_until else None
        after = _told(key) | {"old_key_until": until}
        record("key.rotated", space=key.space, actor=actor, target=key.user, before=before, after=after)
    return key, text


@transaction.atomic
def delete_key(*, key: ApiKey, actor: User) -> None:
    """The key stops at once, the secret of a rotation's grace with it. What it holds settles."""
    key = _locked(key)
    if not (can_use_key(actor, key.user) or can_revoke_key(actor, key.user)):
        raise PermissionDenied
    _entomb(key, actor)


def revoke_keys(*, owner: User, actor: User) -> int:
    """All of a user's keys, in the transaction that deletes the user."""
    keys = list(ApiKey.objects.select_for_update(no_key=True).filter(space=owner.space_id, user=owner).order_by("pk"))
    for key in keys:
        _entomb(key, actor)
    return len(keys)


def _entomb(key: ApiKey, actor: User) -> None:
    key.deleted_at = origin.now()
    key.is_enabled = False
    key.old_hash, key.old_until = "", None
    key.save(update_fields=["deleted_at", "is_enabled", "old_hash", "old_until"])
    record("key.deleted", space=key.space, actor=actor, target=key.user, before=_told(key))


def _locked(key: ApiKey) -> ApiKey:
    """Raises ApiKey.DoesNotExist when it was deleted meanwhile."""
    return (
        ApiKey.objects.select_for_update(no_key=True, of=("self",))
        .select_related("user", "space")
        .get(space=key.space_id, pk=key.pk)
    )


def _locked_own(key: ApiKey, actor: User) -> ApiKey:
    key = _locked(key)
    if not can_use_key(actor, key.user):
        raise PermissionDenied
    return key


def _mint(owner: User) -> str:
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


def _told(key: ApiKey) -> dict[str, object]:
    """What the trail says of a key: never its secret."""
    return {
        "key": key.shown,
        "name": key.name,
        "limit": None if key.limit is None else format_exact(key.limit),
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "models": key.models_allowed,
        "ips": key.ips_allowed,
    }
