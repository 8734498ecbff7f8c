from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from console.users.listing import SORTS
from core.money import NANOS_PER_USD
from quotas.models import Wallet
from tenants.models import Space
from tests.factories import MemberFactory, charge

pytestmark = pytest.mark.django_db


@pytest.fixture
def signed_in(client: Client, manager: User) -> Client:
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")
    return client


def names(response: Any) -> list[str]:
    return [member.username for member in response.context["page"]]


def test_the_list_shows_the_six_columns_in_order(signed_in: Client, member: User) -> None:
    page = signed_in.get("/space/users/").content.decode()
    heads = re.findall(r"<th\b.*?</th>", page, re.DOTALL)

    plain = [" ".join(re.sub(r"<[^>]+>", " ", head).split()) for head in heads]
    assert plain == ["ID", "Username", "Status", "Remaining / Total", "Role", "Actions"]


def test_a_row_shows_remaining_and_total_after_spending(signed_in: Client, member: User) -> None:
    charge(member, cost_usd=3)

    page = signed_in.get("/space/users/").content.decode()

    assert "<b>$2.00</b> / $5.00" in " ".join(page.split())


def test_the_manager_is_not_in_the_list(signed_in: Client, member: User) -> None:
    assert names(signed_in.get("/space/users/")) == ["jun"]


@pytest.mark.parametrize(
    ("q", "found"),
    [("AB", ["Abe", "xab"]), ("%", []), ("_", ["a_c"]), ("a_", ["a_c"]), ("zz", []), ("\0", []), ("é", [])],
)
def test_search_matches_literally_and_without_case(signed_in: Client, space: Space, q: str, found: list[str]) -> None:
    for username in ("Abe", "xab", "a_c"):
        MemberFactory.create(space=space, username=username)

    assert names(signed_in.get("/space/users/", {"q": q})) == found


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("id", ["cy", "Bo", "al"]),
        ("-id", ["al", "Bo", "cy"]),
        ("username", ["al", "Bo", "cy"]),
        ("-username", ["cy", "Bo", "al"]),
        ("remaining", ["Bo", "al", "cy"]),
        ("-remaining", ["cy", "al", "Bo"]),
        ("status", ["al", "cy", "Bo"]),
        ("role", ["Bo", "cy", "al"]),
        ("nonsense", ["cy", "Bo", "al"]),
    ],
)
def test_each_column_sorts(signed_in: Client, space: Space, sort: str, expected: list[str]) -> None:
    MemberFactory.create(space=space, username="cy", usd=9)
    MemberFactory.create(space=space, username="Bo", usd=1, is_admin=True)
    MemberFactory.create(space=space, username="al", usd=5)
    User.objects.filter(username="al").update(is_active=False)

    found = names(signed_in.get("/space/users/", {"sort": sort}))

    assert found == expected


def test_filters_combine(signed_in: Client, space: Space) -> None:
    MemberFactory.create(space=space, username="ann", is_admin=True)
    MemberFactory.create(space=space, username="ben", is_admin=True)
    MemberFactory.create(space=space, username="cat")
    User.objects.filter(username="ben").update(is_active=False)

    assert names(signed_in.get("/space/users/?role=admin")) == ["ann", "ben"]
    assert names(signed_in.get("/space/users/?role=admin&status=disabled")) == ["ben"]
    assert names(signed_in.get("/space/users/?role=normal&status=enabled")) == ["cat"]
    assert names(signed_in.get("/space/users/?role=manager")) == ["ann", "ben", "cat"]


def test_pages_and_their_sizes_are_in_the_address(signed_in: Client, space: Space) -> None:
    for number in range(12):
        MemberFactory.create(space=space, username=f"u{number:02}")

    second = signed_in.get("/space/users/?page=2")
    assert names(second) == ["u10", "u11"]
    assert len(names(signed_in.get("/space/users/?size=20"))) == 12
    assert len(names(signed_in.get("/space/users/?size=7"))) == 10
    assert names(signed_in.get("/space/users/?page=99")) == ["u10", "u11"]
    assert 'href="/space/users/?size=20"' in second.content.decode()


@pytest.mark.parametrize("sort", [sign + key for key in SORTS for sign in ("", "-")])
def test_pages_read_from_either_end_make_up_the_whole_list_in_order(signed_in: Client, space: Space, sort: str) -> None:
    for number in range(35):
        MemberFactory.create(space=space, username=f"u{number:02}", usd=number % 4)
    User.objects.filter(username__endswith="3").update(is_active=False)
    whole = names(signed_in.get(f"/space/users/?sort={sort}&size=100"))

    pages = [names(signed_in.get(f"/space/users/?sort={sort}&page={number}")) for number in range(1, 5)]

    assert [len(page) for page in pages] == [10, 10, 10, 5]
    assert [name for page in pages for name in page] == whole and len(set(whole)) == 35


def test_the_number_of_queries_does_not_depend_on_the_number_of_rows(signed_in: Client, space: Space) -> None:
    signed_in.get("/space/users/")  # the first request of a session writes its UserSession row
    asked = []
    for more in (1, 2, 47):
        for _ in range(more):
            MemberFactory.create(space=space)
        with CaptureQueriesContext(connection) as counted:
            signed_in.get("/space/users/?size=100")
        asked.append(len(counted))

    assert asked[0] == asked[1] == asked[2] <= 7


def test_htmx_gets_the_table_alone_and_a_reload_the_page(signed_in: Client, member: User) -> None:
    piece = signed_in.get("/space/users/?q=jun", headers={"HX-Request": "true", "HX-Target": "user-table"})
    whole = signed_in.get("/space/users/?q=jun", headers={"HX-Request": "true"})
    back = signed_in.get(
        "/space/users/?q=jun",
        headers={"HX-Request": "true", "HX-Target": "user-table", "HX-History-Restore-Request": "true"},
    )

    assert "<html" not in piece.content.decode() and 'id="user-table"' in piece.content.decode()
    assert "<html" in whole.content.decode() and "<html" in back.content.decode()
    assert {"HX-Request", "HX-Target"} <= set(re.split(r", ", piece["Vary"]))


def test_an_empty_space_says_what_to_do_next(signed_in: Client) -> None:
    assert "No users yet" in signed_in.get("/space/users/").content.decode()


def test_no_match_offers_to_clear_the_search(signed_in: Client, member: User) -> None:
    page = signed_in.get("/space/users/?q=zed").content.decode()

    assert "zed" in page and "Clear search" in page


def test_the_pools_figures_stand_above_the_table(signed_in: Client, space: Space, member: User) -> None:
    Wallet.objects.filter(space=space, kind="pool").update(spent=2 * NANOS_PER_USD)

    page = " ".join(re.sub(r"<[^>]+>", " ", signed_in.get("/space/users/").content.decode()).split())

    assert "Total $500.00 Allocated $5.00 Available $493.00" in page


def test_a_display_name_is_escaped(signed_in: Client, space: Space) -> None:
    MemberFactory.create(space=space, username="bobby", display_name="<script>alert(1)</script>")

    page = signed_in.get("/space/users/").content.decode()

    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


def test_an_admin_is_offered_no_delete_and_not_to_disable_themself(
    client: Client, admin_member: User, member: User
) -> None:
    client.force_login(admin_member, backend="accounts.backends.LivingUserBackend")

    page = client.get("/space/users/").content.decode()

    assert "Delete jun" not in page and "Disable jun" in page
    own = page[page.index('id="toggle-2"') :][:400]
    assert 'aria-disabled="true"' in own and "You cannot disable yourself" in own
