from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection

from accounts.keys import KeyTerms, create_key
from accounts.models import User
from core.ids import NIL, new_id
from quotas.charging import Call, hold, settle
from quotas.members import delete_member
from quotas.models import Reconciliation, Wallet
from quotas.pool import pool_of
from quotas.reconcile import reconcile
from quotas.services import revoke, set_remaining
from tenants.models import Space
from tests.factories import SpaceFactory, charge
from tests.quotas.books import CALL, USD
from usage.models import HourlyUsage


def _drift(statement: str) -> None:
    """Corrupt stored figures with raw SQL, which no code of the product does."""
    with connection.cursor() as cursor:
        cursor.execute(statement)


def _run_command() -> tuple[int, str, str]:
    """Run the command and return (exit code, stdout, stderr)."""
    out, err = StringIO(), StringIO()
    try:
        call_command("reconcile", stdout=out, stderr=err)
    except SystemExit as end:
        return int(str(end.code)), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def _found(space: Space) -> list[tuple[str, str, int, int]]:
    return [(found.row, found.figure, found.stored, found.computed) for found in reconcile(space)]


@pytest.fixture
def busy(space: Space, manager: User, member: User, admin_member: User, charged: None) -> Space:
    """Books with every kind of transfer, a hold in flight, the manager's own spending and a deleted member."""
    charge(manager, cost_usd=3)
    hold(request_id=new_id(), user=member, amount_nanos=1 * USD, call=CALL)
    set_remaining(member=admin_member, remaining_nanos=10 * USD, actor=manager)
    charge(admin_member, cost_usd=2)
    hold(request_id=new_id(), user=admin_member, amount_nanos=1 * USD, call=CALL)
    delete_member(member=admin_member, actor=manager)
    revoke(space=space, amount_nanos=20 * USD, reason="", actor=None)
    return space


def test_the_command_exits_0_with_one_line_when_the_books_balance(busy: Space) -> None:
    assert _run_command() == (0, "The books balance: 1 space.\n", "")


def test_all_spaces_are_compared(busy: Space, stranger: User) -> None:
    assert _run_command() == (0, "The books balance: 2 spaces.\n", "")


def test_a_balanced_outcome_is_kept(busy: Space) -> None:
    assert reconcile(busy) == []

    kept = Reconciliation.objects.get()
    assert (kept.space, kept.is_balanced, kept.differences) == (busy, True, [])


@pytest.mark.parametrize(("figure", "stored"), [("spent", USD // 4), ("held", USD)])
def test_a_keys_figure_that_drifted_is_found_and_named(member: User, figure: str, stored: int) -> None:
    key = create_key(owner=member, terms=KeyTerms(name="laptop"))[0]
    call = Call(model="m", key_id=key.pk)
    settled = new_id()
    for request_id in (settled, new_id()):
        hold(request_id=request_id, user=member, amount_nanos=USD, call=call)
    settle(space_id=key.space_id, request_id=settled, cost_nanos=USD // 4, call=call)
    assert _found(key.space) == []

    _drift(f"UPDATE accounts_apikey SET {figure} = {figure} + 1")

    assert _found(key.space) == [(f"API key {key.pk}", figure, stored + 1, stored)]


@pytest.mark.parametrize(("figure", "stored"), [("total", 480), ("allocated", 8), ("spent", 3), ("held", 0)])
@pytest.mark.parametrize("by", [1, -1])
def test_a_pools_figure_that_drifted_is_found_and_named(busy: Space, figure: str, stored: int, by: int) -> None:
    if (figure, by) == ("held", -1):
        hold(request_id=new_id(), user=busy.people.get(number=1), amount_nanos=1 * USD, call=CALL)
        stored = 1
    _drift(f"UPDATE quotas_wallet SET {figure} = {figure} + ({by}) WHERE kind = 'pool'")

    assert _found(busy) == [(f"wallet {pool_of(busy).pk}", figure, stored * USD + by, stored * USD)]


@pytest.mark.parametrize("figure", ["total", "spent", "held"])
@pytest.mark.parametrize("by", [1, -1])
def test_a_members_figure_that_drifted_is_found_and_named(busy: Space, member: User, figure: str, by: int) -> None:
    wallet = Wallet.objects.get(user=member)
    right: int = getattr(wallet, figure)
    _drift(f"UPDATE quotas_wallet SET {figure} = {figure} + ({by}) WHERE user_id = {member.pk}")

    assert _found(busy) == [(f"wallet {wallet.pk}", figure, right + by, right)]


def test_a_deleted_members_figure_that_drifted_is_found(busy: Space, admin_member: User) -> None:
    _drift(f"UPDATE quotas_wallet SET total = total + 1, spent = spent + 1 WHERE user_id = {admin_member.pk}")

    assert [difference.figure for difference in reconcile(busy)] == ["total", "spent"]


def test_the_command_exits_1_and_names_the_space_and_the_figure_that_differs(busy: Space) -> None:
    pool = pool_of(busy)
    _drift("UPDATE quotas_wallet SET spent = spent + 1 WHERE kind = 'pool'")

    code, out, err = _run_command()
    assert (code, err) == (1, "The books differ in 1 figure.\n")
    assert out == f"Halcyon Labs: wallet {pool.pk}: spent is 3000000001, the records come to 3000000000\n"


def test_the_command_counts_the_figures_that_differ(busy: Space) -> None:
    _drift("UPDATE quotas_wallet SET total = total + 1, spent = spent + 1 WHERE kind = 'pool'")

    assert _run_command()[2] == "The books differ in 2 figures.\n"


def test_the_outcome_of_books_that_differ_is_kept_with_the_figures(busy: Space) -> None:
    pool = pool_of(busy)
    _drift("UPDATE quotas_wallet SET spent = spent + 1 WHERE kind = 'pool'")

    reconcile(busy)

    kept = Reconciliation.objects.get()
    assert (kept.space, kept.is_balanced) == (busy, False)
    (difference,) = kept.differences
    assert difference == {"row": f"wallet {pool.pk}", "figure": "spent", "stored": 3 * USD + 1, "computed": 3 * USD}


@pytest.mark.parametrize(
    "figure",
    ["requests", "errors", "input_tokens", "output_tokens", "error_input_tokens", "error_output_tokens", "cost"],
)
def test_an_hours_figure_that_drifted_is_found_and_named(busy: Space, member: User, figure: str) -> None:
    right = HourlyUsage.objects.values_list(figure, flat=True).get(user_id=member.pk)
    _drift(f"UPDATE usage_hourlyusage SET {figure} = {figure} + 1 WHERE user_id = {member.pk}")

    assert _found(busy) == [(f"usage of {member.pk} {NIL} gpt-4o-mini", figure, right + 1, right)]


def test_a_missing_hour_is_found(busy: Space, member: User) -> None:
    HourlyUsage.objects.filter(user_id=member.pk).delete()

    assert {(found.figure, found.stored, found.computed) for found in reconcile(busy)} == {
        ("requests", 0, 1),
        ("input_tokens", 0, 1000),
        ("output_tokens", 0, 200),
        ("cost", 0, 1_250_000_000),
    }


def test_a_missing_hold_is_found(busy: Space, member: User) -> None:
    _drift(f"DELETE FROM quotas_hold WHERE user_id = {member.pk}")

    assert [(found.figure, found.stored, found.computed) for found in reconcile(busy)] == [("held", USD, 0)]


def test_a_hold_of_a_wallet_that_does_not_exist_is_found(busy: Space, member: User) -> None:
    lost = new_id()
    _drift(f"UPDATE quotas_hold SET wallet_id = '{lost.hex}' WHERE user_id = {member.pk}")

    found = {(difference.figure, difference.stored, difference.computed) for difference in reconcile(busy)}
    assert found == {("held", USD, 0), ("held", 0, USD)}


def test_another_spaces_drift_does_not_matter(busy: Space, stranger: User) -> None:
    _drift(f"UPDATE quotas_wallet SET spent = spent + 1 WHERE space_id = {stranger.space_id}")
    _drift(f"UPDATE usage_hourlyusage SET cost = cost + 1 WHERE space_id = {stranger.space_id}")

    assert reconcile(busy) == []
    assert [difference.figure for difference in reconcile(stranger.space)] == ["spent", "spent"]


def test_one_spaces_drift_does_not_keep_another_from_being_compared(busy: Space) -> None:
    later = SpaceFactory.create(name="Later")
    _drift(f"UPDATE quotas_wallet SET spent = spent + 1 WHERE space_id = {busy.pk} AND kind = 'pool'")

    assert _run_command()[0] == 1
    assert list(Reconciliation.objects.order_by("id").values_list("space", "is_balanced")) == [
        (busy.pk, False),
        (later.pk, True),
    ]
