from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.hashers import MD5PasswordHasher
from django.test import Client
from django.utils import timezone

from accounts.models import User
from accounts.throttle import MAX_FAILURES_PER_ADDRESS, MAX_FAILURES_PER_NAME
from tenants.models import Space
from tests.factories import PASSWORD, MemberFactory

pytestmark = pytest.mark.django_db


def sign_in(username: str, password: str = PASSWORD, client: Client | None = None, **extra: Any) -> Any:
    data = {"username": username, "password": password, "next": extra.pop("next", "")}
    return (client or Client()).post("/login/", data, **extra)


@pytest.mark.parametrize("username", ["jun", "JUN", " Jun "])
def test_a_member_signs_in_by_name_without_case(member: User, username: str) -> None:
    client = Client()

    assert sign_in(username, client=client).status_code == 302
    assert client.get("/me/credits/").status_code == 200


def test_members_land_on_the_dashboard_and_operators_in_django_admin(
    member: User, admin_member: User, manager: User, operator: User, client: Client
) -> None:
    for username in ("jun", "amara", "mira"):
        client = Client()
        sign_in(username, client=client)
        assert client.get("/")["Location"] == "/console/"

    client = Client()
    sign_in("operator", client=client)
    assert client.get("/")["Location"] == "/admin/"


def test_the_next_page_is_kept(member: User) -> None:
    assert sign_in("jun", next="/me/settings/?a=1")["Location"] == "/me/settings/?a=1"


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "http:///evil"]
)
def test_the_next_page_is_never_another_site(member: User, elsewhere: str) -> None:
    assert sign_in("jun", next=elsewhere)["Location"] == "/"


def test_unknown_name_wrong_password_and_disabled_account_get_the_same_answer(member: User, space: Space) -> None:
    User.objects.filter(pk=MemberFactory.create(space=space, username="asleep").pk).update(is_active=False)

    answers = [sign_in("nobody"), sign_in("jun", "wrong"), sign_in("asleep")]

    assert {answer.status_code for answer in answers} == {422}
    bodies = {_without_token_and_name(answer.content.decode()) for answer in answers}
    assert len(bodies) == 1
    assert "don’t match an active account" in bodies.pop()


def _without_token_and_name(page: str) -> str:
    page = re.sub(r'name="csrfmiddlewaretoken" value="[^"]+"', "", page)
    return re.sub(r'value="(nobody|jun|asleep)"', "", page)


class CountingHasher(MD5PasswordHasher):
    """Counts password hashes, which dominate the response time of a refused sign-in."""

    algorithm = "counting"
    hashed = 0

    def encode(self, password: str, salt: str) -> str:
        CountingHasher.hashed += 1
        return super().encode(password, salt)


def test_every_refusal_hashes_one_password_against_timing_attacks(space: Space, settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["tests.console.sign_in.test_sign_in.CountingHasher"]
    for username in ("awake", "asleep", "gone-one"):
        MemberFactory.create(space=space, username=username)
    User.objects.filter(username="asleep").update(is_active=False)
    User.objects.filter(username="gone-one").update(is_active=False, deleted_at=timezone.now())
    counted = {}

    for username in ("nobody", "awake", "asleep", "gone-one"):
        CountingHasher.hashed = 0
        assert sign_in(username, "wrong").status_code == 422
        counted[username] = CountingHasher.hashed

    assert counted == {"nobody": 1, "awake": 1, "asleep": 1, "gone-one": 1}


def test_members_of_a_suspended_space_cannot_sign_in_until_it_resumes(member: User, space: Space) -> None:
    Space.objects.filter(pk=space.pk).update(suspended_at=timezone.now())
    assert sign_in("jun").status_code == 422

    Space.objects.filter(pk=space.pk).update(suspended_at=None)
    assert sign_in("jun").status_code == 302


def test_five_wrong_passwords_lock_the_name_from_any_address(member: User) -> None:
    for number in range(MAX_FAILURES_PER_NAME):
        sign_in("jUn" if number % 2 else "jun", "wrong", REMOTE_ADDR=f"198.51.100.{number}")

    answer = sign_in("jun", REMOTE_ADDR="203.0.113.9")

    assert answer.status_code == 429 and answer["Retry-After"] == "900"
    assert "15 minutes" in answer.content.decode()


def test_an_unknown_name_is_locked_like_a_known_one(member: User) -> None:
    answers = [
        sign_in("nobody", "wrong", REMOTE_ADDR=f"198.51.100.{n}").status_code for n in range(MAX_FAILURES_PER_NAME + 1)
    ]
    known = [
        sign_in("jun", "wrong", REMOTE_ADDR=f"198.51.101.{n}").status_code for n in range(MAX_FAILURES_PER_NAME + 1)
    ]

    assert answers == known and answers[-1] == 429


def test_one_address_is_locked_over_many_names(member: User) -> None:
    for number in range(MAX_FAILURES_PER_ADDRESS):
        assert sign_in(f"guess{number}", "wrong").status_code in (422, 429)

    assert sign_in("jun").status_code == 429
    assert sign_in("jun", REMOTE_ADDR="203.0.113.9").status_code == 302


def test_an_office_with_some_wrong_passwords_is_not_locked(member: User) -> None:
    for number in range(MAX_FAILURES_PER_ADDRESS - 1):
        sign_in(f"guess{number}", "wrong")

    assert sign_in("jun").status_code == 302


def test_a_successful_sign_in_resets_the_name_but_not_the_address(member: User) -> None:
    for number in range(MAX_FAILURES_PER_ADDRESS - 1):
        sign_in(f"guess{number}", "wrong")
    sign_in("jun")

    sign_in("one-more", "wrong")

    assert sign_in("jun").status_code == 429


def test_the_lock_ends_after_a_while(member: User) -> None:
    for _ in range(MAX_FAILURES_PER_NAME):
        sign_in("jun", "wrong")
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))

    assert sign_in("jun").status_code == 302


@pytest.mark.parametrize("username", ["\0", "x" * 100_000, "😀", "%", "' OR 1=1 --", "\u202e"])
def test_strange_names_are_refused_quietly(member: User, username: str) -> None:
    assert sign_in(username).status_code == 422


def test_the_password_is_never_in_the_answer(member: User) -> None:
    assert "sesame-open-9" not in sign_in("jun", "sesame-open-9").content.decode()


def test_signing_out_is_by_post_alone(member: User) -> None:
    client = Client()
    sign_in("jun", client=client)

    assert client.get("/logout/").status_code == 405
    assert client.get("/me/credits/").status_code == 200
    assert client.post("/logout/")["Location"] == "/login/"
    assert client.get("/me/credits/").status_code == 302


def test_a_post_without_its_token_is_refused_and_changes_nothing(member: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(member, backend="accounts.backends.LivingUserBackend")

    answer = client.post("/me/settings/", {"form": "profile", "display_name": "Mallory"})

    assert answer.status_code == 403
    assert User.objects.get(pk=member.pk).display_name == "Jun Sato"


def test_htmx_is_sent_to_the_sign_in_page_and_back_to_where_it_was(member: User) -> None:
    here = {"HX-Request": "true", "HX-Current-URL": "http://testserver/space/users/?q=a"}

    answer = Client().get("/space/users/3/edit/", headers=here)

    assert answer["HX-Redirect"] == "/login/?next=%2Fspace%2Fusers%2F%3Fq%3Da" and not answer.content


def test_django_admin_has_no_door_of_its_own(operator: User) -> None:
    answer = Client().get("/admin/tenants/space/", follow=True)

    assert answer.redirect_chain[-1][0] == "/login/?next=/admin/tenants/space/"
    assert sign_in("operator", next="/admin/tenants/space/")["Location"] == "/admin/tenants/space/"
    assert Client().post("/admin/login/", {"username": "operator", "password": PASSWORD}).status_code == 302
