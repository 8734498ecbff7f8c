from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts.models import User
from audit.models import AuditEvent
from core.money import NANOS_PER_USD
from quotas.models import Transfer, Wallet
from tenants.models import Space
from tests.factories import PASSWORD

pytestmark = pytest.mark.django_db

USD = NANOS_PER_USD
NEW = {
    "name": "Northwind",
    "manager_username": "nora",
    "manager_display_name": "Nora Lind",
    "manager_password": "long enough",
    "grant": "250.00",
}


@pytest.fixture
def signed_in(client: Client, operator: User) -> Client:
    client.force_login(operator, backend="accounts.backends.LivingUserBackend")
    return client


def move(client: Client, space: Space, **data: str) -> Any:
    data = {"deed": "grant", "amount": "10", "reason": "Top-up", "key": "11111111-1111-4111-8111-111111111111"} | data
    return client.post(f"/admin/tenants/space/{space.pk}/move/", data)


def test_an_operator_creates_a_space_with_its_manager_and_first_grant(signed_in: Client, operator: User) -> None:
    assert signed_in.post("/admin/tenants/space/add/", NEW).status_code == 302

    space = Space.objects.get(name="Northwind")
    manager = User.objects.get(space=space)
    pool = Wallet.objects.get(space=space)
    assert (manager.username, manager.display_name, manager.number, manager.role) == ("nora", "Nora Lind", 1, "manager")
    assert (pool.total, pool.available) == (250 * USD, 250 * USD)
    assert Transfer.objects.get(space=space).actor == operator
    assert Client().post("/login/", {"username": "nora", "password": "long enough"}).status_code == 302


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", ""), ("name", "x" * 81), ("name", "HALCYON labs"), ("manager_username", "MIRA"), ("grant", "1e5")]
    + [("manager_username", "a b"), ("manager_password", "short"), ("grant", "-5"), ("grant", "1000000001")],
)
@pytest.mark.any_database
def test_an_invalid_form_creates_nothing(signed_in: Client, space: Space, field: str, value: str) -> None:
    response = signed_in.post("/admin/tenants/space/add/", NEW | {field: value})

    assert response.status_code == 200 and response.context["adminform"].form.errors[field]
    assert list(Space.objects.all()) == [space]


def test_an_operator_grants_and_takes_back_with_a_reason(signed_in: Client, space: Space, operator: User) -> None:
    move(signed_in, space, amount="100.50")
    move(signed_in, space, deed="revoke", amount="0.50", reason="Typo", key="22222222-2222-4222-8222-222222222222")

    granted, taken = Transfer.objects.filter(space=space).order_by("id")[1:]
    assert (granted.amount, granted.reason, granted.actor) == (100_500_000_000, "Top-up", operator)
    assert (taken.kind, taken.amount, taken.reason) == ("revoke", 500_000_000, "Typo")
    assert Wallet.objects.get(space=space).total == 600 * USD


def test_a_form_submitted_twice_grants_once(signed_in: Client, space: Space) -> None:
    move(signed_in, space)
    move(signed_in, space)

    assert Wallet.objects.get(space=space).total == 510 * USD


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"deed": "revoke", "amount": "500.01"}, "Only $500.00 is available"),
        ({"amount": "999999999"}, "At most $999,999,500.00 more fits"),
        ({"amount": "0"}, "more than $0.00"),
        ({"amount": "NaN"}, "digits 0-9"),
        ({"reason": ""}, "This field is required."),
        ({"reason": "x" * 201}, "at most 200 characters"),
    ],
)
def test_an_invalid_transfer_is_answered_with_the_reason_and_moves_nothing(
    signed_in: Client, space: Space, data: dict[str, str], text: str
) -> None:
    response = move(signed_in, space, **data)

    assert response.status_code == 422 and text in str(response.context["form"].errors)
    assert Wallet.objects.get(space=space).total == 500 * USD
    assert Transfer.objects.count() == 1


def test_nobody_signs_in_to_a_suspended_space_which_resumes_unchanged(
    signed_in: Client, space: Space, member: User
) -> None:
    before = list(Wallet.objects.order_by("pk").values())
    theirs = Client()
    theirs.post("/login/", {"username": "jun", "password": PASSWORD})

    signed_in.post(f"/admin/tenants/space/{space.pk}/suspend/", {"suspended": "true"})
    assert theirs.get("/me/credits/").status_code == 302
    assert Client().post("/login/", {"username": "jun", "password": PASSWORD}).status_code == 422

    signed_in.post(f"/admin/tenants/space/{space.pk}/suspend/", {"suspended": "false"})
    assert Client().post("/login/", {"username": "jun", "password": PASSWORD}).status_code == 302
    assert list(Wallet.objects.order_by("pk").values()) == before
    kinds = AuditEvent.objects.filter(kind__startswith="space.").order_by("id").values_list("kind", flat=True)
    assert list(kinds) == ["space.created", "space.suspended", "space.resumed"]


def test_a_space_is_renamed_and_never_deleted(signed_in: Client, space: Space) -> None:
    signed_in.post(f"/admin/tenants/space/{space.pk}/change/", {"name": "Halcyon"})

    assert Space.objects.get().name == "Halcyon"
    assert signed_in.post(f"/admin/tenants/space/{space.pk}/delete/", {"post": "yes"}).status_code == 403


def test_an_operator_edits_a_managers_name_and_password(signed_in: Client, manager: User) -> None:
    data = {"username": "mira2", "display_name": "Mira", "new_password": "brand new secret"}

    assert signed_in.post(f"/admin/accounts/user/{manager.pk}/change/", data).status_code == 302

    assert Client().post("/login/", {"username": "mira2", "password": "brand new secret"}).status_code == 302
    kinds = list(AuditEvent.objects.order_by("id").values_list("kind", flat=True))
    assert kinds[-3:] == ["member.edited", "member.password_set", "session.signed_in"]


def test_an_operator_cannot_edit_a_member(signed_in: Client, member: User) -> None:
    data = {"username": "hacked", "new_password": "brand new secret"}

    assert signed_in.post(f"/admin/accounts/user/{member.pk}/change/", data).status_code == 403
    assert User.objects.get(pk=member.pk).username == "jun"


def test_no_password_hash_is_on_any_page_of_django_admin(signed_in: Client, manager: User, member: User) -> None:
    for person in (manager, member):
        page = signed_in.get(f"/admin/accounts/user/{person.pk}/change/").content.decode()
        assert person.password not in page and person.password.split("$")[-1] not in page
