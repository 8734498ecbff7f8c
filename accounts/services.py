"""What people change about themselves."""

from __future__ import annotations

from django.db import transaction

from accounts.models import User
from audit.services import record


@transaction.atomic
def rename_self(*, user: User, display_name: str) -> None:
    before = user.display_name
    if display_name == before:
        return
    user.display_name = display_name
    user.save(update_fields=["display_name"])
    record(
        "self.edited",
        space=user.space,
        actor=user,
        target=user,
        before={"display_name": before},
        after={"display_name": display_name},
    )


def change_own_password(*, user: User, password: str) -> None:
    """Every session of the user ends; the caller keeps its own with update_session_auth_hash."""
    # Hashed before the transaction: slow on purpose, and a lock should be short.
    user.set_password(password)
    with transaction.atomic():
        user.save(update_fields=["password"])
        record("self.password_changed", space=user.space, actor=user, target=user)
