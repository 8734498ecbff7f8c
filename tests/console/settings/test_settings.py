from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.hashers import make_password
from django.test import Client

from accounts.models import User
from accounts.services import change_own_password, edit_self
from accounts.sessions import SignedOutError, end_other_sessions
from audit.models import AuditEvent
from quotas.members import MemberChanges, delete_member, edit_member, set_enabled
from tests.factories import PASSWORD

pytestmark = pytest.mark.django_db


@pytest.fixture
def signed_in(client: Client, member: User) -> Client:
    client.force_login(member, backend="accounts.backends.LivingUserBackend")
    return client


def change_password(client: Client, present: str, new: str) -> Any:
    data = {"form": "password", "present_password": present, "new_password": new}
    return client.post("/me/settings/", data)


def test_a_member_renames_themself(signed_in: Client, member: User) -> None:
    response = signed_in.post("/me/settings/", {"form": "profile", "display_name": "佐藤 純"})

    assert (response.status_code, response["Location"]) == (303, "/me/settings/")
    assert User.objects.get(pk=member.pk).display_name == "佐藤 純"
    assert AuditEvent.objects.get(kind="self.edited").before == {"display_name": "Jun Sato"}


def test_nothing_but_the_display_name_can_be_changed_there(signed_in: Client, member: User) -> None:
    data = {"form": "profile", "display_name": "J", "role": "admin", "username": "root", "number": "1", "space": "2"}

    signed_in.post("/me/settings/", data)

    now = User.objects.get(pk=member.pk)
    assert (now.username, now.role, now.number, now.space_id) == ("jun", "normal", member.number, member.space_id)


def test_a_new_password_keeps_this_session_and_ends_the_others(signed_in: Client) -> None:
    other = Client()
    other.post("/login/", {"username": "jun", "password": PASSWORD})

    assert change_password(signed_in, PASSWORD, "brand new secret").status_code == 303

    assert signed_in.get("/me/credits/").status_code == 200
    assert other.get("/me/credits/").status_code == 302
    assert Client().post("/login/", {"username": "jun", "password": "brand new secret"}).status_code == 302


@pytest.mark.parametrize(
    ("present", "new", "field"),
    [("wrong", "brand new secret", "present_password"), (PASSWORD, "short", "new_password")]
    + [("", "brand new secret", "present_password"), (PASSWORD, "", "new_password")],
)
def test_a_wrong_password_form_changes_nothing(
    signed_in: Client, member: User, present: str, new: str, field: str
) -> None:
    response = change_password(signed_in, present, new)

    assert response.status_code == 422 and response.context["password_form"].errors[field]
    assert User.objects.get(pk=member.pk).password == member.password


@pytest.mark.parametrize("name", ["x" * 81, "a\u202eb", "\0", "a\rb"])
def test_a_strange_display_name_is_refused(signed_in: Client, member: User, name: str) -> None:
    response = signed_in.post("/me/settings/", {"form": "profile", "display_name": name})

    assert response.status_code == 422 and response.context["profile_form"].errors["display_name"]
    assert User.objects.get(pk=member.pk).display_name == "Jun Sato"


# -- Races: another request commits between the start of this one and its lock ------------------------------------


def loaded(user: User) -> User:
    """Return the user as a request that starts now has loaded them."""
    return User.objects.get(pk=user.pk)


def test_the_trail_has_the_stored_value_and_not_the_one_read_before(member: User, manager: User) -> None:
    mine = loaded(member)
    edit_member(member=member, changes=MemberChanges(display_name="Jun S."), actor=manager)

    edit_self(user=mine, display_name="Jun Sato")

    assert loaded(member).display_name == "Jun Sato"
    assert AuditEvent.objects.get(kind="self.edited").before == {"display_name": "Jun S."}


def test_the_same_change_by_two_concurrent_requests_is_recorded_once(member: User) -> None:
    for mine in (loaded(member), loaded(member)):
        edit_self(user=mine, theme="dark")

    assert AuditEvent.objects.filter(kind="self.edited").count() == 1


def test_a_user_deleted_meanwhile_cannot_edit_themself(member: User, manager: User) -> None:
    mine = loaded(member)
    delete_member(member=member, actor=manager)

    with pytest.raises(SignedOutError):
        edit_self(user=mine, display_name="Late")

    assert User.everyone.get(pk=member.pk).display_name == "Jun Sato"
    assert AuditEvent.objects.latest("id").kind == "member.deleted"


@pytest.mark.parametrize(
    "end",
    [
        lambda member, manager: delete_member(member=member, actor=manager),
        lambda member, manager: set_enabled(member=member, is_enabled=False, actor=manager),
        lambda member, manager: edit_member(member=member, changes=MemberChanges(password="a new one"), actor=manager),
        lambda member, manager: end_other_sessions(user=loaded(member)),
    ],
    ids=["deleted", "disabled", "given another password", "signed out elsewhere"],
)
def test_an_ended_session_cannot_change_the_password(
    member: User, manager: User, end: Callable[[User, User], Any]
) -> None:
    mine = loaded(member)
    end(member, manager)
    kept = User.everyone.get(pk=member.pk).password

    with pytest.raises(SignedOutError):
        change_own_password(user=mine, password="brand new secret")

    assert User.everyone.get(pk=member.pk).password == kept
    assert not AuditEvent.objects.filter(kind="self.password_changed").exists()


def test_a_user_deleted_while_changing_their_password_is_sent_to_sign_in(
    signed_in: Client, member: User, manager: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(password: str) -> str:
        delete_member(member=member, actor=manager)
        return make_password(password)

    monkeypatch.setattr("accounts.services.make_password", meanwhile)

    response = change_password(signed_in, PASSWORD, "brand new secret")

    assert (response.status_code, response["Location"]) == (302, "/login/?next=/me/settings/")
    assert signed_in.get("/me/settings/").status_code == 302
    assert not User.everyone.get(pk=member.pk).has_usable_password()
