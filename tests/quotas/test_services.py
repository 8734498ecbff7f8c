from __future__ import annotations

import pytest
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, connection, transaction

from accounts.models import User
from audit.models import AuditEvent
from core import origin
from core.errors import (
    BelowHeld,
    InsufficientPool,
    KeyReused,
    MemberGoneError,
    PoolLimit,
    QuotaError,
    StaleTotal,
    WalletClosed,
)
from core.ids import new_id
from core.money import MAX_AMOUNT_NANOS
from quotas.charging import hold
from quotas.members import MemberChanges, create_member, delete_member, edit_member, set_enabled
from quotas.models import Transfer, Wallet
from quotas.pool import pool_of
from quotas.services import grant, revoke, set_remaining
from quotas.spaces import create_space
from tenants.models import Space
from tests.factories import PASSWORD, MemberFactory, SpaceFactory, charge
from tests.quotas.books import CALL, USD, books, conserved, figures, journal

# Fixtures: a pool of $500.00, of which the member "jun" has $5.00.


def _hold(user: User, nanos: int) -> None:
    hold(request_id=new_id(), user=user, amount_nanos=nanos, call=CALL)


# Pool: available = total - allocated - manager's spent - manager's held.


def test_the_pools_available_is_what_it_neither_allocated_nor_its_manager_spends(
    space: Space, manager: User, member: User
) -> None:
    charge(manager, cost_usd=3)
    _hold(manager, 2 * USD)

    assert figures(space) == (500 * USD, 5 * USD, 3 * USD, 2 * USD)
    assert pool_of(space).available == 490 * USD


@pytest.mark.parametrize("figure", ["allocated", "spent", "held"])
def test_the_database_refuses_a_pool_that_gives_more_than_it_has(space: Space, figure: str) -> None:
    with pytest.raises(IntegrityError, match="wallet_covers_what_it_gave"), transaction.atomic():
        Wallet.objects.filter(space=space).update(**{figure: 500 * USD + 1})

    assert figures(space) == (500 * USD, 0, 0, 0)


@pytest.mark.parametrize("figure", ["total", "allocated", "spent", "held"])
def test_the_database_refuses_a_negative_figure(member: User, figure: str) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Wallet.objects.filter(user=member).update(**{figure: -1})

    assert figures(member) == (5 * USD, 0, 0, 0)


# Setting a member's remaining.


def test_a_members_total_is_allocations_less_reclaims_and_remaining_is_total_less_spent(
    member: User, manager: User
) -> None:
    charge(member, cost_usd=3)
    set_remaining(member=member, remaining_nanos=6 * USD, actor=manager)
    set_remaining(member=member, remaining_nanos=2 * USD, actor=manager)

    wallet = Wallet.objects.get(user=member)

    assert (wallet.remaining, wallet.total) == (2 * USD, 5 * USD)
    assert journal(member.space)[1:] == [("allocate", 5 * USD), ("allocate", 4 * USD), ("reclaim", 4 * USD)]


def test_raising_remaining_moves_the_difference_as_one_transfer_with_the_balances_after(
    space: Space, manager: User, member: User, charged: None
) -> None:
    transfer = set_remaining(member=member, remaining_nanos=10 * USD, actor=manager).transfer

    assert transfer == Transfer.objects.first()
    assert transfer is not None
    assert _facts(transfer) == ("allocate", 6_250_000_000, "jun", 2, "mira", "")
    assert _balances_after(transfer) == (500 * USD, 488_750_000_000, 11_250_000_000, 10 * USD)
    assert (transfer.source, transfer.target) == (pool_of(space), Wallet.objects.get(user=member))
    assert figures(member) == (11_250_000_000, 0, 1_250_000_000, 0)
    assert figures(space) == (500 * USD, 11_250_000_000, 0, 0)


def test_lowering_remaining_moves_the_difference_back_as_one_transfer_with_the_balances_after(
    space: Space, manager: User, member: User, charged: None
) -> None:
    transfer = set_remaining(member=member, remaining_nanos=1 * USD, actor=manager).transfer

    assert transfer is not None
    assert _facts(transfer) == ("reclaim", 2_750_000_000, "jun", 2, "mira", "")
    assert _balances_after(transfer) == (500 * USD, 497_750_000_000, 2_250_000_000, 1 * USD)
    assert (transfer.source, transfer.target) == (Wallet.objects.get(user=member), pool_of(space))
    assert figures(member) == (2_250_000_000, 0, 1_250_000_000, 0)
    assert figures(space) == (500 * USD, 2_250_000_000, 0, 0)


def test_setting_what_remains_already_moves_and_writes_nothing(member: User, manager: User, charged: None) -> None:
    before = books(member.space)

    assert set_remaining(member=member, remaining_nanos=3_750_000_000, actor=manager).transfer is None
    assert books(member.space) == before


def test_remaining_can_be_set_to_zero_and_the_total_stays_at_what_was_spent(
    member: User, manager: User, charged: None
) -> None:
    set_remaining(member=member, remaining_nanos=0, actor=manager)

    assert figures(member) == (1_250_000_000, 0, 1_250_000_000, 0)


@pytest.mark.parametrize("nanos", [-1, MAX_AMOUNT_NANOS + 1])
def test_remaining_beyond_the_limits_is_refused(member: User, manager: User, nanos: int) -> None:
    before = books(member.space)

    with pytest.raises(QuotaError, match="remaining must be"):
        set_remaining(member=member, remaining_nanos=nanos, actor=manager)

    assert books(member.space) == before


def test_remaining_below_what_is_in_flight_is_refused_with_the_figure(member: User, manager: User) -> None:
    _hold(member, 2 * USD)
    before = books(member.space)

    with pytest.raises(BelowHeld) as refusal:
        set_remaining(member=member, remaining_nanos=2 * USD - 1, actor=manager)

    assert refusal.value.held == 2 * USD
    assert books(member.space) == before


def test_remaining_can_be_lowered_to_just_what_is_in_flight(member: User, manager: User) -> None:
    _hold(member, 2 * USD)

    set_remaining(member=member, remaining_nanos=2 * USD, actor=manager)

    assert figures(member) == (2 * USD, 0, 0, 2 * USD)


def test_a_total_that_somebody_else_changed_is_refused_with_the_new_figures(
    member: User, manager: User, admin_member: User, charged: None
) -> None:
    set_remaining(member=member, remaining_nanos=8 * USD, actor=admin_member)
    before = books(member.space)

    with pytest.raises(StaleTotal) as refusal:
        set_remaining(member=member, remaining_nanos=9 * USD, was_total_nanos=5 * USD, actor=manager)

    assert (refusal.value.total, refusal.value.remaining) == (9_250_000_000, 8 * USD)
    assert books(member.space) == before


def test_spending_since_the_form_was_shown_does_not_make_the_total_stale(
    member: User, manager: User, charged: None
) -> None:
    set_remaining(member=member, remaining_nanos=9 * USD, was_total_nanos=5 * USD, actor=manager)

    assert figures(member) == (10_250_000_000, 0, 1_250_000_000, 0)


def test_an_edit_without_a_remaining_moves_no_money(member: User, manager: User, charged: None) -> None:
    before = figures(member), figures(member.space), journal(member.space)

    edit_member(member=member, changes=MemberChanges(display_name="J. Sato"), actor=manager)

    assert (figures(member), figures(member.space), journal(member.space)) == before


def test_an_edit_whose_amount_is_refused_changes_no_name_either(member: User, manager: User) -> None:
    before = books(member.space)

    with pytest.raises(InsufficientPool):
        edit_member(member=member, changes=MemberChanges(username="june", remaining_nanos=501 * USD), actor=manager)

    assert books(member.space) == before


# Allocations above the pool's available.


def test_an_allocation_above_the_pools_available_is_refused_with_the_figure(
    member: User, manager: User, charged: None
) -> None:
    before = books(member.space)

    with pytest.raises(InsufficientPool) as refusal:
        set_remaining(member=member, remaining_nanos=498_750_000_001, actor=manager)

    assert (refusal.value.available, refusal.value.amount) == (495 * USD, 495 * USD + 1)
    assert books(member.space) == before


def test_all_that_the_pool_has_available_can_be_allocated(space: Space, member: User, manager: User) -> None:
    set_remaining(member=member, remaining_nanos=500 * USD, actor=manager)

    assert figures(space) == (500 * USD, 500 * USD, 0, 0)
    assert pool_of(space).available == 0


def test_what_the_manager_holds_and_spent_cannot_be_allocated(space: Space, member: User, manager: User) -> None:
    charge(manager, cost_usd=3)
    _hold(manager, 2 * USD)

    with pytest.raises(InsufficientPool) as refusal:
        set_remaining(member=member, remaining_nanos=495 * USD + 1, actor=manager)

    assert refusal.value.available == 490 * USD


def test_an_admin_sets_their_own_remaining_out_of_the_pool(space: Space, admin_member: User) -> None:
    set_remaining(member=admin_member, remaining_nanos=100 * USD, actor=admin_member)

    assert figures(admin_member) == (100 * USD, 0, 0, 0)
    assert figures(space) == (500 * USD, 100 * USD, 0, 0)


# Disabling a member.


def test_disabling_moves_no_money(member: User, manager: User, charged: None) -> None:
    before = figures(member), figures(member.space), journal(member.space)

    set_enabled(member=member, is_enabled=False, actor=manager)

    assert (figures(member), figures(member.space), journal(member.space)) == before


def test_quota_of_a_disabled_member_is_reclaimed(member: User, manager: User) -> None:
    member = set_enabled(member=member, is_enabled=False, actor=manager)

    set_remaining(member=member, remaining_nanos=0, actor=manager)

    assert figures(member) == (0, 0, 0, 0)
    assert figures(member.space) == (500 * USD, 0, 0, 0)


# Deleting a member.


def test_deleting_returns_what_is_free_and_leaves_what_was_spent_allocated(
    space: Space, member: User, manager: User, charged: None
) -> None:
    transfer = delete_member(member=member, actor=manager)

    assert transfer is not None
    assert _facts(transfer) == ("return", 3_750_000_000, "jun", 2, "mira", "")
    assert _balances_after(transfer) == (500 * USD, 498_750_000_000, 1_250_000_000, 0)
    assert figures(member) == (1_250_000_000, 0, 1_250_000_000, 0)
    assert figures(space) == (500 * USD, 1_250_000_000, 0, 0)
    assert Wallet.objects.get(user=member).is_closed


def test_deleting_leaves_what_is_in_flight(space: Space, member: User, manager: User, charged: None) -> None:
    _hold(member, 2 * USD)

    transfer = delete_member(member=member, actor=manager)

    assert transfer is not None
    assert transfer.amount == 1_750_000_000
    assert figures(member) == (3_250_000_000, 0, 1_250_000_000, 2 * USD)
    assert conserved(space) == (500 * USD, 500 * USD)


def test_deleting_a_member_without_money_writes_no_transfer(space: Space, manager: User) -> None:
    broke = MemberFactory.create(space=space, username="broke")

    assert delete_member(member=broke, actor=manager) is None
    assert journal(space) == [("grant", 500 * USD)]


def test_a_deleted_member_gets_no_money(member: User, manager: User) -> None:
    delete_member(member=member, actor=manager)
    before = books(member.space)

    with pytest.raises(WalletClosed):
        set_remaining(member=member, remaining_nanos=1 * USD, actor=manager)
    with pytest.raises(MemberGoneError):
        edit_member(member=member, changes=MemberChanges(remaining_nanos=1 * USD), actor=manager)
    with pytest.raises(MemberGoneError):
        delete_member(member=member, actor=manager)

    assert books(member.space) == before


def test_the_journal_keeps_the_name_that_a_deleted_member_had(space: Space, member: User, manager: User) -> None:
    edit_member(member=member, changes=MemberChanges(username="june"), actor=manager)
    member.refresh_from_db()
    delete_member(member=member, actor=manager)
    MemberFactory.create(space=space, username="june", usd=1)

    named = Transfer.objects.filter(space=space, member_number=2).order_by("id").values_list("kind", "member_name")

    assert list(named) == [("allocate", "jun"), ("return", "june")]


# Idempotency keys.


def test_a_grant_repeated_with_its_key_moves_nothing_and_returns_the_first(space: Space, operator: User) -> None:
    first = grant(space=space, amount_nanos=20 * USD, reason="May", actor=operator, key="may")
    before = books(space)

    again = grant(space=space, amount_nanos=20 * USD, reason="May", actor=operator, key="may")

    assert (again, books(space)) == (first, before)
    assert figures(space) == (520 * USD, 0, 0, 0)


def test_a_revoke_repeated_with_its_key_moves_nothing_and_returns_the_first(space: Space, operator: User) -> None:
    first = revoke(space=space, amount_nanos=400 * USD, reason="Unpaid", actor=operator, key="unpaid")
    before = books(space)

    again = revoke(space=space, amount_nanos=400 * USD, reason="Unpaid", actor=operator, key="unpaid")

    assert (again, books(space)) == (first, before)
    assert figures(space) == (100 * USD, 0, 0, 0)


def test_a_key_that_granted_another_amount_is_refused(space: Space, operator: User) -> None:
    grant(space=space, amount_nanos=20 * USD, reason="May", actor=operator, key="may")
    before = books(space)

    with pytest.raises(KeyReused):
        grant(space=space, amount_nanos=21 * USD, reason="May", actor=operator, key="may")
    with pytest.raises(KeyReused):
        revoke(space=space, amount_nanos=20 * USD, reason="May", actor=operator, key="may")

    assert books(space) == before


def test_without_a_key_each_grant_counts(space: Space) -> None:
    grant(space=space, amount_nanos=20 * USD, reason="", actor=None)
    grant(space=space, amount_nanos=20 * USD, reason="", actor=None)

    assert figures(space) == (540 * USD, 0, 0, 0)


def test_one_key_moves_money_in_each_of_two_spaces(space: Space) -> None:
    other = SpaceFactory.create(grant_usd=10)

    for each in (space, other):
        grant(space=each, amount_nanos=20 * USD, reason="May", actor=None, key="may")

    assert (figures(space)[0], figures(other)[0]) == (520 * USD, 30 * USD)


def test_a_remaining_set_twice_with_one_key_moves_once(member: User, manager: User) -> None:
    first = set_remaining(member=member, remaining_nanos=9 * USD, actor=manager, key="k").transfer
    charge(member, cost_usd=4)
    before = books(member.space)

    again = set_remaining(member=member, remaining_nanos=9 * USD, actor=manager, key="k").transfer

    assert (again, books(member.space)) == (first, before)
    assert figures(member) == (9 * USD, 0, 4 * USD, 0)


def test_a_key_that_set_another_amount_is_refused(member: User, manager: User) -> None:
    set_remaining(member=member, remaining_nanos=9 * USD, actor=manager, key="k")
    before = books(member.space)

    with pytest.raises(KeyReused):
        set_remaining(member=member, remaining_nanos=7 * USD, actor=manager, key="k")

    assert books(member.space) == before


def test_a_key_that_moved_another_members_money_is_refused(member: User, admin_member: User, manager: User) -> None:
    set_remaining(member=member, remaining_nanos=9 * USD, actor=manager, key="k")
    grant(space=member.space, amount_nanos=1, reason="", actor=None, key="g")
    before = books(member.space)

    for key in ("k", "g"):
        with pytest.raises(KeyReused):
            set_remaining(member=admin_member, remaining_nanos=9 * USD, actor=manager, key=key)

    assert books(member.space) == before


# Transfers are append-only.


def test_a_transfer_can_be_neither_changed_nor_deleted(member: User) -> None:
    before = books(member.space)

    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        Transfer.objects.filter(space=member.space).update(amount=1)
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        Transfer.objects.filter(space=member.space).delete()

    assert books(member.space) == before


# Operators grant and revoke.


def test_a_grant_raises_the_pools_total_as_one_transfer_with_the_balances_after(
    space: Space, member: User, operator: User
) -> None:
    transfer = grant(space=space, amount_nanos=20 * USD, reason="May", actor=operator)

    assert _facts(transfer) == ("grant", 20 * USD, "", None, "operator", "May")
    assert _balances_after(transfer) == (520 * USD, 515 * USD, None, None)
    assert (transfer.source, transfer.target) == (None, pool_of(space))
    assert figures(space) == (520 * USD, 5 * USD, 0, 0)


def test_a_revoke_takes_all_that_is_available_and_not_a_nano_more(
    space: Space, member: User, manager: User, operator: User
) -> None:
    charge(manager, cost_usd=3)
    _hold(manager, 2 * USD)
    before = books(space)

    with pytest.raises(InsufficientPool) as refusal:
        revoke(space=space, amount_nanos=490 * USD + 1, reason="", actor=operator)
    assert (refusal.value.available, refusal.value.amount, books(space)) == (490 * USD, 490 * USD + 1, before)

    transfer = revoke(space=space, amount_nanos=490 * USD, reason="Unpaid", actor=operator)
    assert _facts(transfer) == ("revoke", 490 * USD, "", None, "operator", "Unpaid")
    assert _balances_after(transfer) == (10 * USD, 0, None, None)
    assert (transfer.source, transfer.target) == (pool_of(space), None)
    assert figures(space) == (10 * USD, 5 * USD, 3 * USD, 2 * USD)


@pytest.mark.parametrize("nanos", [0, -1, MAX_AMOUNT_NANOS + 1])
@pytest.mark.parametrize("move", [grant, revoke])
def test_an_amount_of_zero_or_less_or_beyond_the_limit_is_refused(space: Space, move, nanos: int) -> None:
    before = books(space)

    with pytest.raises(QuotaError, match="amount must be"):
        move(space=space, amount_nanos=nanos, reason="", actor=None)

    assert books(space) == before


def test_a_grant_beyond_what_a_pool_may_hold_is_refused_with_the_room_left(space: Space) -> None:
    room = MAX_AMOUNT_NANOS - 500 * USD
    before = books(space)

    with pytest.raises(PoolLimit) as refusal:
        grant(space=space, amount_nanos=room + 1, reason="", actor=None)
    assert (refusal.value.room, books(space)) == (room, before)

    grant(space=space, amount_nanos=room, reason="", actor=None)
    assert figures(space) == (MAX_AMOUNT_NANOS, 0, 0, 0)


def test_a_space_whose_first_grant_is_too_large_is_not_made(db: None) -> None:
    with pytest.raises(QuotaError):
        create_space(name="Vast", manager_username="m", manager_password=PASSWORD, grant_nanos=MAX_AMOUNT_NANOS + 1)

    assert not Space.objects.filter(name="Vast").exists()
    assert not User.everyone.filter(username="m").exists()


# A transfer and its audit event are one transaction.


def test_a_move_leaves_an_audit_event_with_actor_target_before_and_after(
    member: User, manager: User, charged: None
) -> None:
    with origin.acting(address="203.0.113.7", request_id="r-1"):
        set_remaining(member=member, remaining_nanos=1 * USD, actor=manager)

    event = AuditEvent.objects.get(kind="member.quota_set", request_id="r-1")
    assert (event.actor_id, event.actor_name, event.target_id, event.target_name) == (
        (manager.pk, "mira", member.pk, "jun")
    )
    assert (event.space, event.address) == (member.space, "203.0.113.7")
    assert event.before == {"remaining": "3.75", "total": "5.00"}
    assert event.after == {"remaining": "1.00", "total": "2.25"}


def test_grants_and_revokes_leave_audit_events_with_the_reason(space: Space, operator: User) -> None:
    grant(space=space, amount_nanos=20 * USD, reason="May", actor=operator)
    revoke(space=space, amount_nanos=5 * USD, reason="Unpaid", actor=None)

    events = AuditEvent.objects.filter(space=space, kind__startswith="pool.").order_by("id")[1:]
    assert list(events.values_list("kind", "actor_name", "before", "after")) == [
        ("pool.grant", "operator", {"total": "500.00"}, {"total": "520.00", "reason": "May"}),
        ("pool.revoke", "system", {"total": "520.00"}, {"total": "515.00", "reason": "Unpaid"}),
    ]


def test_a_move_whose_audit_event_cannot_be_written_does_not_happen(space: Space, member: User, manager: User) -> None:
    before = books(space)
    _refuse_audit_events()

    with pytest.raises(IntegrityError):
        set_remaining(member=member, remaining_nanos=9 * USD, actor=manager)
    with pytest.raises(IntegrityError):
        grant(space=space, amount_nanos=1, reason="", actor=None)
    with pytest.raises(IntegrityError):
        delete_member(member=member, actor=manager)

    assert books(space) == before


def _refuse_audit_events() -> None:
    """Make every INSERT of an audit event fail with a trigger, which the test's rollback removes."""
    refusal = {
        "sqlite": "BEGIN SELECT RAISE(ABORT, 'no more audit events'); END",
        "postgresql": "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TRIGGER refuse_audit_events BEFORE INSERT ON audit_auditevent {refusal}")


# Isolation between spaces.


def test_a_move_in_one_space_leaves_another_as_it_was(member: User, stranger: User, manager: User) -> None:
    before = books(stranger.space)

    set_remaining(member=member, remaining_nanos=9 * USD, actor=manager)
    grant(space=member.space, amount_nanos=1 * USD, reason="", actor=None)
    delete_member(member=member, actor=manager)

    assert books(stranger.space) == before


def test_a_manager_can_neither_edit_nor_delete_a_stranger_nor_add_to_their_space(manager: User, stranger: User) -> None:
    before = books(stranger.space)

    with pytest.raises(PermissionDenied):
        edit_member(member=stranger, changes=MemberChanges(remaining_nanos=0), actor=manager)
    with pytest.raises(PermissionDenied):
        delete_member(member=stranger, actor=manager)
    with pytest.raises(PermissionDenied):
        create_member(space=stranger.space, username="spy", display_name="", password=PASSWORD, actor=manager)

    assert books(stranger.space) == before


def _facts(transfer: Transfer) -> tuple[str, int, str, int | None, str, str]:
    return (
        transfer.kind,
        transfer.amount,
        transfer.member_name,
        transfer.member_number,
        transfer.actor_name,
        transfer.reason,
    )


def _balances_after(transfer: Transfer) -> tuple[int, int, int | None, int | None]:
    return (
        transfer.pool_total_after,
        transfer.pool_available_after,
        transfer.member_total_after,
        transfer.member_remaining_after,
    )
