from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts.models import User
from audit.models import AuditEvent
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
