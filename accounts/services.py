"""What people change about themselves."""

from __future__ import annotations

from django.db import transaction

from accounts.models import User
from audit.services import record


@transaction.atomic
def edit_self(*, user: User, **changes: str) -> None:
    """Their display name, language, time zone or theme; what is as it was writes nothing."""
    before = {name: getattr(user, name) for name, value in changes.items() if getattr(user, name) != value}
    if not before:
        return
    after = {name: changes[name] for name in before}
    for name, value in after.items():
        setattr(user, name, value)
    user.save(update_fields=list(after))
    record("self.edited", space=user.space, actor=user, target=user, before=before, after=after)


def change_own_password(*, user: User, password: str) -> None:
    """Every session of the user ends; the caller keeps its own with update_session_auth_hash."""
    # Hashed before the transaction: slow on purpose, and a lock should be short.
    user.set_password(password)
    with transaction.atomic():
        user.save(update_fields=["password"])
        record("self.password_changed", space=user.space, actor=user, target=user)
