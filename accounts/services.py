"""What people change about themselves, and their coming and going."""

from __future__ import annotations

from django.contrib.auth.hashers import make_password
from django.db import transaction
from django.db.models.functions import Lower

from accounts.models import User
from accounts.sessions import lock_user
from audit.services import record, record_refusal


@transaction.atomic
def edit_self(*, user: User, **changes: str) -> None:
    """Their display name, language, time zone or theme; what is as it was writes nothing.

    Raises SignedOutError when they were deleted or disabled meanwhile.
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
    """Every session of the user ends; the caller keeps its own with update_session_auth_hash.

    Raises SignedOutError when they were deleted, disabled, signed out or given another password meanwhile.
    """
    was = {"password": user.password, "session_epoch": user.session_epoch}
    # Hashed before the transaction: slow on purpose, and a lock should be short.
    hashed = make_password(password)
    with transaction.atomic():
        lock_user(user, is_active=True, **was)
        user.password = hashed
        user.save(update_fields=["password"])
        record("self.password_changed", space=user.space, actor=user, target=user)


def record_sign_in(user: User) -> None:
    record("session.signed_in", space=user.space, actor=user, target=user)


def record_sign_out(user: User) -> None:
    record("session.signed_out", space=user.space, actor=user, target=user)


def record_refused_sign_in(*, username: str, is_locked: bool) -> None:
    """Of a name that is nobody's only that it was: it may be a password, typed into the wrong field."""
    user = User.objects.select_related("space").alias(folded=Lower("username")).filter(folded=username.lower()).first()
    space = user.space if user else None
    why = "locked" if is_locked else _why_refused(user)
    # Once an hour while locked, whoever the name is: what is written takes time, and time would tell.
    record_refusal("session.signed_in", why=why, space=space, actor=None, target=user, most=int(is_locked))


def _why_refused(user: User | None) -> str:
    if user is None:
        return "unknown_name"
    if not user.is_active:
        return "account_disabled"
    return "wrong_password" if user.may_sign_in else "space_suspended"
