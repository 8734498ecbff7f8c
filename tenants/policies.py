"""Who may do what: one small question about two people each, asked by the view and by the button alike."""

from __future__ import annotations

from tenants.people import Person


def shares_space(actor: Person, target: Person) -> bool:
    return actor.space_id is not None and actor.space_id == target.space_id


def can_manage_users(actor: Person) -> bool:
    return actor.is_manager or actor.is_admin


def can_edit(actor: Person, target: Person) -> bool:
    """Managers and admins edit every member of their space, themself included. The manager is no member."""
    return can_manage_users(actor) and shares_space(actor, target) and not target.is_manager


def can_set_enabled(actor: Person, target: Person) -> bool:
    """Nobody disables themself."""
    return can_edit(actor, target) and actor != target


def can_demote(actor: Person, target: Person) -> bool:
    """Nobody demotes themself."""
    return can_edit(actor, target) and actor != target


def can_set_password(actor: Person, target: Person) -> bool:
    """Nobody sets their own without the present one: that is Personal Settings'."""
    return can_edit(actor, target) and actor != target


def can_delete(actor: Person, target: Person) -> bool:
    """Only the space manager deletes."""
    return actor.is_manager and can_edit(actor, target)


def can_use_key(actor: Person, owner: Person) -> bool:
    """Only its owner edits, stops and rotates a key."""
    return actor == owner


def can_revoke_key(actor: Person, owner: Person) -> bool:
    """Who edits a member may take away their keys; nobody else's are ever shown to them."""
    return can_edit(actor, owner)


def can_read_statement(actor: Person, target: Person) -> bool:
    """Who edits a member's quota may see what became of it; the manager's own use is in the space's statement."""
    return can_edit(actor, target)


def can_require_second_factor(actor: Person) -> bool:
    """The manager says how the space's admins sign in."""
    return actor.is_manager


def can_reset_second_factor(actor: Person, target: Person) -> bool:
    """Managers for their members, operators for anybody but themself.

    Admins for nobody: they set passwords already, and both together would be somebody else's account.
    """
    if actor.is_operator:
        return actor != target
    return actor.is_manager and can_edit(actor, target)


def can_unlock(actor: Person) -> bool:
    """Who was locked out after too many tries waits, or asks the operators."""
    return actor.is_operator
