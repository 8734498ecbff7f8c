from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from core.money import NANOS_PER_USD
from quotas.members import MemberChanges, edit_member
from quotas.models import Transfer
from quotas.reconcile import reconcile
from quotas.services import set_remaining
from tenants.models import Space
from tests.factories import MemberFactory, charge

pytestmark = pytest.mark.django_db

USD = NANOS_PER_USD


def page(client: Client, user: User, query: str = "") -> tuple[Any, str]:
    client.force_login(user, backend="accounts.backends.LivingUserBackend")
    response = client.get(f"/me/credits/{query}")
    return response, " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def test_the_manager_sees_the_total_and_its_parts(client: Client, manager: User, member: User) -> None:
    charge(member, cost_usd=3)
    charge(manager, cost_usd=10)

    response, text = page(client, manager)

    figures = [figure for _, _, figure in response.context["sum"]]
    assert figures == ["$500.00", "$5.00", "$10.00", "$0.00", "$485.00"]
    assert (response.context["members_used_nanos"], response.context["members_left_nanos"]) == (3 * USD, 2 * USD)
    assert "Left with members" in text


def test_the_sum_adds_up_when_rounded_cents_would_not(client: Client, manager: User) -> None:
    charge(manager, cost_usd=0.005)

    response, _ = page(client, manager)

    assert [figure for _, _, figure in response.context["sum"]] == [
        "$500.000",
        "$0.000",
        "$0.005",
        "$0.000",
        "$499.995",
    ]


def test_the_usage_of_deleted_users_is_shown(client: Client, manager: User, member: User) -> None:
    charge(member, cost_usd=3)
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")
    client.post(f"/space/users/{member.number}/delete/", {"confirm": "jun"})

    response, text = page(client, manager)

    assert (response.context["deleted_used_nanos"], response.context["deleted_count"]) == (3 * USD, 1)
    assert "$3.00" in text and "Returned from jun" in text


def test_the_journal_shows_each_transfer_from_the_pools_side(
    client: Client, manager: User, member: User, admin_member: User
) -> None:
    set_remaining(member=member, remaining_nanos=2 * USD, actor=admin_member)

    response, _ = page(client, manager)

    newest = response.context["log"].moves[0]
    assert (newest.label, newest.signed_nanos, newest.after_nanos, newest.actor_label, newest.detail) == (
        "Reclaimed from jun",
        3 * USD,
        418 * USD,
        "amara",
        "Total $5.00 → $2.00",
    )
    oldest = response.context["log"].moves[-1]
    assert (oldest.label, oldest.signed_nanos, oldest.actor_label) == ("Top-up", 500 * USD, "Operator")


def test_a_member_sees_their_own_figures_and_journal_alone(client: Client, member: User, space: Space) -> None:
    MemberFactory.create(space=space, username="secret-one", usd=11)
    charge(member, cost_usd=3)

    response, text = page(client, member)

    assert [(move.label, move.signed_nanos, move.after_nanos) for move in response.context["log"].moves] == [
        ("Received", 5 * USD, 5 * USD)
    ]
    assert "$2.00" in text and "secret-one" not in text and "$500.00" not in text and "$11.00" not in text


def test_an_admin_sees_their_own_credits(client: Client, admin_member: User) -> None:
    response, _ = page(client, admin_member)

    assert response.context["pool"] is None and response.context["wallet"].total == 80 * USD


def test_older_rows_are_on_the_next_page(client: Client, manager: User, member: User) -> None:
    for cents in range(1, 26):
        set_remaining(member=member, remaining_nanos=5 * USD + cents, actor=manager)

    first, _ = page(client, manager)
    second, _ = page(client, manager, first.context["log"].page.older_url.removeprefix("/me/credits/"))

    amounts = [move.signed_nanos for answer in (first, second) for move in answer.context["log"].moves]
    assert len(first.context["log"].moves) == 20 and len(amounts) == 27
    assert amounts[-2:] == [-5 * USD, 500 * USD]
    assert second.context["log"].page.older_url == ""
    back, _ = page(client, manager, second.context["log"].page.newer_url.removeprefix("/me/credits/"))
    assert [move.signed_nanos for move in back.context["log"].moves] == amounts[:20]


def test_an_invalid_cursor_shows_the_newest_page(client: Client, manager: User) -> None:
    assert page(client, manager, "?cursor=%00nonsense")[0].status_code == 200


def test_when_the_books_last_balanced_is_shown(client: Client, manager: User, space: Space) -> None:
    assert "Books last balanced" not in page(client, manager)[1]

    reconcile(space)

    assert "Books last balanced" in page(client, manager)[1]


def labels(response: Any) -> list[str]:
    return [move.label for move in response.context["log"].moves]


def test_the_journal_is_filtered_by_kind_person_and_period(client: Client, manager: User, member: User) -> None:
    set_remaining(member=member, remaining_nanos=2 * USD, actor=manager)
    edit_member(member=member, changes=MemberChanges(username="junko"), actor=manager)

    assert labels(page(client, manager, "?kind=reclaim")[0]) == ["Reclaimed from jun"]
    assert labels(page(client, manager, "?kind=grant")[0]) == ["Top-up"]
    for name in ("jun", "junko", "JUNKO"):
        assert labels(page(client, manager, f"?user={name}")[0]) == ["Reclaimed from jun", "Allocated to jun"]
    assert labels(page(client, manager, "?from=2026-01-01&to=2026-01-02")[0]) == []
    assert labels(page(client, manager, "?user=nobody")[0]) == []
    assert len(labels(page(client, manager, "?kind=nonsense&from=soon")[0])) == 3


def test_a_member_cannot_ask_for_anothers_journal(client: Client, manager: User, member: User, space: Space) -> None:
    MemberFactory.create(space=space, username="kai", usd=11)

    assert labels(page(client, member, "?user=kai")[0]) == []
    assert labels(page(client, member, "?kind=grant")[0]) == []
    theirs = Transfer.objects.get(member_name="kai")
    assert labels(page(client, member, f"?cursor=-{theirs.pk}")[0]) == ["Received"]


def test_htmx_gets_the_journal_and_a_url_without_empty_parameters(client: Client, manager: User, member: User) -> None:
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")
    headers = {"HX-Request": "true", "HX-Target": "journal"}

    response = client.get("/me/credits/", {"kind": "allocate", "user": "", "from": "", "size": "20"}, headers=headers)

    assert response["HX-Push-Url"] == "/me/credits/?kind=allocate"
    assert response.content.decode().strip().startswith('<div class="logview" id="journal"')
    assert "1 change" in response.content.decode() and "<html" not in response.content.decode()


def test_members_with_the_most_quota_come_first(
    client: Client, manager: User, member: User, admin_member: User
) -> None:
    MemberFactory.create(space=manager.space, username="kai", usd=20)
    charge(member, cost_usd=3)

    response, text = page(client, manager)

    assert [wallet.user.username for wallet in response.context["richest"]] == ["amara", "kai", "jun"]
    assert "Largest balances" in text and "Largest balances" not in page(client, member)[1]


def test_the_number_of_queries_does_not_depend_on_the_rows(client: Client, manager: User, member: User) -> None:
    counts = []
    for more in (0, 30):
        for cents in range(more):
            set_remaining(member=member, remaining_nanos=4 * USD + cents, actor=manager)
        client.force_login(manager, backend="accounts.backends.LivingUserBackend")
        client.get("/me/credits/")
        with CaptureQueriesContext(connection) as queries:
            client.get("/me/credits/?size=50")
        counts.append(len(queries))
    assert counts[0] == counts[1] and counts[0] <= 12, counts
