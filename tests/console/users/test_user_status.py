from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts.models import User
from audit.models import AuditEvent
from quotas.models import Transfer, Wallet
from tests.factories import PASSWORD

pytestmark = pytest.mark.django_db

HTMX = {"HX-Request": "true", "HX-Current-URL": "http://testserver/space/users/"}


@pytest.fixture
def signed_in(client: Client, manager: User) -> Client:
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")
    return client


def set_status(client: Client, member: User, enabled: str, headers: dict[str, str] | None = None) -> Any:
    return client.post(f"/space/users/{member.number}/status/", {"enabled": enabled}, headers=headers)


def test_disabling_ends_the_members_sessions_at_the_next_request(signed_in: Client, member: User) -> None:
    theirs = Client()
    theirs.post("/login/", {"username": "jun", "password": PASSWORD})
    assert theirs.get("/me/credits/").status_code == 200

    set_status(signed_in, member, "false")

    assert theirs.get("/me/credits/").status_code == 302
    assert Client().post("/login/", {"username": "jun", "password": PASSWORD}).status_code == 422


def test_enabling_again_does_not_revive_an_old_session(signed_in: Client, member: User) -> None:
    theirs = Client()
    theirs.post("/login/", {"username": "jun", "password": PASSWORD})

    set_status(signed_in, member, "false")
    set_status(signed_in, member, "true")

    assert theirs.get("/me/credits/").status_code == 302
    assert Client().post("/login/", {"username": "jun", "password": PASSWORD}).status_code == 302


def test_disabling_moves_no_money(signed_in: Client, member: User) -> None:
    before = list(Wallet.objects.order_by("pk").values()), Transfer.objects.count()

    set_status(signed_in, member, "false")

    assert (list(Wallet.objects.order_by("pk").values()), Transfer.objects.count()) == before


def test_a_repeat_changes_and_records_nothing(signed_in: Client, member: User) -> None:
    set_status(signed_in, member, "false")
    before = User.objects.filter(pk=member.pk).values().get(), AuditEvent.objects.count()

    response = set_status(signed_in, member, "false")

    assert response.status_code == 303
    assert (User.objects.filter(pk=member.pk).values().get(), AuditEvent.objects.count()) == before


@pytest.mark.parametrize("enabled", ["", "1", "on", "False", "\0", "x" * 100_000])
@pytest.mark.any_database
def test_anything_but_true_and_false_is_422(signed_in: Client, member: User, enabled: str) -> None:
    response = set_status(signed_in, member, enabled)

    assert response.status_code == 422
    assert User.objects.get(pk=member.pk).is_active


def test_htmx_gets_the_row_and_a_toast_that_can_undo(signed_in: Client, member: User) -> None:
    page = set_status(signed_in, member, "false", HTMX).content.decode()

    assert "Enable jun" in page and "jun is disabled." in page and "Undo" in page
    assert f'action="/space/users/{member.number}/status/"' in page


def test_a_plain_page_goes_back_to_the_list_as_it_was(signed_in: Client, member: User) -> None:
    here = {"Referer": "http://testserver/space/users/?q=j&size=20"}

    response = set_status(signed_in, member, "false", here)

    assert (response.status_code, response["Location"]) == (303, "/space/users/?q=j&size=20")


def test_nobody_disables_themself(client: Client, admin_member: User) -> None:
    client.force_login(admin_member, backend="accounts.backends.LivingUserBackend")

    assert set_status(client, admin_member, "false").status_code == 403
    assert User.objects.get(pk=admin_member.pk).is_active


def test_both_ways_are_in_the_audit_trail(signed_in: Client, member: User) -> None:
    set_status(signed_in, member, "false")
    set_status(signed_in, member, "true")

    kinds = AuditEvent.objects.filter(target_name="jun").order_by("id").values_list("kind", flat=True)
    assert list(kinds)[-2:] == ["member.disabled", "member.enabled"]
