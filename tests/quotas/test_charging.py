from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import IntegrityError
from django.utils import timezone

from accounts.keys import KeyTerms, create_key
from accounts.models import User
from core import origin
from core.errors import HoldUnknown, InsufficientQuota, NotSpending, QuotaError
from core.ids import NIL, new_id
from quotas.charging import SWEPT, Call, expire_holds, hold, release, renew, settle
from quotas.members import delete_member, set_enabled
from quotas.models import Hold, Transfer, Wallet
from quotas.pool import pool_of
from quotas.reconcile import reconcile
from quotas.services import set_remaining
from quotas.spaces import set_suspended
from tenants.models import Space
from tests.factories import MemberFactory
from tests.quotas.books import CALL, USD, books, conserved, figures, journal
from usage.models import HourlyUsage, UsageRecord

# Fixtures: a pool of $500.00, of which the member "jun" has $5.00.

FAILED = Call(model="gpt-4o-mini", status=502, code="upstream_error")
NOON = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)


def _hold(user: User, nanos: int, **options: Any) -> UUID:
    request_id = new_id()
    made, is_new = hold(request_id=request_id, user=user, amount_nanos=nanos, **{"call": CALL} | options)
    assert (made.pk, is_new) == (request_id, True)
    return request_id


def _settle(user: User, request_id: UUID, nanos: int, call: Call = CALL) -> UsageRecord:
    assert user.space_id is not None
    return settle(space_id=user.space_id, request_id=request_id, cost_nanos=nanos, call=call)


def _release(user: User, request_id: UUID, call: Call | None = None) -> bool:
    assert user.space_id is not None
    return release(space_id=user.space_id, request_id=request_id, call=call)


def _renew(user: User, request_id: UUID, nanos: int, **options: Any) -> bool:
    assert user.space_id is not None
    return renew(space_id=user.space_id, request_id=request_id, delivered_bytes=800, accrued_nanos=nanos, **options)


def _sweep_all() -> int:
    return expire_holds(now=timezone.now() + timedelta(hours=1))


def _charges(user: User) -> list[tuple[int, int, int, int]]:
    """(held, cost, shortfall, available after) of each log row, the oldest first."""
    rows = UsageRecord.objects.filter(user_id=user.pk).order_by("id")
    return list(rows.values_list("held", "cost", "shortfall", "available_after"))


# Hold.


def test_a_hold_sets_money_aside_without_spending_it(member: User) -> None:
    request_id = _hold(member, 2 * USD)

    made = Hold.objects.get()
    assert (made.pk, made.space, made.wallet, made.user_id) == (request_id, member.space, member.wallet, member.pk)
    assert (made.amount, made.accrued, made.model) == (2 * USD, 0, "gpt-4o-mini")
    assert made.expires_at - made.created_at == timedelta(seconds=60)
    assert figures(member) == (5 * USD, 0, 0, 2 * USD)
    assert Wallet.objects.get(user=member).remaining == 5 * USD


def test_the_last_nano_can_be_held(member: User) -> None:
    _hold(member, 5 * USD)

    assert Wallet.objects.get(user=member).available == 0


def test_a_hold_above_what_is_available_is_refused_with_the_figure(member: User) -> None:
    _hold(member, 2 * USD)
    before = books(member.space)

    with pytest.raises(InsufficientQuota) as refusal:
        _hold(member, 3 * USD + 1)

    assert (refusal.value.available, refusal.value.amount) == (3 * USD, 3 * USD + 1)
    assert books(member.space) == before


def test_a_members_hold_does_not_draw_on_the_pool(member: User) -> None:
    with pytest.raises(InsufficientQuota):
        _hold(member, 6 * USD)

    assert figures(member.space) == (500 * USD, 5 * USD, 0, 0)


def test_a_negative_hold_is_refused(member: User) -> None:
    with pytest.raises(QuotaError, match="must not be negative"):
        _hold(member, -1)

    assert figures(member) == (5 * USD, 0, 0, 0)


def test_a_hold_made_twice_with_one_id_holds_once(member: User) -> None:
    request_id = _hold(member, 2 * USD)
    before = books(member.space)

    again, is_new = hold(request_id=request_id, user=member, amount_nanos=4 * USD, call=CALL)

    assert (again, is_new) == (Hold.objects.get(), False)
    assert books(member.space) == before


@pytest.mark.parametrize("nanos", [0, 1 * USD])
def test_a_settled_request_cannot_be_held_again(member: User, nanos: int) -> None:
    request_id = _hold(member, 2 * USD)
    _settle(member, request_id, nanos)
    before = books(member.space)

    with pytest.raises(HoldUnknown):
        hold(request_id=request_id, user=member, amount_nanos=2 * USD, call=CALL)

    assert books(member.space) == before


def test_a_swept_request_cannot_be_held_again(member: User) -> None:
    request_id = _hold(member, 2 * USD)
    _sweep_all()

    with pytest.raises(HoldUnknown):
        hold(request_id=request_id, user=member, amount_nanos=2 * USD, call=CALL)

    assert figures(member) == (5 * USD, 0, 0, 0)


# Settle.


def test_settling_charges_the_cost_and_releases_the_rest(member: User) -> None:
    request_id = _hold(member, 2 * USD)

    record = _settle(member, request_id, 1_250_000_000)

    assert figures(member) == (5 * USD, 0, 1_250_000_000, 0)
    assert (record.request_id, record.wallet_id, record.user_id) == (request_id, member.wallet.pk, member.pk)
    assert (record.username, record.kind, record.status, record.code) == ("jun", "consume", 200, "")
    assert (record.input_tokens, record.output_tokens) == (1000, 200)
    assert _charges(member) == [(2 * USD, 1_250_000_000, 0, 3_750_000_000)]
    assert not Hold.objects.exists()


def test_a_settlement_repeated_charges_once_and_returns_the_first_record(member: User) -> None:
    request_id = _hold(member, 2 * USD)
    first = _settle(member, request_id, 1 * USD)
    before = books(member.space)

    assert _settle(member, request_id, 1 * USD) == first
    assert _settle(member, request_id, 4 * USD) == first
    assert books(member.space) == before


def test_a_cost_beyond_the_hold_is_charged_as_far_as_the_wallet_goes(member: User) -> None:
    _hold(member, 1 * USD)
    request_id = _hold(member, 2 * USD)

    _settle(member, request_id, 7 * USD)

    assert _charges(member) == [(2 * USD, 4 * USD, 3 * USD, 0)]
    assert figures(member) == (5 * USD, 0, 4 * USD, 1 * USD)


def test_a_cost_beyond_the_hold_that_the_wallet_covers_leaves_no_shortfall(member: User) -> None:
    request_id = _hold(member, 2 * USD)

    _settle(member, request_id, 5 * USD)

    assert _charges(member) == [(2 * USD, 5 * USD, 0, 0)]
    assert figures(member) == (5 * USD, 0, 5 * USD, 0)


def test_a_negative_cost_is_refused(member: User) -> None:
    request_id = _hold(member, 2 * USD)
    before = books(member.space)

    with pytest.raises(QuotaError, match="not be negative"):
        _settle(member, request_id, -1)

    assert books(member.space) == before


def test_a_request_that_never_held_cannot_be_settled(member: User) -> None:
    before = books(member.space)

    with pytest.raises(HoldUnknown):
        _settle(member, new_id(), 1 * USD)

    assert books(member.space) == before


def test_a_strangers_hold_can_be_neither_settled_renewed_nor_released(member: User, stranger: User) -> None:
    request_id = _hold(stranger, 2 * USD)
    before = books(stranger.space)

    with pytest.raises(HoldUnknown):
        _settle(member, request_id, 1 * USD)

    assert (_renew(member, request_id, 1), _release(member, request_id)) == (False, False)
    assert books(stranger.space) == before


# Release.


def test_a_release_gives_the_money_back_and_charges_nothing(member: User) -> None:
    request_id = _hold(member, 2 * USD)

    assert _release(member, request_id) is True
    assert figures(member) == (5 * USD, 0, 0, 0)
    assert _charges(member) == []


def test_a_release_with_a_reason_leaves_an_error_row(member: User) -> None:
    request_id = _hold(member, 2 * USD)

    _release(member, request_id, FAILED)

    record = UsageRecord.objects.get()
    assert (record.kind, record.status, record.code) == ("error", 502, "upstream_error")
    assert _charges(member) == [(2 * USD, 0, 0, 5 * USD)]
    assert figures(member) == (5 * USD, 0, 0, 0)


def test_a_release_repeated_does_nothing(member: User) -> None:
    request_id = _hold(member, 2 * USD)
    _release(member, request_id, FAILED)
    before = books(member.space)

    assert _release(member, request_id, FAILED) is False
    assert books(member.space) == before


def test_a_released_request_is_charged_nothing_afterwards(member: User) -> None:
    silent, logged = _hold(member, 1 * USD), _hold(member, 1 * USD)
    _release(member, silent)
    _release(member, logged, FAILED)
    before = books(member.space)

    with pytest.raises(HoldUnknown):
        _settle(member, silent, 1 * USD)

    assert _settle(member, logged, 1 * USD).kind == "error"
    assert books(member.space) == before


def test_a_settled_request_cannot_be_released(member: User) -> None:
    request_id = _hold(member, 2 * USD)
    _settle(member, request_id, 1 * USD)
    before = books(member.space)

    assert _release(member, request_id, FAILED) is False
    assert books(member.space) == before


# Renew and expire.


def test_a_renewal_notes_what_was_delivered_and_moves_no_money(member: User) -> None:
    request_id = _hold(member, 2 * USD)

    assert _renew(member, request_id, 1 * USD, lifetime_s=600) is True

    kept = Hold.objects.get()
    assert (kept.amount, kept.accrued, kept.delivered_bytes) == (2 * USD, 1 * USD, 800)
    assert kept.expires_at - kept.created_at >= timedelta(seconds=600)
    assert figures(member) == (5 * USD, 0, 0, 2 * USD)


@pytest.mark.parametrize("end", [_release, lambda user, request_id: _settle(user, request_id, 1 * USD)])
def test_a_hold_that_is_gone_cannot_be_renewed(member: User, end) -> None:
    request_id = _hold(member, 2 * USD)
    end(member, request_id)

    assert _renew(member, request_id, 1 * USD) is False
    assert not Hold.objects.exists()


def test_a_hold_is_swept_when_its_time_is_over_and_not_a_moment_before(member: User) -> None:
    _hold(member, 2 * USD)
    over = Hold.objects.get().expires_at

    assert expire_holds(now=over - timedelta(microseconds=1)) == 0
    assert expire_holds(now=over) == 1
    assert figures(member) == (5 * USD, 0, 0, 0)


def test_a_sweep_charges_what_the_last_renewal_noted_and_releases_the_rest(member: User) -> None:
    request_id = _hold(member, 2 * USD)
    _renew(member, request_id, 500_000_000)

    assert _sweep_all() == 1

    record = UsageRecord.objects.get()
    assert (record.request_id, record.code, record.status, record.is_estimated) == (request_id, SWEPT, 504, True)
    assert _charges(member) == [(2 * USD, 500_000_000, 0, 4_500_000_000)]
    assert figures(member) == (5 * USD, 0, 500_000_000, 0)


def test_a_sweep_of_a_hold_that_delivered_nothing_is_an_error_that_costs_nothing(member: User) -> None:
    _hold(member, 2 * USD)
    _sweep_all()

    assert UsageRecord.objects.get().kind == "error"
    assert figures(member) == (5 * USD, 0, 0, 0)


def test_a_renewed_hold_is_not_swept(member: User) -> None:
    renewed, left_alone = _hold(member, 1 * USD, lifetime_s=1), _hold(member, 2 * USD, lifetime_s=1)
    _renew(member, renewed, 0, lifetime_s=600)

    assert expire_holds(now=timezone.now() + timedelta(seconds=60)) == 1
    assert list(Hold.objects.values_list("pk", flat=True)) == [renewed]
    assert UsageRecord.objects.get().request_id == left_alone


def test_two_sweeps_charge_a_hold_once(member: User) -> None:
    request_id = _hold(member, 2 * USD)
    _renew(member, request_id, 1 * USD)

    assert [_sweep_all(), _sweep_all()] == [1, 0]
    assert _charges(member) == [(2 * USD, 1 * USD, 0, 4 * USD)]


def test_a_sweep_takes_the_longest_overdue_first_and_no_more_than_asked(member: User) -> None:
    late, later = _hold(member, 1 * USD, lifetime_s=20), _hold(member, 1 * USD, lifetime_s=10)

    assert expire_holds(now=timezone.now() + timedelta(hours=1), max_holds=1) == 1
    assert list(Hold.objects.values_list("pk", flat=True)) == [late]
    assert UsageRecord.objects.get().request_id == later


# Settling after the sweep.


def test_settling_after_a_sweep_charges_what_the_sweep_had_not(member: User) -> None:
    request_id = _hold(member, 2 * USD)
    _renew(member, request_id, 500_000_000)
    _sweep_all()

    _settle(member, request_id, 1_500_000_000)

    assert _charges(member) == [(2 * USD, 500_000_000, 0, 4_500_000_000), (0, 1 * USD, 0, 3_500_000_000)]
    assert figures(member) == (5 * USD, 0, 1_500_000_000, 0)


def test_settling_after_a_sweep_charges_what_is_available_at_most(member: User) -> None:
    request_id = _hold(member, 4 * USD)
    _sweep_all()
    _hold(member, 3 * USD)

    _settle(member, request_id, 4 * USD)

    assert _charges(member)[1:] == [(0, 2 * USD, 2 * USD, 0)]
    assert figures(member) == (5 * USD, 0, 2 * USD, 3 * USD)


def test_settling_after_a_sweep_for_less_than_was_swept_charges_nothing(member: User) -> None:
    request_id = _hold(member, 2 * USD)
    _renew(member, request_id, 1 * USD)
    _sweep_all()

    _settle(member, request_id, 500_000_000)

    assert _charges(member)[1:] == [(0, 0, 0, 4 * USD)]
    assert figures(member) == (5 * USD, 0, 1 * USD, 0)


def test_settling_twice_after_a_sweep_charges_once(member: User) -> None:
    request_id = _hold(member, 2 * USD)
    _sweep_all()
    first = _settle(member, request_id, 1 * USD)
    before = books(member.space)

    assert _settle(member, request_id, 1 * USD) == first
    assert books(member.space) == before


def test_settling_twice_after_a_sweep_charges_once_though_the_sweepers_clock_was_ahead(member: User) -> None:
    request_id = _hold(member, 2 * USD)
    with origin.acting(moment=timezone.now() + timedelta(hours=1)):
        expire_holds()
    first = _settle(member, request_id, 1 * USD)
    before = books(member.space)

    assert _settle(member, request_id, 1 * USD) == first
    assert books(member.space) == before


def test_a_release_after_a_sweep_does_nothing(member: User) -> None:
    request_id = _hold(member, 2 * USD)
    _sweep_all()
    before = books(member.space)

    assert _release(member, request_id, FAILED) is False
    assert books(member.space) == before


# Users who may not spend, and their holds in flight.


def _disable(member: User, manager: User) -> None:
    set_enabled(member=member, is_enabled=False, actor=manager)


def _delete(member: User, manager: User) -> None:
    delete_member(member=member, actor=manager)


def _suspend(member: User, manager: User) -> None:
    assert member.space is not None
    set_suspended(space=member.space, is_suspended=True, actor=None)


@pytest.mark.parametrize("stop", [_disable, _delete, _suspend])
def test_a_disabled_deleted_or_suspended_member_gets_no_new_hold(member: User, manager: User, stop) -> None:
    in_flight = _hold(member, 1 * USD)
    stop(member, manager)
    before = books(member.space)

    with pytest.raises(NotSpending):
        _hold(member, 1 * USD)

    assert books(member.space) == before
    assert Hold.objects.get().pk == in_flight


@pytest.mark.parametrize("stop", [_disable, _delete, _suspend])
def test_a_hold_in_flight_settles_although_its_member_may_no_longer_spend(member: User, manager: User, stop) -> None:
    request_id = _hold(member, 2 * USD)
    stop(member, manager)

    record = _settle(member, request_id, 1 * USD)

    assert (record.username, record.cost, record.shortfall) == ("jun", 1 * USD, 0)
    assert Wallet.objects.get(user=member).spent == 1 * USD
    assert not Hold.objects.exists()


def test_a_manager_of_a_suspended_space_gets_no_new_hold(space: Space, manager: User) -> None:
    _suspend(manager, manager)

    with pytest.raises(NotSpending):
        _hold(manager, 1 * USD)

    assert figures(space) == (500 * USD, 0, 0, 0)


def test_a_member_enabled_again_spends_again(member: User, manager: User) -> None:
    _disable(member, manager)
    set_enabled(member=member, is_enabled=True, actor=manager)

    _hold(member, 1 * USD)

    assert figures(member) == (5 * USD, 0, 0, 1 * USD)


def test_a_deleted_members_hold_settles_to_their_books_and_its_rest_returns_to_the_pool(
    space: Space, member: User, manager: User
) -> None:
    request_id = _hold(member, 2 * USD)
    _delete(member, manager)

    _settle(member, request_id, 1_250_000_000)

    assert figures(member) == (1_250_000_000, 0, 1_250_000_000, 0)
    assert figures(space) == (500 * USD, 1_250_000_000, 0, 0)
    assert journal(space)[2:] == [("return", 3 * USD), ("return", 750_000_000)]
    assert conserved(space) == (500 * USD, 500 * USD)


def test_the_rest_of_a_deleted_members_hold_returns_as_a_transfer_without_an_actor(
    space: Space, member: User, manager: User
) -> None:
    request_id = _hold(member, 2 * USD)
    _delete(member, manager)
    _settle(member, request_id, 1_250_000_000)

    returned = Transfer.objects.first()
    assert returned is not None
    assert (returned.kind, returned.actor, returned.actor_name) == ("return", None, "")
    assert (returned.member_name, returned.member_number) == ("jun", 2)
    assert (returned.source, returned.target) == (member.wallet, pool_of(space))
    assert (returned.pool_total_after, returned.pool_available_after) == (500 * USD, 498_750_000_000)
    assert (returned.member_total_after, returned.member_remaining_after) == (1_250_000_000, 0)


def test_a_deleted_members_released_hold_returns_to_the_pool_completely(
    space: Space, member: User, manager: User
) -> None:
    request_id = _hold(member, 2 * USD)
    _delete(member, manager)

    _release(member, request_id, FAILED)

    assert (figures(member), figures(space)) == ((0, 0, 0, 0), (500 * USD, 0, 0, 0))


def test_a_deleted_members_swept_hold_is_charged_and_its_rest_returns_to_the_pool(
    space: Space, member: User, manager: User
) -> None:
    request_id = _hold(member, 2 * USD)
    _renew(member, request_id, 500_000_000)
    _delete(member, manager)

    _sweep_all()

    assert (figures(member), figures(space)) == (
        (500_000_000, 0, 500_000_000, 0),
        (500 * USD, 500_000_000, 0, 0),
    )


def test_a_deleted_members_settlement_takes_nothing_from_their_other_holds_nor_from_the_pool(
    space: Space, member: User, manager: User
) -> None:
    request_id, _other = _hold(member, 2 * USD), _hold(member, 1 * USD)
    _delete(member, manager)

    _settle(member, request_id, 4 * USD)

    assert _charges(member) == [(2 * USD, 2 * USD, 2 * USD, 0)]
    assert figures(member) == (3 * USD, 0, 2 * USD, 1 * USD)
    assert figures(space) == (500 * USD, 3 * USD, 0, 0)


def test_a_deleted_members_settlement_after_the_sweep_is_all_shortfall(
    space: Space, member: User, manager: User
) -> None:
    request_id = _hold(member, 2 * USD)
    _delete(member, manager)
    _sweep_all()

    _settle(member, request_id, 1 * USD)

    assert _charges(member)[1:] == [(0, 0, 1 * USD, 0)]
    assert (figures(member), figures(space)) == ((0, 0, 0, 0), (500 * USD, 0, 0, 0))


def test_a_deleted_members_settlement_repeated_returns_nothing_twice(space: Space, member: User, manager: User) -> None:
    request_id = _hold(member, 2 * USD)
    _delete(member, manager)
    first = _settle(member, request_id, 1 * USD)
    before = books(space)

    assert _settle(member, request_id, 1 * USD) == first
    assert books(space) == before


def test_a_manager_spends_from_the_pool(space: Space, manager: User, member: User) -> None:
    request_id = _hold(manager, 495 * USD)
    assert figures(space) == (500 * USD, 5 * USD, 0, 495 * USD)

    _settle(manager, request_id, 600 * USD)

    assert figures(space) == (500 * USD, 5 * USD, 495 * USD, 0)
    assert _charges(manager) == [(495 * USD, 495 * USD, 105 * USD, 0)]
    assert figures(member) == (5 * USD, 0, 0, 0)


def test_a_manager_cannot_hold_what_is_allocated(space: Space, manager: User, member: User) -> None:
    with pytest.raises(InsufficientQuota) as refusal:
        _hold(manager, 495 * USD + 1)

    assert refusal.value.available == 495 * USD
    assert figures(space) == (500 * USD, 5 * USD, 0, 0)


# The log and its roll-up.


def _rolled_up(user: User) -> list[tuple[Any, ...]]:
    rows = HourlyUsage.objects.filter(user_id=user.pk).order_by("hour", "model", "key_id")
    return list(
        rows.values_list("hour", "model", "key_id", "requests", "errors", "input_tokens", "output_tokens", "cost")
    )


def test_an_hours_figures_are_the_sum_of_its_usage_records(member: User) -> None:
    with origin.acting(moment=NOON):
        _settle(member, _hold(member, 1 * USD), 300)
        _settle(member, _hold(member, 1 * USD), 20)
        _release(member, _hold(member, 1 * USD), FAILED)

    noon = NOON.replace(minute=0)
    assert _rolled_up(member) == [(noon, "gpt-4o-mini", NIL, 3, 1, 2000, 400, 320)]
    assert reconcile(member.space) == []


def test_hours_models_and_keys_are_counted_apart(member: User) -> None:
    key_id = create_key(owner=member, terms=KeyTerms(name="laptop"))[0].pk
    for moment, model, key in [
        (NOON, "a", NIL),
        (NOON + timedelta(hours=1), "a", NIL),
        (NOON, "b", NIL),
        (NOON, "b", key_id),
    ]:
        with origin.acting(moment=moment):
            _settle(member, _hold(member, 1 * USD, call=Call(model=model, key_id=key)), 5)

    noon, one = NOON.replace(minute=0), NOON.replace(hour=13, minute=0)
    assert [row[:4] for row in _rolled_up(member)] == [
        (noon, "a", NIL, 1),
        (noon, "b", NIL, 1),
        (noon, "b", key_id, 1),
        (one, "a", NIL, 1),
    ]
    assert reconcile(member.space) == []


def test_two_users_never_share_a_row(member: User, manager: User, admin_member: User, stranger: User) -> None:
    for cost, user in enumerate([member, manager, admin_member, stranger], start=1):
        with origin.acting(moment=NOON):
            _settle(user, _hold(user, 1 * USD), cost)

    assert [[row[-1] for row in _rolled_up(user)] for user in (member, manager, admin_member, stranger)] == [
        [1],
        [2],
        [3],
        [4],
    ]
    assert [_charges(user)[0][1] for user in (member, manager, admin_member, stranger)] == [1, 2, 3, 4]


def test_a_charge_that_cannot_be_logged_is_not_made(member: User) -> None:
    request_id = _hold(member, 2 * USD)
    before = books(member.space)

    with pytest.raises(IntegrityError):
        _settle(member, request_id, 1 * USD, Call(model="m", code=None))

    assert books(member.space) == before


def test_a_log_row_keeps_the_name_the_member_had(member: User, manager: User) -> None:
    _settle(member, _hold(member, 1 * USD), 5)
    member.username = "june"
    member.save(update_fields=["username"])
    _settle(member, _hold(member, 1 * USD), 5)

    names = UsageRecord.objects.filter(user_id=member.pk).order_by("id").values_list("username", flat=True)
    assert list(names) == ["jun", "june"]


def test_each_member_spends_their_own(space: Space, member: User, manager: User) -> None:
    other = MemberFactory.create(space=space, usd=3)
    _settle(member, _hold(member, 5 * USD), 5 * USD)

    set_remaining(member=other, remaining_nanos=4 * USD, actor=manager)
    _settle(other, _hold(other, 4 * USD), 1 * USD)

    assert figures(member) == (5 * USD, 0, 5 * USD, 0)
    assert figures(other) == (4 * USD, 0, 1 * USD, 0)
    assert conserved(space) == (500 * USD, 500 * USD)


# Renewals out of order, and implausible costs.


def test_a_renewal_out_of_order_lowers_nothing(member: User) -> None:
    request_id = _hold(member, 2 * USD)
    for accrued in (9, 1):
        renew(space_id=member.space_id, request_id=request_id, delivered_bytes=accrued, accrued_nanos=accrued)

    held = Hold.objects.get()
    assert (held.accrued, held.delivered_bytes) == (9, 9)


def test_a_renewal_beyond_the_hold_keeps_it_alive_and_accrues_the_hold(member: User) -> None:
    request_id = _hold(member, 2 * USD)

    kept = renew(space_id=member.space_id, request_id=request_id, delivered_bytes=1, accrued_nanos=3 * USD)

    assert kept and Hold.objects.get().accrued == 2 * USD


def test_an_implausible_cost_is_charged_up_to_what_is_available(member: User) -> None:
    request_id = _hold(member, 2 * USD)

    record = _settle(member, request_id, 10**30)

    assert (record.cost, record.shortfall) == (5 * USD, 10**18 - 5 * USD)
    assert not Hold.objects.exists() and Wallet.objects.get(user=member).remaining == 0


def test_another_members_request_id_holds_nothing(member: User, admin_member: User) -> None:
    request_id = _hold(member, 2 * USD)

    with pytest.raises(HoldUnknown):
        hold(request_id=request_id, user=admin_member, amount_nanos=1, call=CALL)

    assert Wallet.objects.get(user=admin_member).held == 0


def test_an_operator_spends_nothing(operator: User) -> None:
    with pytest.raises(NotSpending):
        hold(request_id=new_id(), user=operator, amount_nanos=1, call=CALL)
