from __future__ import annotations

import pytest

from accounts.models import User
from tenants import policies

OPERATOR = User(pk=1, role="operator")
MANAGER = User(pk=2, role="manager", space_id=1, number=1)
ADMIN = User(pk=3, role="admin", space_id=1, number=2)
OTHER_ADMIN = User(pk=4, role="admin", space_id=1, number=3)
NORMAL = User(pk=5, role="normal", space_id=1, number=4)
STRANGER = User(pk=6, role="normal", space_id=2, number=4)
PEOPLE = [OPERATOR, MANAGER, ADMIN, OTHER_ADMIN, NORMAL, STRANGER]


def pairs(rule: str) -> set[tuple[str, str]]:
    can = getattr(policies, rule)
    names = dict(zip(map(id, PEOPLE), ["operator", "manager", "admin", "other", "normal", "stranger"], strict=True))
    return {(names[id(actor)], names[id(target)]) for actor in PEOPLE for target in PEOPLE if can(actor, target)}


EDIT = {(actor, target) for actor in ("manager", "admin", "other") for target in ("admin", "other", "normal")}
SELF = {("admin", "admin"), ("other", "other")}


def test_managers_and_admins_manage_users() -> None:
    assert [policies.can_manage_users(person) for person in PEOPLE] == [False, True, True, True, False, False]


@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        ("can_edit", EDIT),
        ("can_set_enabled", EDIT - SELF),
        ("can_demote", EDIT - SELF),
        ("can_revoke_key", EDIT),
        ("can_delete", {pair for pair in EDIT if pair[0] == "manager"}),
    ],
)
def test_who_may_do_what_to_whom(rule: str, allowed: set[tuple[str, str]]) -> None:
    assert pairs(rule) == allowed
