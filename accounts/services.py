"""Services for a user's own account: edit the profile, change the password, record sign-ins and sign-outs."""

from __future__ import annotations

from django.contrib.auth.hashers import make_password
from django.db import transaction
from django.db.models.functions import Lower

from accounts.models import User
from accounts.sessions import lock_user
from audit.services import record, record_refusal


@transaction.atomic
def edit_self(*, user: User, **changes: str) -> None:
    """Change the user's own display name, language, time zone or theme. Unchanged values write nothing.

    Raises SignedOutError when the user was deleted or disabled during the request.
    """
    stored = lock_user(user, is_active=True)
    before = {name: getattr(stored, name) for name, value in changes.items() if getattr(stored, name) != value}
    for name, value in changes.items():
        setattr(user, name, value)
    if before:
        after = {name: changes[name] for name in before}
        user.save(update_fields=list(after))
        record("self.edited", space=user.space, actor=user, target=user, before=before, after=after)


def change_own_password(*, user: User, password: str) -> None:
    """Set the password and end every session of the user; the caller keeps its own with update_session_auth_hash.

    Raises SignedOutError when the user was deleted, disabled, signed out or given another password during the request.
    """
    expected = {"password": user.password, "session_epoch": user.session_epoch}
    # Hashed before the transaction, because hashing is slow on purpose and the row should be locked only briefly.
    hashed = make_password(password)
    with transaction.atomic():
        lock_user(user, is_active=True, **expected)
        user.password = hashed
        user.save(update_fields=["password"])
        record("self.password_changed", space=user.space, actor=user, target=user)


def record_sign_in(user: User) -> None:
    record("session.signed_in", space=user.space, actor=user, target=user)


def record_sign_out(user: User) -> None:
    record("session.signed_out", space=user.space, actor=user, target=user)


def record_refused_sign_in(*, username: str, is_locked: bool) -> None:
    user = User.objects.select_related("space").alias(folded=Lower("username")).filter(folded=username.lower()).first()
    # An unknown username is not stored: it may be a password that was typed into the wrong field.
    space = user.space if user else None
    why = "locked" if is_locked else _why_refused(user)
    # Timing: one row an hour while locked, for known and unknown names alike, or the time of the INSERT would
    # reveal which usernames exist.
    record_refusal("session.signed_in", why=why, space=space, actor=None, target=user, limit=int(is_locked))


def _why_refused(user: User | None) -> str:
    if user is None:
        return "unknown_name"
    if not user.is_active:
        return "account_disabled"
    return "wrong_password" if user.may_sign_in else "space_suspended"
