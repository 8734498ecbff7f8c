"""Every form that asks for a password or code is throttled by name and IP address; operators can unlock."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.hashers import make_password
from django.core.exceptions import PermissionDenied
from django.core.management import CommandError, call_command
from django.test import Client

from accounts.models import User
from accounts.sessions import end_other_sessions
from accounts.sign_in import BACKEND
from accounts.throttle import MAX_FAILURES_PER_NAME, unlock
from audit.models import AuditEvent
from tests.authenticator import give_password
from tests.factories import PASSWORD

pytestmark = pytest.mark.django_db

PRESENT_PASSWORD_FORMS: list[tuple[str, dict[str, str]]] = [
    ("/me/confirm/", {}),
    ("/me/settings/", {"form": "password", "new_password": "brand new secret"}),
]


def lock(username: str) -> None:
    for number in range(MAX_FAILURES_PER_NAME):
        give_password(Client(REMOTE_ADDR=f"198.51.100.{number}"), username, "wrong")


@pytest.mark.parametrize(("path", "fields"), PRESENT_PASSWORD_FORMS)
def test_forms_that_ask_for_the_current_password_are_throttled(
    client: Client, member: User, path: str, fields: dict[str, str]
) -> None:
    client.force_login(member, backend=BACKEND)
    for _ in range(MAX_FAILURES_PER_NAME):
        client.post(path, fields | {"present_password": "wrong"})

    answer = client.post(path, fields | {"present_password": PASSWORD})

    assert answer.status_code == 429 and answer["Retry-After"] == "900"
    assert "15 minutes" in answer.content.decode()
    assert User.objects.get(pk=member.pk).check_password(PASSWORD)
    assert give_password(Client(REMOTE_ADDR="203.0.113.9"), "jun").status_code == 429


def test_an_operator_unlocks_a_manager(client: Client, manager: User, operator: User) -> None:
    lock("MIRA")
    client.force_login(operator, backend=BACKEND)

    for _ in range(2):
        client.post("/admin/accounts/user/", {"action": "let_in_again", "_selected_action": [manager.pk]})

    event = AuditEvent.objects.get(kind="member.unlocked")
    assert (event.actor_name, event.target_name) == ("operator", "mira")
    assert give_password(Client(), "mira").status_code == 302


def test_the_command_unlocks_a_user(manager: User) -> None:
    lock("mira")
    out = StringIO()

    call_command("unlock", username="mira", stdout=out)
    call_command("unlock", username="mira", stdout=out)

    assert out.getvalue().splitlines() == ["mira may sign in again.", "mira was not locked out."]
    assert AuditEvent.objects.get(kind="member.unlocked").actor_name == "unlock"
    assert give_password(Client(), "mira").status_code == 302
    with pytest.raises(CommandError):
        call_command("unlock", username="nobody")


def test_nobody_else_can_unlock(manager: User, member: User) -> None:
    lock("jun")

    with pytest.raises(PermissionDenied):
        unlock(user=member, actor=manager)

    assert give_password(Client(), "jun").status_code == 429


def test_a_lock_of_one_name_does_not_lock_others(client: Client, manager: User, member: User) -> None:
    lock("jun")
    lock("mira")

    unlock(user=member, actor=None)

    assert give_password(Client(), "jun").status_code == 302
    assert give_password(Client(), "mira").status_code == 429


# -- Passwords ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("password123", "too common"),
        ("Iloveyou", "too common"),
        ("fresh-user", "too similar"),
        ("short", "at least 8"),
    ],
)
def test_a_common_password_is_refused_whoever_sets_it(
    client: Client, manager: User, member: User, operator: User, password: str, why: str
) -> None:
    client.force_login(manager, backend=BACKEND)
    staff = Client()
    staff.force_login(operator, backend=BACKEND)
    fresh = {"username": "fresh-user", "password": password}
    space = {"name": "New", "manager_username": "fresh-user", "manager_password": password}
    people = User.everyone.count()

    answers = [
        client.post("/space/users/add/", fresh),
        client.post(f"/space/users/{member.number}/edit/", fresh),
        staff.post("/admin/tenants/space/add/", space),
        staff.post(f"/admin/accounts/user/{manager.pk}/change/", {"username": "fresh-user", "new_password": password}),
    ]

    assert [why in answer.content.decode() for answer in answers] == [True] * 4
    assert User.everyone.count() == people
    for person in (manager, member):
        assert User.objects.get(pk=person.pk).check_password(PASSWORD)


def test_create_space_refuses_common_passwords(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for password in ("password123", "fresh-user"):
        monkeypatch.setattr("sys.stdin", StringIO(password + "\n"))
        with pytest.raises(CommandError):
            call_command("create_space", name="New", manager="fresh-user", password_stdin=True)
    assert not User.everyone.exists()


def change_own(client: Client, new: str) -> Any:
    return client.post("/me/settings/", {"form": "password", "present_password": PASSWORD, "new_password": new})


@pytest.mark.parametrize("new", [PASSWORD, "password123", "short"])
def test_a_new_password_must_differ_and_must_not_be_common(client: Client, member: User, new: str) -> None:
    client.force_login(member, backend=BACKEND)

    answer = change_own(client, new)

    assert answer.status_code == 422 and answer.context["password_form"].errors["new_password"]
    assert User.objects.get(pk=member.pk).password == member.password


def test_django_admins_password_page_has_the_limits_of_sign_in(client: Client, operator: User) -> None:
    client.force_login(operator, backend="accounts.backends.LivingUserBackend")
    form = {"old_password": "wrong", "new_password1": "a brand new secret", "new_password2": "a brand new secret"}

    answers = [client.post("/admin/password_change/", form).status_code for _ in range(MAX_FAILURES_PER_NAME + 1)]

    assert answers == [200] * (MAX_FAILURES_PER_NAME - 1) + [429] * 2
    assert User.objects.get(pk=operator.pk).password == operator.password
    tried = AuditEvent.objects.filter(kind="self.password_changed", actor_id=operator.pk)
    assert set(tried.values_list("refusal", flat=True)) == {"wrong_password", "locked"}


def test_an_operator_changes_their_own_password_and_stays(client: Client, operator: User) -> None:
    client.force_login(operator, backend="accounts.backends.LivingUserBackend")
    form = {"old_password": PASSWORD, "new_password1": "a brand new secret", "new_password2": "a brand new secret"}

    response = client.post("/admin/password_change/", form)

    assert response.status_code == 302 and client.get("/admin/").status_code == 200
    assert User.objects.get(pk=operator.pk).check_password("a brand new secret")
    assert AuditEvent.objects.filter(kind="self.password_changed", actor_id=operator.pk, refusal="").count() == 1


def test_an_operator_who_was_signed_out_meanwhile_changes_no_password(
    client: Client, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(password: str) -> str:
        end_other_sessions(user=User.objects.get(pk=operator.pk))
        return make_password(password)

    client.force_login(operator, backend=BACKEND)
    monkeypatch.setattr("accounts.services.make_password", meanwhile)
    form = {"old_password": PASSWORD, "new_password1": "a brand new secret", "new_password2": "a brand new secret"}

    response = client.post("/admin/password_change/", form)

    assert (response.status_code, response["Location"]) == (302, "/admin/login/?next=/admin/password_change/")
    assert User.objects.get(pk=operator.pk).password == operator.password


def test_django_admin_refuses_to_filter_by_the_stored_password(client: Client, operator: User, manager: User) -> None:
    client.force_login(operator, backend="accounts.backends.LivingUserBackend")

    assert client.get("/admin/accounts/user/?password__startswith=a").status_code == 400
