"""What happens to spaces and their members. Each deed is one transaction with its audit event.

A member's row is locked before wallets are, everywhere, so that deeds on one member queue instead of deadlocking.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.hashers import make_password
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.db.models import F

from accounts.keys import revoke_keys
from accounts.models import Role, User
from accounts.second_factor import forget_second_factor
from audit import origin
from audit.services import record, refusals_recorded
from quotas.models import FIRST_GRANT, Transfer
from quotas.money import format_exact
from quotas.services import close_wallet, grant, open_pool, open_wallet, set_remaining
from tenants.models import Space
from tenants.policies import (
    can_delete,
    can_demote,
    can_edit,
    can_manage_users,
    can_require_second_factor,
    can_set_enabled,
    can_set_password,
)


class NameTakenError(Exception):
    """The username (or the space's name) belongs to somebody else; whose is nobody's business."""


class MemberGoneError(Exception):
    """The member was deleted meanwhile."""


@dataclass(frozen=True, kw_only=True)
class MemberChanges:
    """What an edit changes; None leaves a thing as it is. `remaining_nanos` is what remaining shall be."""

    username: str | None = None
    display_name: str | None = None
    password: str | None = None
    remaining_nanos: int | None = None
    was_total_nanos: int | None = None
    is_admin: bool | None = None


@refusals_recorded("space.created")
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
    """A space with its manager and, when more than nothing, its first grant. Raises NameTakenError, PoolLimit."""
    manager = User(
        username=manager_username,
        display_name=manager_display_name,
        password=make_password(manager_password),
        role=Role.MANAGER,
    )
    with transaction.atomic():
        space = _found_space(name, is_demo=is_demo)
        open_pool(space=space)
        record("space.created", space=space, actor=actor, target=space, after={"name": name})
        manager.space = space
        _enrol(manager, actor)
        if grant_nanos:
            grant(space=space, amount_nanos=grant_nanos, reason=FIRST_GRANT, actor=actor, key="first-grant")
    return space


@transaction.atomic
def set_suspended(*, space: Space, is_suspended: bool, actor: User | None) -> bool:
    """Stop or resume a whole space: nobody of it signs in or spends; nothing is lost. False when it already was."""
    change = Space.objects.filter(pk=space.pk, suspended_at__isnull=is_suspended).update(
        suspended_at=origin.now() if is_suspended else None
    )
    if change:
        kind = "space.suspended" if is_suspended else "space.resumed"
        record(kind, space=space, actor=actor, target=space)
    return bool(change)


@refusals_recorded("space.two_factor_required")
@transaction.atomic
def require_second_factor(*, space: Space, is_required: bool, actor: User) -> bool:
    """Ask a second factor of the space's admins, or no longer. False when it was so already."""
    if not can_require_second_factor(actor) or actor.space_id != space.pk:
        raise PermissionDenied
    unlike = Space.objects.filter(pk=space.pk).exclude(requires_second_factor=is_required)
    changed = unlike.update(requires_second_factor=is_required)
    if changed:
        kind = "space.two_factor_required" if is_required else "space.two_factor_not_required"
        record(kind, space=space, actor=actor, target=space)
    return bool(changed)


@refusals_recorded("space.renamed")
@transaction.atomic
def rename_space(*, space: Space, name: str, actor: User | None) -> None:
    """Raises NameTakenError."""
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


@refusals_recorded("member.created")
def create_member(*, space: Space, username: str, display_name: str, password: str, actor: User) -> User:
    """A new Normal user, enabled, with an empty wallet and the space's next number. Raises NameTakenError."""
    if not can_manage_users(actor) or actor.space_id != space.pk:
        raise PermissionDenied
    # Outside the transaction, here and below: hashing is slow on purpose, and a lock should be short.
    member = User(
        space=space,
        username=username,
        display_name=display_name,
        password=make_password(password),
        role=Role.NORMAL,
    )
    with transaction.atomic():
        _enrol(member, actor)
        open_wallet(member=member)
    return member


@refusals_recorded("member.edited")
def edit_member(*, member: User, changes: MemberChanges, actor: User) -> User:
    """Make the changes, all or none, and return the member as they are now.

    Raises NameTakenError, MemberGoneError, PermissionDenied, and what set_remaining raises.
    """
    if not can_edit(actor, member) or (changes.is_admin is False and member.is_admin and not can_demote(actor, member)):
        raise PermissionDenied
    if changes.password and not can_set_password(actor, member):
        raise PermissionDenied
    hashed = make_password(changes.password) if changes.password else None
    with transaction.atomic():
        member = _locked(member)
        _change_person(member, changes, hashed, actor)
        if changes.remaining_nanos is not None:
            set_remaining(
                member=member,
                remaining_nanos=changes.remaining_nanos,
                was_total_nanos=changes.was_total_nanos,
                actor=actor,
            )
    return member


@refusals_recorded("manager.reset")
def reset_manager(*, manager: User, changes: MemberChanges, actor: User) -> User:
    """An operator mends a manager's username, display name or password. Raises NameTakenError, PermissionDenied."""
    if not (actor.is_operator and manager.is_manager):
        raise PermissionDenied
    hashed = make_password(changes.password) if changes.password else None
    with transaction.atomic():
        manager = _locked(manager)
        _change_person(manager, changes, hashed, actor)
    return manager


@refusals_recorded("member.status_set")
@transaction.atomic
def set_enabled(*, member: User, is_enabled: bool, actor: User) -> User:
    """Says what shall be, so a repeat changes nothing. Disabling ends the member's sessions; money stays."""
    if not can_set_enabled(actor, member):
        raise PermissionDenied
    member = _locked(member)
    if member.is_active == is_enabled:
        return member
    member.is_active = is_enabled
    if not is_enabled:
        member.session_epoch += 1
    member.save(update_fields=["is_active", "session_epoch"])
    record(
        "member.enabled" if is_enabled else "member.disabled",
        space=member.space,
        actor=actor,
        target=member,
        before={"enabled": not is_enabled},
        after={"enabled": is_enabled},
    )
    return member


@refusals_recorded("member.deleted")
@transaction.atomic
def delete_member(*, member: User, actor: User) -> Transfer | None:
    """Delete a member for good; what they had neither spent nor held returns to the pool.

    Raises MemberGoneError when somebody else was faster.
    """
    if not can_delete(actor, member):
        raise PermissionDenied
    member = _locked(member)
    # Wallets before keys, as charging locks them.
    returned = close_wallet(member=member, actor=actor)
    revoke_keys(owner=member, actor=actor)
    member.deleted_at = origin.now()
    member.is_active = False
    member.session_epoch += 1
    member.set_unusable_password()
    member.save(update_fields=["deleted_at", "is_active", "session_epoch", "password"])
    forget_second_factor(member)
    record(
        "member.deleted",
        space=member.space,
        actor=actor,
        target=member,
        before={"username": member.username, "display_name": member.display_name, "role": member.role},
        after={"returned": format_exact(returned.amount if returned else 0)},
    )
    return returned


def _found_space(name: str, *, is_demo: bool) -> Space:
    try:
        with transaction.atomic():
            return Space.objects.create(name=name, created_at=origin.now(), is_demo=is_demo)
    except IntegrityError as error:
        raise NameTakenError("name") from error


def _enrol(person: User, actor: User | None) -> None:
    """Give a new person the space's next number and save them."""
    assert person.space_id is not None
    # The row lock of this update makes numbers unique; a rollback gives the number back unused.
    space = Space.objects.filter(pk=person.space_id)
    space.update(last_number=F("last_number") + 1)
    person.number = space.values_list("last_number", flat=True).get()
    person.created_at = origin.now()
    _save_named(person)
    record(
        "manager.created" if person.is_manager else "member.created",
        space=person.space,
        actor=actor,
        target=person,
        after={
            "number": person.number,
            "username": person.username,
            "display_name": person.display_name,
            "role": person.role,
        },
    )


def _locked(member: User) -> User:
    fresh = User.objects.select_for_update(no_key=True, of=("self",)).select_related("space").filter(pk=member.pk)
    found = fresh.first()
    if found is None:
        raise MemberGoneError
    return found


def _change_person(person: User, changes: MemberChanges, hashed_password: str | None, actor: User) -> None:
    """Names, role and password of a locked person: saves and records what really changed."""
    wanted = {"username": changes.username, "display_name": changes.display_name, "role": _role(person, changes)}
    changed = {name: value for name, value in wanted.items() if value not in (None, getattr(person, name))}
    before = {name: getattr(person, name) for name in changed}
    for name, value in changed.items():
        setattr(person, name, value)
    if changed:
        _save_named(person, fields=list(changed))
        record("member.edited", space=person.space, actor=actor, target=person, before=before, after=changed)
    if hashed_password:
        person.password = hashed_password
        person.save(update_fields=["password"])
        record("member.password_set", space=person.space, actor=actor, target=person)


def _role(person: User, changes: MemberChanges) -> str | None:
    if changes.is_admin is None or person.is_manager:
        return None
    return Role.ADMIN if changes.is_admin else Role.NORMAL


def _save_named(person: User, fields: list[str] | None = None) -> None:
    """Save, telling a taken username from any other trouble. The savepoint keeps the outer transaction usable."""
    try:
        with transaction.atomic():
            person.save(update_fields=fields)
    except IntegrityError as error:
        if "username_unique" in str(error) or "index 'username_unique'" in str(error):
            raise NameTakenError("username") from error
        raise
