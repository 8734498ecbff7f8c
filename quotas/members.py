"""Create, edit, enable, disable and delete members. Each deed is one transaction with its audit event.

Every deed locks the member's row before wallets, so concurrent deeds on one member wait and cannot deadlock.
They raise PermissionDenied, NameTakenError for a username, and MemberGoneError when the member was deleted meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from django.contrib.auth.hashers import make_password
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.db.models import F

from accounts.keys import revoke_keys
from accounts.models import User
from accounts.second_factor import forget_second_factor
from audit.services import record
from core import origin
from core.errors import MemberGoneError, NameTakenError
from core.money import format_exact
from quotas.models import Transfer, Wallet
from quotas.services import close_wallet, open_wallet, set_remaining
from tenants.models import Space
from tenants.policies import (
    can_delete,
    can_demote,
    can_edit,
    can_manage_users,
    can_set_enabled,
    can_set_password,
)
from tenants.roles import Role


@dataclass(frozen=True, kw_only=True)
class MemberChanges:
    """The fields to change; None leaves a field as it is. `remaining_nanos` is the new remaining, not a difference."""

    username: str | None = None
    display_name: str | None = None
    password: str | None = None
    remaining_nanos: int | None = None
    was_total_nanos: int | None = None
    is_admin: bool | None = None


def create_member(*, space: Space, username: str, display_name: str, password: str, actor: User) -> User:
    if not can_manage_users(actor) or actor.space_id != space.pk:
        raise PermissionDenied
    # Hash outside the transaction, here and below: hashing is slow by design and would hold locks meanwhile.
    member = User(
        space=space,
        username=username,
        display_name=display_name,
        password=make_password(password),
        role=Role.NORMAL,
    )
    with transaction.atomic():
        enrol(member, actor)
        open_wallet(member=member)
    return member


class MemberEdited(NamedTuple):
    """The edited member with their wallet, and the pool, which is None when the edit set no quota."""

    member: User
    pool: Wallet | None


def edit_member(*, member: User, changes: MemberChanges, actor: User) -> MemberEdited:
    """Apply all changes in one transaction. Also raises whatever set_remaining raises."""
    if not can_edit(actor, member) or (changes.is_admin is False and member.is_admin and not can_demote(actor, member)):
        raise PermissionDenied
    if changes.password and not can_set_password(actor, member):
        raise PermissionDenied
    hashed = make_password(changes.password) if changes.password else None
    with transaction.atomic():
        edited = _lock_member(member)
        _change_person(edited, changes, hashed, actor)
        if changes.remaining_nanos is None:
            edited.wallet = member.wallet
            return MemberEdited(edited, None)
        quota = set_remaining(
            member=edited,
            remaining_nanos=changes.remaining_nanos,
            was_total_nanos=changes.was_total_nanos,
            actor=actor,
        )
    edited.wallet = quota.wallet
    return MemberEdited(edited, quota.pool)


def reset_manager(*, manager: User, changes: MemberChanges, actor: User) -> User:
    if not (actor.is_operator and manager.is_manager):
        raise PermissionDenied
    hashed = make_password(changes.password) if changes.password else None
    with transaction.atomic():
        manager = _lock_member(manager)
        _change_person(manager, changes, hashed, actor)
    return manager


@transaction.atomic
def set_enabled(*, member: User, is_enabled: bool, actor: User) -> User:
    """Disabling ends the member's sessions and moves no money."""
    if not can_set_enabled(actor, member):
        raise PermissionDenied
    member = _lock_member(member)
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


@transaction.atomic
def delete_member(*, member: User, actor: User) -> Transfer | None:
    if not can_delete(actor, member):
        raise PermissionDenied
    member = _lock_member(member)
    # Lock wallets before API keys, in the same order as charging.py, to avoid deadlocks.
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


def enrol(person: User, actor: User | None) -> None:
    assert person.space_id is not None
    # The update's row lock serialises enrolments, so numbers are unique; a rollback frees the number again.
    space = Space.objects.filter(pk=person.space_id)
    space.update(last_number=F("last_number") + 1)
    person.number = space.values_list("last_number", flat=True).get()
    person.created_at = origin.now()
    _save_unique_name(person)
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


def _lock_member(member: User) -> User:
    fresh = User.objects.select_for_update(no_key=True, of=("self",)).select_related("space").filter(pk=member.pk)
    found = fresh.first()
    if found is None:
        raise MemberGoneError
    return found


def _change_person(person: User, changes: MemberChanges, hashed_password: str | None, actor: User) -> None:
    wanted = {"username": changes.username, "display_name": changes.display_name, "role": _role(person, changes)}
    changed = {name: value for name, value in wanted.items() if value not in (None, getattr(person, name))}
    before = {name: getattr(person, name) for name in changed}
    for name, value in changed.items():
        setattr(person, name, value)
    if changed:
        _save_unique_name(person, fields=list(changed))
        record("member.edited", space=person.space, actor=actor, target=person, before=before, after=changed)
    if hashed_password:
        person.password = hashed_password
        person.save(update_fields=["password"])
        record("member.password_set", space=person.space, actor=actor, target=person)


def _role(person: User, changes: MemberChanges) -> str | None:
    if changes.is_admin is None or person.is_manager:
        return None
    return Role.ADMIN if changes.is_admin else Role.NORMAL


def _save_unique_name(person: User, fields: list[str] | None = None) -> None:
    # The savepoint keeps the caller's transaction usable.
    try:
        with transaction.atomic():
            person.save(update_fields=fields)
    except IntegrityError as error:
        if "username_unique" in str(error) or "index 'username_unique'" in str(error):
            raise NameTakenError("username") from error
        raise
