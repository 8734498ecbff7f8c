from __future__ import annotations

from typing import Any

import pytest
from django.contrib.messages import get_messages
from django.test import Client

from accounts.models import User
from audit.models import AuditEvent
from tenants.models import Space
from tenants.roles import Role
from tests.factories import MemberFactory

pytestmark = pytest.mark.django_db

HTMX = {"HX-Request": "true", "HX-Current-URL": "http://testserver/space/users/"}


@pytest.fixture
def signed_in(client: Client, manager: User) -> Client:
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")
    return client


def add(client: Client, headers: dict[str, str] | None = None, **data: str) -> Any:
    return client.post("/space/users/add/", data, headers=headers)


def test_a_new_user_is_normal_enabled_and_has_nothing(signed_in: Client, space: Space) -> None:
    response = add(signed_in, username="Fresh", password="long enough")

    made = User.objects.get(username="Fresh")
    assert (response.status_code, response["Location"]) == (303, "/space/users/")
    assert (made.space, made.number, made.role, made.is_active) == (space, 2, Role.NORMAL, True)
    assert (made.wallet.total, made.wallet.remaining, made.name) == (0, 0, "Fresh")
    assert [str(message) for message in get_messages(response.wsgi_request)] == ["Fresh added."]


def test_a_new_user_can_sign_in(signed_in: Client, client: Client) -> None:
    add(signed_in, username="fresh", password="  spaces count  ")

    assert Client().post("/login/", {"username": "fresh", "password": "  spaces count  "}).status_code == 302
    assert Client().post("/login/", {"username": "fresh", "password": "spaces count"}).status_code == 422


def test_htmx_gets_the_sign_in_details_once_and_the_new_row_first(signed_in: Client, space: Space) -> None:
    for _ in range(12):
        MemberFactory.create(space=space)

    response = add(signed_in, HTMX, username="fresh", password="long-enough-9")

    page = response.content.decode()
    assert response.status_code == 200
    assert page.count("long-enough-9") <= 2 and "http://testserver/login/" in page
    assert page.index('id="user-14"') < page.index('id="user-2"')
    assert "no-store" in response["Cache-Control"]


def test_the_password_is_in_no_list_toast_or_trail(signed_in: Client) -> None:
    add(signed_in, username="fresh", password="long-enough-9")

    assert "long-enough-9" not in signed_in.get("/space/users/").content.decode()
    assert "long-enough-9" not in str(list(AuditEvent.objects.values()))


def test_a_number_is_never_used_again(signed_in: Client, space: Space, manager: User) -> None:
    add(signed_in, username="first", password="long enough")
    signed_in.post("/space/users/2/delete/", {"confirm": "first"})

    add(signed_in, username="first", password="long enough")

    assert list(User.everyone.filter(username="first").order_by("number").values_list("number", flat=True)) == [2, 3]


def test_a_refused_user_takes_no_number(signed_in: Client, space: Space, member: User) -> None:
    add(signed_in, username="JUN", password="long enough")
    add(signed_in, username="fresh", password="long enough")

    assert User.objects.get(username="fresh").number == member.number + 1


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("username", "", "Enter a username."),
        ("username", "ab", "Use at least 3 characters."),
        ("username", "a" * 65, "Use at most 64 characters."),
        ("username", "with space", "Use only the letters A-Z"),
        ("username", "jürgen", "Use only the letters A-Z"),
        ("username", "٣٣٣", "Use only the letters A-Z"),
        ("username", "pay\u202elap", "Use only the letters A-Z"),
        ("username", "nul\0l", "Null characters are not allowed."),
        ("username", "😀😀😀", "Use only the letters A-Z"),
        ("username", "x" * 10_000_000, "Use at most 64 characters."),
        ("username", "jun", "This username is not available."),
        ("username", "JUN", "This username is not available."),
        ("display_name", "a" * 81, "Use at most 80 characters."),
        ("display_name", "abc\u202edef", "invisible marks"),
        ("display_name", "a\nb", "line breaks"),
        ("display_name", "nul\0l", "Null characters are not allowed."),
        ("password", "", "Enter a password."),
        ("password", "seven77", "Use at least 8 characters."),
        ("password", "p" * 129, "Use at most 128 characters."),
        ("password", "nul\0lllllll", "Null characters are not allowed."),
    ],
)
@pytest.mark.any_database
def test_bad_input_is_told_beside_its_field_and_changes_nothing(
    signed_in: Client, member: User, field: str, value: str, text: str
) -> None:
    before = list(User.everyone.values_list("pk", "username"))
    data = {"username": "fresh", "display_name": "Fresh", "password": "long enough"} | {field: value}

    response = add(signed_in, HTMX, **data)

    assert response.status_code == 422
    assert text in str(response.context["form"].errors[field])
    assert f'name="{field}"' in response.content.decode() and 'aria-invalid="true"' in response.content.decode()
    assert len(response.content) < 40_000
    assert list(User.everyone.values_list("pk", "username")) == before


@pytest.mark.parametrize("display_name", ["نور عزيز", "田中 海", "👩‍💻 Ada", "O'Brien & Söhne <x>", "% _ \\"])
def test_a_display_name_is_kept_exactly(signed_in: Client, display_name: str) -> None:
    add(signed_in, username="fresh", display_name=display_name, password="long enough")

    assert User.objects.get(username="fresh").display_name == display_name


def test_what_was_typed_is_kept_when_something_is_wrong(signed_in: Client) -> None:
    page = add(signed_in, username="x", display_name="Kept Name", password="long enough").content.decode()

    assert 'value="Kept Name"' in page


def test_adding_is_in_the_audit_trail(signed_in: Client, manager: User) -> None:
    signed_in.post("/space/users/add/", {"username": "fresh", "password": "long enough"}, REMOTE_ADDR="198.51.100.7")

    event = AuditEvent.objects.get(kind="member.created")
    assert (event.actor_name, event.target_name, event.address) == ("mira", "fresh", "198.51.100.7")
    assert event.after == {"number": 2, "username": "fresh", "display_name": "", "role": "normal"}
    assert event.request_id
