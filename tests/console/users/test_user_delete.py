from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts.models import User
from audit.models import AuditEvent
from core.ids import new_id
from core.money import NANOS_PER_USD
from quotas.charging import Call, hold
from quotas.models import Transfer, Wallet
from tests.factories import PASSWORD, charge
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db

USD = NANOS_PER_USD
HTMX = {"HX-Request": "true", "HX-Current-URL": "http://testserver/space/users/"}


@pytest.fixture
def signed_in(client: Client, manager: User) -> Client:
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")
    return client


def delete(client: Client, member: User, confirm: str, headers: dict[str, str] | None = None) -> Any:
    return client.post(f"/space/users/{member.number}/delete/", {"confirm": confirm}, headers=headers)


def test_deleting_returns_what_is_left_and_keeps_what_was_spent(signed_in: Client, member: User) -> None:
    charge(member, cost_usd=3)

    response = delete(signed_in, member, "jun")

    pool = Wallet.objects.get(kind="pool")
    returned = Transfer.objects.get(kind="return")
    assert response.status_code == 303
    assert (pool.available, pool.allocated) == (497 * USD, 3 * USD)
    assert (returned.amount, returned.member_name, returned.pool_available_after) == (2 * USD, "jun", 497 * USD)
    assert UsageRecord.objects.get().username == "jun"


def test_the_person_is_gone_and_their_tombstone_stays(signed_in: Client, member: User) -> None:
    theirs = Client()
    theirs.post("/login/", {"username": "jun", "password": PASSWORD})

    delete(signed_in, member, "jun")

    gone = User.everyone.get(pk=member.pk)
    assert theirs.get("/me/credits/").status_code == 302
    assert Client().post("/login/", {"username": "jun", "password": PASSWORD}).status_code == 422
    assert signed_in.get(f"/space/users/{member.number}/edit/").status_code == 404
    assert (gone.deleted_at is not None, gone.is_active, gone.has_usable_password()) == (True, False, False)
    assert not User.objects.filter(pk=member.pk).exists()


@pytest.mark.parametrize("confirm", ["", "JUN", "ju", "\0", "jun\u202e", "x" * 10_000_000])
def test_a_wrong_name_deletes_nothing(signed_in: Client, member: User, confirm: str) -> None:
    response = delete(signed_in, member, confirm, HTMX)

    assert response.status_code == 422 and response.context["form"].errors["confirm"]
    assert User.objects.filter(pk=member.pk).exists() and Wallet.objects.get(user=member).total == 5 * USD
    assert len(response.content) < 40_000


def test_the_dialog_says_what_will_happen(signed_in: Client, member: User) -> None:
    charge(member, cost_usd=3)
    hold(request_id=new_id(), user=member, amount_nanos=USD // 2, call=Call(model="m"))

    page = " ".join(signed_in.get(f"/space/users/{member.number}/delete/", headers=HTMX).content.decode().split())

    assert all(figure in page for figure in ("$1.50", "$495.00", "$496.50", "$3.00", "$0.50", "1 log row"))


def test_a_hold_in_flight_stays_with_the_deleted_members_books(signed_in: Client, member: User) -> None:
    hold(request_id=new_id(), user=member, amount_nanos=2 * USD, call=Call(model="m"))

    delete(signed_in, member, "jun")

    wallet = Wallet.objects.get(user=member)
    assert (wallet.total, wallet.held, wallet.available, wallet.is_closed) == (2 * USD, 2 * USD, 0, True)


def test_htmx_gets_the_list_again_and_focus_on_the_neighbour(
    signed_in: Client, member: User, admin_member: User
) -> None:
    response = delete(signed_in, member, "jun", HTMX)

    page = response.content.decode()
    assert f'"focus": "edit-{admin_member.number}"' in response["HX-Trigger-After-Settle"]
    assert "jun deleted. $5.00 returned to the pool." in page
    assert f'id="user-{admin_member.number}"' in page and f'id="user-{member.number}"' not in page


def test_deleting_the_last_one_focuses_add_user(signed_in: Client, member: User) -> None:
    assert '"focus": "add-user"' in delete(signed_in, member, "jun", HTMX)["HX-Trigger-After-Settle"]


def test_deleting_twice_is_404(signed_in: Client, member: User) -> None:
    delete(signed_in, member, "jun")

    assert delete(signed_in, member, "jun").status_code == 404
    assert Transfer.objects.filter(kind="return").count() == 1


def test_deleting_is_in_the_audit_trail(signed_in: Client, member: User) -> None:
    delete(signed_in, member, "jun")

    event = AuditEvent.objects.get(kind="member.deleted")
    assert (event.actor_name, event.target_id, event.target_name) == ("mira", member.pk, "jun")
