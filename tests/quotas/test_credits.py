from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from accounts.models import User
from quotas.money import NANOS_PER_USD
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


def test_the_manager_sees_the_sum_and_where_it_is(client: Client, manager: User, member: User) -> None:
    charge(member, cost_usd=3)
    charge(manager, cost_usd=10)

    response, text = page(client, manager)

    figures = [figure for _, _, figure in response.context["sum"]]
    assert figures == ["$500.00", "$5.00", "$10.00", "$0.00", "$485.00"]
    assert (response.context["members_used_nanos"], response.context["members_left_nanos"]) == (3 * USD, 2 * USD)
    assert "Left with members" in text


def test_the_sum_adds_up_where_cents_would_not(client: Client, manager: User) -> None:
    charge(manager, cost_usd=0.005)

    response, _ = page(client, manager)

    assert [figure for _, _, figure in response.context["sum"]] == [
        "$500.000",
        "$0.000",
        "$0.005",
        "$0.000",
        "$499.995",
    ]


def test_what_deleted_users_had_used_is_said(client: Client, manager: User, member: User) -> None:
    charge(member, cost_usd=3)
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")
    client.post(f"/space/users/{member.number}/delete/", {"confirm": "jun"})

    response, text = page(client, manager)

    assert (response.context["deleted_used_nanos"], response.context["deleted_count"]) == (3 * USD, 1)
    assert "$3.00" in text and "Returned from jun" in text


def test_the_journal_tells_each_transfer_from_the_pools_side(
    client: Client, manager: User, member: User, admin_member: User
) -> None:
    set_remaining(member=member, remaining_nanos=2 * USD, actor=admin_member)

    response, _ = page(client, manager)

    newest = response.context["transfers"][0]
    assert (newest.label, newest.signed_nanos, newest.after_nanos, newest.actor_label, newest.detail) == (
        "Reclaimed from jun",
        3 * USD,
        418 * USD,
        "amara",
        "Total $5.00 → $2.00",
    )
    oldest = response.context["transfers"][-1]
    assert (oldest.label, oldest.signed_nanos, oldest.actor_label) == ("Top-up", 500 * USD, "Operator")


def test_a_member_sees_their_own_figures_and_journal_alone(client: Client, member: User, space: Space) -> None:
    MemberFactory.create(space=space, username="secret-one", usd=11)
    charge(member, cost_usd=3)

    response, text = page(client, member)

    assert [(move.label, move.signed_nanos, move.after_nanos) for move in response.context["transfers"]] == [
        ("Received", 5 * USD, 5 * USD)
    ]
    assert "$2.00" in text and "secret-one" not in text and "$500.00" not in text and "$11.00" not in text


def test_an_admin_sees_their_own_credits(client: Client, admin_member: User) -> None:
    response, _ = page(client, admin_member)

    assert response.context["pool"] is None and response.context["wallet"].total == 80 * USD


def test_older_rows_are_behind_a_cursor(client: Client, manager: User, member: User) -> None:
    for cents in range(1, 26):
        set_remaining(member=member, remaining_nanos=5 * USD + cents, actor=manager)

    first, _ = page(client, manager)
    second, _ = page(client, manager, first.context["older_url"].removeprefix("/me/credits/"))

    amounts = [move.signed_nanos for answer in (first, second) for move in answer.context["transfers"]]
    assert len(first.context["transfers"]) == 20 and len(amounts) == 27
    assert amounts[-2:] == [-5 * USD, 500 * USD]
    assert second.context["older_url"] == "" and second.context["newest_url"] == "/me/credits/"


def test_a_broken_cursor_shows_the_newest(client: Client, manager: User) -> None:
    assert page(client, manager, "?cursor=%00nonsense")[0].status_code == 200


def test_when_the_books_last_balanced_is_shown(client: Client, manager: User, space: Space) -> None:
    assert "Books last balanced" not in page(client, manager)[1]

    reconcile(space)

    assert "Books last balanced" in page(client, manager)[1]
