"""Create, rename, suspend and resume spaces. Each deed is one transaction with its audit event.

set_suspended and require_second_factor return whether anything changed.
"""

from __future__ import annotations

from django.contrib.auth.hashers import make_password
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction

from accounts.models import User
from audit.services import record
from core import origin
from core.errors import NameTakenError
from quotas.members import enrol
from quotas.models import FIRST_GRANT
from quotas.services import grant, open_pool
from tenants.models import Space
from tenants.policies import (
    can_require_second_factor,
)
from tenants.roles import Role


def create_space(
    *,
    name: str,
    manager_username: str,
    manager_password: str,
    manager_display_name: str = "",
    grant_nanos: int = 0,
    actor: User | None = None,
    is_demo: bool = False,
) -> Space:
    """Raises NameTakenError, with "name" or "username" as its text, and QuotaError when the grant is refused."""
    manager = User(
        username=manager_username,
        display_name=manager_display_name,
        password=make_password(manager_password),
        role=Role.MANAGER,
    )
    with transaction.atomic():
        space = _create_row(name, is_demo=is_demo)
        open_pool(space=space)
        record("space.created", space=space, actor=actor, target=space, after={"name": name})
        manager.space = space
        enrol(manager, actor)
        if grant_nanos:
            grant(space=space, amount_nanos=grant_nanos, reason=FIRST_GRANT, actor=actor, key="first-grant")
    return space


@transaction.atomic
def set_suspended(*, space: Space, is_suspended: bool, actor: User | None) -> bool:
    change = Space.objects.filter(pk=space.pk, suspended_at__isnull=is_suspended).update(
        suspended_at=origin.now() if is_suspended else None
    )
    if change:
        kind = "space.suspended" if is_suspended else "space.resumed"
        record(kind, space=space, actor=actor, target=space)
    return bool(change)


@transaction.atomic
def require_second_factor(*, space: Space, is_required: bool, actor: User) -> bool:
    if not can_require_second_factor(actor) or actor.space_id != space.pk:
        raise PermissionDenied
    unlike = Space.objects.filter(pk=space.pk).exclude(requires_second_factor=is_required)
    changed = unlike.update(requires_second_factor=is_required)
    if changed:
        kind = "space.two_factor_required" if is_required else "space.two_factor_not_required"
        record(kind, space=space, actor=actor, target=space)
    return bool(changed)


@transaction.atomic
def rename_space(*, space: Space, name: str, actor: User | None) -> None:
    """Raises NameTakenError when another space has this name, in whichever case."""
    before = space.name
    if name == before:
        return
    space.name = name
    try:
        with transaction.atomic():
            space.save(update_fields=["name"])
    except IntegrityError as error:
        raise NameTakenError("name") from error
    record("space.renamed", space=space, actor=actor, target=space, before={"name": before}, after={"name": name})


def _create_row(name: str, *, is_demo: bool) -> Space:
    try:
        with transaction.atomic():
            return Space.objects.create(name=name, created_at=origin.now(), is_demo=is_demo)
    except IntegrityError as error:
        raise NameTakenError("name") from error
