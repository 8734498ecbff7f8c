from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.test import Client

from accounts.models import User
from audit.models import AuditEvent
from core.ids import new_id
from core.money import NANOS_PER_USD
from quotas.charging import Call, hold
from quotas.members import MemberChanges, edit_member
from quotas.models import Transfer, Wallet
from quotas.services import set_remaining
from tenants.models import Space
from tenants.roles import Role
from tests.factories import charge, manager_of

pytestmark = pytest.mark.django_db

USD = NANOS_PER_USD
HTMX = {"HX-Request": "true", "HX-Current-URL": "http://testserver/space/users/"}


@pytest.fixture
def signed_in(client: Client, manager: User) -> Client:
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")
    return client


def edit(client: Client, member: User, headers: dict[str, str] | None = None, **data: Any) -> Any:
    return client.post(f"/space/users/{member.number}/edit/", data, headers=headers)


def balances(member: User) -> tuple[int, int, int]:
    """(pool available, member remaining, member total)"""
    pool = Wallet.objects.get(space=member.space_id, kind="pool")
    wallet = Wallet.objects.get(user=member)
    return pool.available, wallet.remaining, wallet.total


def test_setting_remaining_moves_the_difference_from_the_pool(signed_in: Client, member: User) -> None:
    charge(member, cost_usd=3)

    response = edit(signed_in, member, remaining="9.00")

    assert (response.status_code, response["Location"]) == (303, "/space/users/")
    assert balances(member) == (488 * USD, 9 * USD, 12 * USD)


def test_lowering_remaining_returns_the_difference(signed_in: Client, member: User) -> None:
    edit(signed_in, member, remaining="1.50")

    assert balances(member) == (498_500_000_000, 1_500_000_000, 1_500_000_000)


@pytest.mark.parametrize(
    ("typed", "nanos"),
    [
        ("$100", 100 * USD),
        ("$1,000", None),
        ("0.000000001", 1),
        (" 7 ", 7 * USD),
        ("007.10", 7_100_000_000),
        ("0", 0),
        ("1e2", None),
    ],
)
def test_an_amount_is_kept_to_the_nano_dollar_or_refused(
    signed_in: Client, member: User, typed: str, nanos: int | None
) -> None:
    response = edit(signed_in, member, remaining=typed)

    assert response.status_code == (422 if nanos is None else 303)
    assert balances(member)[1] == (5 * USD if nanos is None else nanos)


@pytest.mark.parametrize(
    "typed",
    [
        "1e30",
        "-0",
        "-1",
        "NaN",
        "inf",
        "0.0000000001",
        "٣",
        "1,00",
        "%",
        "_",
        "😀",
        "\u202e1",
        "1\0",
        "",
        "9" * 10_000_000,
    ]
    + ["1000000001", "0x10", "1_000", "+5", "1.2.3", "."],
)
@pytest.mark.any_database
def test_a_strange_amount_is_refused_beside_its_field(signed_in: Client, member: User, typed: str) -> None:
    before = balances(member), Transfer.objects.count()

    response = edit(signed_in, member, HTMX, remaining=typed, display_name="Changed")

    assert response.status_code == 422
    assert response.context["form"].errors["remaining"]
    assert (balances(member), Transfer.objects.count()) == before
    assert User.objects.get(pk=member.pk).display_name == "Jun Sato"
    assert len(response.content) < 40_000


def test_more_than_the_pool_has_is_refused_with_the_figure(signed_in: Client, member: User) -> None:
    response = edit(signed_in, member, HTMX, remaining="500.01", display_name="Changed")

    text = str(response.context["form"].errors["remaining"])
    assert response.status_code == 422
    assert "Only $495.00 is available in this space." in text and "$500.00" in text
    assert balances(member) == (495 * USD, 5 * USD, 5 * USD)
    assert User.objects.get(pk=member.pk).display_name == "Jun Sato"


def test_less_than_is_in_flight_is_refused_with_the_figure(signed_in: Client, member: User) -> None:
    hold(request_id=new_id(), user=member, amount_nanos=2 * USD, call=Call(model="m"))

    response = edit(signed_in, member, remaining="1.99")

    assert response.status_code == 422
    assert "$2.00 is in flight" in str(response.context["form"].errors["remaining"])
    assert balances(member) == (495 * USD, 5 * USD, 5 * USD)


def test_an_unchanged_amount_moves_nothing_though_the_member_spent_since(signed_in: Client, member: User) -> None:
    charge(member, cost_usd=3)

    edit(
        signed_in, member, remaining="5.00", was_remaining="5.00", was_total="5.00", was_admin="false", display_name="J"
    )

    assert balances(member) == (495 * USD, 2 * USD, 5 * USD)
    assert Transfer.objects.filter(kind="allocate").count() == 1


def test_without_the_hidden_fields_remaining_is_set(signed_in: Client, member: User) -> None:
    charge(member, cost_usd=3)

    edit(signed_in, member, remaining="5.00")

    assert balances(member) == (492 * USD, 5 * USD, 8 * USD)


def test_the_present_value_writes_nothing(signed_in: Client, member: User) -> None:
    before = Transfer.objects.count(), AuditEvent.objects.count()

    edit(signed_in, member, username="jun", display_name="Jun Sato", remaining="5.00", password="")

    assert (Transfer.objects.count(), AuditEvent.objects.count()) == before


def test_a_quota_that_somebody_else_changed_is_refused_with_the_new_figures(signed_in: Client, member: User) -> None:
    set_remaining(member=member, remaining_nanos=8 * USD, actor=manager_of(member.space))

    response = edit(signed_in, member, HTMX, remaining="6", was_remaining="5.00", was_total="5.00")

    page = response.content.decode()
    assert response.status_code == 422 and "$8.00 / $8.00" in str(response.context["form"].errors["remaining"])
    assert 'name="was_total" value="8.00"' in page and 'value="6"' in page
    assert balances(member) == (492 * USD, 8 * USD, 8 * USD)


def test_sent_again_with_the_new_figures_it_is_set(signed_in: Client, member: User) -> None:
    set_remaining(member=member, remaining_nanos=8 * USD, actor=manager_of(member.space))

    edit(signed_in, member, remaining="6", was_remaining="8.00", was_total="8.00")

    assert balances(member) == (494 * USD, 6 * USD, 6 * USD)


def test_a_field_that_is_not_sent_stays(signed_in: Client, member: User) -> None:
    edit(signed_in, member, username="junko")

    now = User.objects.get(pk=member.pk)
    assert (now.username, now.display_name, now.role, now.password) == (
        "junko",
        "Jun Sato",
        Role.NORMAL,
        member.password,
    )
    assert balances(member) == (495 * USD, 5 * USD, 5 * USD)


@pytest.mark.parametrize(
    ("starts_admin", "data", "ends_admin"),
    [
        (False, {"admin": "on", "was_admin": "false"}, True),
        (False, {"was_admin": "false"}, False),
        (False, {"admin": "on"}, True),
        (True, {"was_admin": "true"}, False),
        (True, {}, True),
        (True, {"admin": "on", "was_admin": "true"}, True),
        (True, {"was_admin": "false"}, True),
        (False, {"admin": "on", "was_admin": "true"}, False),
        (True, {"admin": "false"}, False),
    ],
)
def test_the_switch_changes_the_role_only_when_it_was_moved(
    signed_in: Client, member: User, starts_admin: bool, data: dict[str, Any], ends_admin: bool
) -> None:
    User.objects.filter(pk=member.pk).update(role=Role.ADMIN if starts_admin else Role.NORMAL)

    edit(signed_in, member, display_name="X", **data)

    assert User.objects.get(pk=member.pk).is_admin is ends_admin


def test_an_admin_promotes_and_hands_out_from_the_managers_pool(
    client: Client, admin_member: User, member: User
) -> None:
    client.force_login(admin_member, backend="accounts.backends.LivingUserBackend")

    edit(client, member, remaining="20", admin="on")

    assert User.objects.get(pk=member.pk).is_admin
    assert balances(member) == (400 * USD, 20 * USD, 20 * USD)
    assert Transfer.objects.latest("id").actor == admin_member


def test_an_admin_edits_their_own_quota_and_it_is_audited(client: Client, admin_member: User) -> None:
    client.force_login(admin_member, backend="accounts.backends.LivingUserBackend")

    edit(client, admin_member, remaining="81")

    event = AuditEvent.objects.filter(kind="member.quota_set").latest("id")
    assert balances(admin_member)[1] == 81 * USD
    assert (event.actor_name, event.target_name) == ("amara", "amara")
    assert (event.before, event.after) == (
        {"remaining": "80.00", "total": "80.00"},
        {"remaining": "81.00", "total": "81.00"},
    )


def test_nobody_demotes_themself(client: Client, admin_member: User) -> None:
    client.force_login(admin_member, backend="accounts.backends.LivingUserBackend")

    response = edit(client, admin_member, was_admin="true", display_name="Changed")

    assert response.status_code == 422
    now = User.objects.get(pk=admin_member.pk)
    assert (now.role, now.display_name) == (Role.ADMIN, "")


def test_a_new_password_ends_the_members_sessions(signed_in: Client, member: User) -> None:
    theirs = Client()
    theirs.force_login(member, backend="accounts.backends.LivingUserBackend")

    edit(signed_in, member, password="brand new secret")

    assert theirs.get("/me/credits/").status_code == 302
    assert theirs.post("/login/", {"username": "jun", "password": "brand new secret"}).status_code == 302


def test_ones_own_password_is_not_set_here(client: Client, admin_member: User) -> None:
    client.force_login(admin_member, backend="accounts.backends.LivingUserBackend")

    response = edit(client, admin_member, password="brand new secret")

    assert (response.status_code, "Personal Settings" in response.content.decode()) == (422, True)
    assert User.objects.get(pk=admin_member.pk).password == admin_member.password
    with pytest.raises(PermissionDenied):
        edit_member(member=admin_member, changes=MemberChanges(password="brand new secret"), actor=admin_member)


def test_the_dialog_holds_the_exact_figure(signed_in: Client, member: User) -> None:
    charge(member, cost_usd=0.000425)

    page = signed_in.get(f"/space/users/{member.number}/edit/", headers=HTMX).content.decode()

    assert 'value="4.999575"' in page and "<dialog" in page and "<html" not in page


def test_htmx_gets_row_pool_pill_and_toast(signed_in: Client, member: User) -> None:
    response = edit(signed_in, member, HTMX, remaining="9")

    page = response.content.decode()
    assert response.status_code == 200 and response["HX-Reswap"] == "none"
    assert "dialog:close" in response["HX-Trigger-After-Settle"]
    assert all(piece in page for piece in (f'id="user-{member.number}"', 'id="pool"', 'id="pool-pill"', "jun saved."))
    assert "$491.00" in page


def test_names_and_role_are_in_the_audit_trail(signed_in: Client, member: User) -> None:
    edit(signed_in, member, username="junko", admin="on", password="brand new secret")

    edited, password = AuditEvent.objects.filter(kind__in=["member.edited", "member.password_set"]).order_by("id")
    assert (edited.before, edited.after) == (
        {"username": "jun", "role": "normal"},
        {"username": "junko", "role": "admin"},
    )
    assert (password.before, password.after) == ({}, {})


def test_a_taken_name_changes_nothing_else(signed_in: Client, member: User, admin_member: User) -> None:
    response = edit(signed_in, member, username="AMARA", remaining="9", password="brand new secret")

    assert response.status_code == 422
    assert str(response.context["form"].errors["username"][0]) == "This username is not available."
    assert balances(member)[1] == 5 * USD
    assert User.objects.get(pk=member.pk).password == member.password


def test_ones_own_name_may_change_its_case(signed_in: Client, member: User) -> None:
    edit(signed_in, member, username="Jun")

    assert User.objects.get(pk=member.pk).username == "Jun"


def test_a_deleted_members_name_is_free_again(signed_in: Client, member: User, admin_member: User) -> None:
    signed_in.post(f"/space/users/{admin_member.number}/delete/", {"confirm": "amara"})

    edit(signed_in, member, username="amara")

    assert User.objects.get(pk=member.pk).username == "amara"


def test_the_preview_says_what_the_amount_would_come_to(signed_in: Client, member: User) -> None:
    charge(member, cost_usd=3)

    response = signed_in.post(f"/space/users/{member.number}/preview/", {"remaining": "9"}, headers=HTMX)

    page = response.content.decode()
    assert response.status_code == 200
    assert all(figure in page for figure in ("$3.00", "$9.00", "$12.00", "$495.00", "$488.00"))
    assert balances(member)[1] == 2 * USD


def test_the_preview_says_how_much_is_missing(signed_in: Client, member: User) -> None:
    page = signed_in.post(f"/space/users/{member.number}/preview/", {"remaining": "526.58"}).content.decode()

    assert "$26.58" in page


def test_the_preview_of_nonsense_is_422(signed_in: Client, member: User) -> None:
    assert signed_in.post(f"/space/users/{member.number}/preview/", {"remaining": "x"}).status_code == 422
    assert signed_in.post(f"/space/users/{member.number}/preview/").status_code == 422


def test_reclaiming_from_a_disabled_member_works(signed_in: Client, member: User, space: Space) -> None:
    User.objects.filter(pk=member.pk).update(is_active=False)

    edit(signed_in, member, remaining="0")

    assert balances(member) == (500 * USD, 0, 0)
