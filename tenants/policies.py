"""Authorisation policies: who may do what to whom.

The service, the view and the button call the same function, so they cannot disagree.
"""

from __future__ import annotations

from tenants.people import Person
from tenants.roles import Role


def shares_space(actor: Person, target: Person) -> bool:
    return actor.space_id is not None and actor.space_id == target.space_id


def can_manage_users(actor: Person) -> bool:
    return actor.role in (Role.MANAGER, Role.ADMIN)


def can_edit(actor: Person, target: Person) -> bool:
    """Managers and admins edit every user of their space but the manager, themselves included."""
    return can_manage_users(actor) and shares_space(actor, target) and target.role != Role.MANAGER


def can_set_enabled(actor: Person, target: Person) -> bool:
    """Nobody enables or disables themselves."""
    return can_edit(actor, target) and actor != target


def can_demote(actor: Person, target: Person) -> bool:
    """Nobody demotes themselves."""
    return can_edit(actor, target) and actor != target


def can_set_password(actor: Person, target: Person) -> bool:
    """Nobody sets their own: Personal Settings changes it and asks for the current password."""
    return can_edit(actor, target) and actor != target


def can_delete(actor: Person, target: Person) -> bool:
    """Only the space manager deletes members; an admin cannot delete."""
    return actor.role == Role.MANAGER and can_edit(actor, target)


def can_use_key(actor: Person, owner: Person) -> bool:
    """Only its owner edits, disables and rotates a key."""
    return actor == owner


def can_revoke_key(actor: Person, owner: Person) -> bool:
    """Whoever can edit a member can also revoke the member's keys, and sees no other keys but their own."""
    return can_edit(actor, owner)


def can_read_statement(actor: Person, target: Person) -> bool:
    """Whoever can edit a member can read the member's statement. The manager's usage is in the space's statement."""
    return can_edit(actor, target)


def can_require_second_factor(actor: Person) -> bool:
    """The space manager decides whether the space's admins need a second factor."""
    return actor.role == Role.MANAGER


def can_reset_second_factor(actor: Person, target: Person) -> bool:
    """Managers reset it for their members, operators for anybody but themselves.

    Admins cannot: they can already set passwords, and with both they could take over another user's account.
    """
    if actor.role == Role.OPERATOR:
        return actor != target
    return actor.role == Role.MANAGER and can_edit(actor, target)


def can_unlock(actor: Person) -> bool:
    """Only operators unlock a user who is locked out after too many failed sign-ins; otherwise the lock expires."""
    return actor.role == Role.OPERATOR
