"""The contract of sets. It holds for both implementations: the PostgreSQL function, and charging.py one by one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.keys import GRACES, KeyTerms, Presented, create_key, parse_key, rotate_key, set_key_enabled
from accounts.models import ApiKey, User
from accounts.spending import REFUSAL_STATUS
from core import origin
from core.errors import HoldUnknown, InsufficientQuota, KeyLimitReached, KeyRefused, QuotaError
from core.ids import id_at, new_id
from quotas.charge_set import array_text
from quotas.charging import Call, expire_holds
from quotas.members import delete_member
from quotas.models import Hold, Wallet
from quotas.reconcile import reconcile
from quotas.sets import (
    NOT_WRITTEN,
    ChargeSet,
    CheckOrder,
    Held,
    HoldOrder,
    Order,
    ReleaseOrder,
    RenewOrder,
    Settled,
    SettleOrder,
    WalletHints,
    write_one,
    write_set,
)
from quotas.spaces import set_suspended
from tenants.models import Space
from tests.factories import MemberFactory
from tests.quotas.books import USD, figures
from usage.models import HourlyUsage, UsageRecord

# Fixtures: a pool of $500.00, of which the member "jun" has $5.00.

CALL = Call(model="m", input_tokens=7, cached_tokens=2, output_tokens=3, price={"input": 5}, duration_ms=40)
FAILED = Call(model="m", status=502, code="upstream_error")


def key_of(owner: User, **terms: Any) -> Presented:
    presented = parse_key(create_key(owner=owner, terms=KeyTerms(name="laptop", **terms))[1])
    assert presented is not None
    return presented


def hold_order(presented: Presented, most: int, *, least: int | None = None, **fields: Any) -> HoldOrder:
    shared: dict[str, Any] = {"request_id": new_id(), "model": "m", "address": "192.0.2.7"}
    return HoldOrder(
        presented=presented, most_nanos=most, least_nanos=most if least is None else least, **shared | fields
    )


def settle_order(held: HoldOrder, cost: int, call: Call = CALL) -> SettleOrder:
    key = held.presented
    return SettleOrder(space_id=key.space_id, request_id=held.request_id, cost_nanos=cost, call=call, presented=key)


def release_order(held: HoldOrder) -> ReleaseOrder:
    key = held.presented
    return ReleaseOrder(space_id=key.space_id, request_id=held.request_id, call=FAILED, presented=key)


def renew_order(held: HoldOrder, accrued: int) -> RenewOrder:
    return RenewOrder(
        space_id=held.presented.space_id, request_id=held.request_id, delivered_bytes=9, accrued_nanos=accrued
    )


# The wallet cache that the sets of one test share.
WALLET_HINTS: WalletHints = {}


@pytest.fixture(autouse=True)
def no_wallet_hints() -> None:
    WALLET_HINTS.clear()


def write(*orders: Order[Any]) -> list[Any]:
    return write_set(orders, WALLET_HINTS)


def comparable(outcome: Any) -> Any:
    """An outcome that can be compared with ==, because exceptions compare by identity."""
    if isinstance(outcome, QuotaError):
        return type(outcome).__name__, outcome.code, vars(outcome)
    return outcome


def rows() -> list[tuple[str, str, int, int, int]]:
    return list(UsageRecord.objects.order_by("id").values_list("kind", "code", "status", "cost", "available_after"))


# Holds.


def test_a_hold_sets_money_aside_on_wallet_and_key(member: User) -> None:
    order = hold_order(key_of(member), 2 * USD, lifetime_s=90)

    assert write(order) == [Held(2 * USD)]

    hold, key = Hold.objects.get(), ApiKey.objects.get()
    assert (hold.pk, hold.wallet, hold.user_id, hold.key_id) == (order.request_id, member.wallet, member.pk, key.pk)
    assert (hold.key_name, hold.model, hold.amount, hold.accrued) == ("laptop", "m", 2 * USD, 0)
    assert hold.expires_at - hold.created_at == timedelta(seconds=90)
    assert figures(member) == (5 * USD, 0, 0, 2 * USD)
    assert key.held == 2 * USD and key.last_used_at is not None


def test_the_managers_key_spends_from_the_pool(member: User, manager: User) -> None:
    assert write(hold_order(key_of(manager), 3 * USD)) == [Held(3 * USD)]

    assert figures(member.space) == (500 * USD, 5 * USD, 0, 3 * USD)
    assert figures(member) == (5 * USD, 0, 0, 0)


def test_a_hold_takes_what_is_available_between_least_and_most(member: User) -> None:
    key = key_of(member)

    outcomes = write(
        hold_order(key, 3 * USD, least=USD),
        hold_order(key, 3 * USD, least=USD),
        hold_order(key, 3 * USD, least=1),
    )

    assert outcomes[:2] == [Held(3 * USD), Held(2 * USD)]
    assert comparable(outcomes[2]) == comparable(InsufficientQuota(available=0, amount=1, spent=0, limit=5 * USD))
    assert figures(member) == (5 * USD, 0, 0, 5 * USD)
    assert rows() == [("error", "insufficient_quota", 429, 0, 0)]


@pytest.mark.parametrize(
    ("least", "usual", "most", "held"),
    [
        (1, 0, 3 * USD, 3 * USD),
        # A quarter of the $5.00 that is free, unless the usual amount is more.
        (1, 1, 3 * USD, 5 * USD // 4),
        (1, 2 * USD, 3 * USD, 2 * USD),
        (1, 1, USD, USD),
        (2 * USD, 1, 3 * USD, 2 * USD),
        (1, 9 * USD, 9 * USD, 5 * USD),
    ],
)
def test_a_usual_amount_leaves_three_quarters_of_the_money_to_other_requests(
    member: User, least: int, usual: int, most: int, held: int
) -> None:
    assert write(hold_order(key_of(member), most, least=least, usual_nanos=usual)) == [Held(held)]

    assert figures(member)[3] == held


def test_the_quarter_is_of_what_the_keys_limit_leaves_and_rounded_down(member: User) -> None:
    key = key_of(member, limit_nanos=11)

    outcomes = write(*(hold_order(key, 100, least=1, usual_nanos=1) for _ in range(2)))

    assert outcomes == [Held(2), Held(2)]


def test_a_free_model_needs_no_money_whatever_wallet_and_key_have(member: User) -> None:
    key = key_of(member, limit_nanos=USD)
    Wallet.objects.filter(user=member).update(spent=5 * USD)
    ApiKey.objects.update(limit=USD, spent=5 * USD)
    order = hold_order(key, 0)

    assert write(order) == [Held(0)]
    assert Hold.objects.values_list("pk", "amount").get() == (order.request_id, 0)
    assert write(renew_order(order, 5)) == [True]
    assert write(settle_order(order, 0)) == [Settled(0, 0)]

    assert rows() == [("consume", "", 200, 0, 0)] and not Hold.objects.exists()
    assert figures(member) == (5 * USD, 0, 5 * USD, 0)


def test_a_hold_of_nothing_is_made_released_and_swept_like_any_other(member: User) -> None:
    key = key_of(member)
    released, swept = hold_order(key, 0), hold_order(key, 0)
    write(released, swept)

    assert write(release_order(released)) == [True]
    assert expire_holds(now=timezone.now() + timedelta(minutes=5)) == 1
    assert rows() == [("error", "upstream_error", 502, 0, 5 * USD), ("error", "hold_expired", 504, 0, 5 * USD)]
    assert write_one(released) == Held(0), "an error record does not prevent another try"
    assert figures(member) == (5 * USD, 0, 0, 0)


def test_a_settled_hold_of_nothing_cannot_be_held_again(member: User) -> None:
    order = hold_order(key_of(member), 0)
    write(order)
    write(settle_order(order, 0))

    assert isinstance(write_one(order), HoldUnknown)
    assert not Hold.objects.exists()


def test_a_suspended_space_gets_no_hold_of_nothing(member: User) -> None:
    order = hold_order(key_of(member), 0)
    assert member.space is not None
    set_suspended(space=member.space, is_suspended=True, actor=None)

    [refused] = write(order)

    assert refused.code == "space_suspended" and not Hold.objects.exists()


def test_a_refusal_for_lack_of_money_keeps_the_figures_beside_the_orders_details(member: User) -> None:
    told = {"client_request_id": "c-1", "message": "“too” little"}
    poor = hold_order(key_of(member), 9 * USD, details=told)
    limited = hold_order(key_of(member, limit_nanos=USD), 2 * USD)

    write(poor, limited)

    figures_of = {record.request_id: record.details for record in UsageRecord.objects.all()}
    assert figures_of[poor.request_id] == told | {
        "limit": 5 * USD,
        "spent": 0,
        "available": 5 * USD,
        "amount": 9 * USD,
    }
    assert figures_of[limited.request_id] == {"limit": USD, "spent": 0, "available": USD, "amount": 2 * USD}


def test_other_refusals_keep_the_orders_details_alone(member: User) -> None:
    key, told = key_of(member, models=("other",)), {"upstream": "east"}
    check = CheckOrder(
        request_id=new_id(), presented=key, address=None, status=404, code="model_not_found", details=told
    )

    write(hold_order(key, 1, details=told), check)

    assert list(UsageRecord.objects.values_list("details", flat=True)) == [told, told]


def test_holds_of_one_set_share_their_wallet_and_leave_other_wallets_alone(member: User, stranger: User) -> None:
    mine, theirs = key_of(member), key_of(stranger)

    outcomes = write(*[hold_order(key, 2 * USD) for key in (mine, theirs, mine, theirs, mine, theirs, theirs)])

    assert [outcome == Held(2 * USD) for outcome in outcomes] == [True, True, True, True, False, True, False]
    assert (figures(member)[3], figures(stranger)[3]) == (4 * USD, 6 * USD)


def test_a_keys_limit_is_enforced_within_a_set(member: User) -> None:
    limited, free = key_of(member, limit_nanos=USD), key_of(member)

    outcomes = write(
        hold_order(limited, USD),
        hold_order(limited, 1),
        hold_order(free, USD),
        hold_order(limited, USD, least=1),
    )

    assert outcomes[0] == outcomes[2] == Held(USD)
    assert comparable(outcomes[1]) == comparable(KeyLimitReached(available=0, amount=1, spent=0, limit=USD))
    assert isinstance(outcomes[3], KeyLimitReached)
    assert figures(member)[3] == 2 * USD


@pytest.mark.parametrize(
    ("stop", "status", "code"),
    [
        (lambda user: set_suspended(space=user.space, is_suspended=True, actor=None), 403, "space_suspended"),
        (lambda user: User.objects.filter(pk=user.pk).update(is_active=False), 403, "account_disabled"),
        (lambda user: set_key_enabled(key=user.keys.get(), is_enabled=False, actor=user), 401, "key_disabled"),
        (lambda user: ApiKey.objects.update(expires_at=timezone.now()), 401, "key_expired"),
        (lambda user: ApiKey.objects.update(ips_allowed=["10.0.0.0/8", "2001:db8::/32"]), 403, "ip_not_allowed"),
        (lambda user: ApiKey.objects.update(models_allowed=["n", "mm"]), 403, "model_not_allowed"),
    ],
)
def test_a_refused_key_gets_the_reason_and_an_error_record(
    member: User, stop: Callable[[User], Any], status: int, code: str
) -> None:
    key = key_of(member)
    stop(member)

    for order in (hold_order(key, 1), CheckOrder(request_id=new_id(), presented=key, address="192.0.2.7", model="m")):
        [refused] = write(order)
        assert isinstance(refused, KeyRefused) and refused.code == code

    assert rows() == [("error", code, status, 0, 5 * USD)] * 2
    hour = HourlyUsage.objects.get()
    assert (hour.requests, hour.errors, hour.cost, hour.user_id) == (2, 2, 0, member.pk)
    assert not Hold.objects.exists() and reconcile(member.space) == []


STOPS: dict[str, Callable[[User], Any]] = {
    "space_suspended": lambda user: Space.objects.filter(pk=user.space_id).update(suspended_at=timezone.now()),
    "account_disabled": lambda user: User.objects.filter(pk=user.pk).update(is_active=False),
    "key_disabled": lambda user: ApiKey.objects.filter(user=user).update(is_enabled=False),
    "key_expired": lambda user: ApiKey.objects.filter(user=user).update(expires_at=timezone.now()),
    "ip_not_allowed": lambda user: ApiKey.objects.filter(user=user).update(ips_allowed=["10.0.0.0/8"]),
    "model_not_allowed": lambda user: ApiKey.objects.filter(user=user).update(models_allowed=["n"]),
    "insufficient_quota": lambda user: Wallet.objects.filter(user=user).update(spent=5 * USD),
    "key_limit_reached": lambda user: ApiKey.objects.filter(user=user).update(limit=USD, spent=USD),
}


@pytest.mark.parametrize(("first", "later"), list(combinations(STOPS, 2)))
def test_of_two_reasons_to_refuse_the_first_rule_is_reported(member: User, first: str, later: str) -> None:
    key = key_of(member)
    for code in (first, later):
        STOPS[code](member)

    [refused] = write(hold_order(key, USD))

    assert refused.code == first
    assert rows() == [("error", first, REFUSAL_STATUS[first], 0, Wallet.objects.get(user=member).available)]


def test_every_reason_to_refuse_is_tested() -> None:
    assert ["invalid_api_key", *STOPS] == list(REFUSAL_STATUS)


def test_a_refusals_record_and_its_roll_up_have_the_same_hour(member: User) -> None:
    """The request's id is from just before midnight; its set is written just after."""
    midnight = datetime(2026, 5, 5, tzinfo=UTC)
    order = hold_order(key_of(member), 9 * USD, request_id=id_at(midnight - timedelta(milliseconds=9)))

    with origin.acting(moment=midnight + timedelta(milliseconds=9)):
        write(order)

    record = UsageRecord.objects.get()
    assert (record.request_id, record.at) == (order.request_id, midnight + timedelta(milliseconds=9))
    assert HourlyUsage.objects.get().hour == midnight


def test_an_unknown_key_leaves_no_usage_record(member: User, stranger: User) -> None:
    known = key_of(member)
    assert stranger.space_id is not None
    elsewhere = Presented(stranger.space_id, known.hash)
    nowhere = Presented(known.space_id, "0" * 64)

    for key in (elsewhere, nowhere, Presented(10**17, known.hash)):
        held, checked = write(
            hold_order(key, 1), CheckOrder(request_id=new_id(), presented=key, address=None, model="m", code="x")
        )
        assert held.code == checked.code == "invalid_api_key"
    assert rows() == [] and not Hold.objects.exists()


@pytest.mark.parametrize(
    ("address", "passes"),
    [("10.1.2.3", True), ("2001:db8::1", True), ("fe80::1%eth0", False), ("11.0.0.1", False), (None, False)],
)
def test_a_key_works_only_from_its_allowed_networks(member: User, address: str | None, passes: bool) -> None:
    key = key_of(member, ips=("10.0.0.0/8", "2001:db8::/32"))

    [outcome] = write(hold_order(key, 1, address=address))

    assert isinstance(outcome, Held) == passes


def test_the_old_secret_works_for_its_grace(member: User) -> None:
    old = key_of(member)
    key, text = rotate_key(key=ApiKey.objects.get(), grace=GRACES["1h"], actor=member)
    new = parse_key(text)
    assert new is not None

    assert write(hold_order(old, 1), hold_order(new, 1)) == [Held(1), Held(1)]
    ApiKey.objects.update(old_until=timezone.now())
    assert [type(outcome) for outcome in write(hold_order(old, 1), hold_order(new, 1))] == [KeyRefused, Held]
    assert Hold.objects.filter(key_id=key.pk).count() == 3


def test_a_check_returns_the_allowed_models_and_moves_no_money(member: User) -> None:
    key, limited = key_of(member), key_of(member, models=("a", "b"))

    outcomes = write(*[CheckOrder(request_id=new_id(), presented=each, address=None) for each in (key, limited)])

    assert outcomes == [[], ["a", "b"]]
    assert rows() == [] and figures(member) == (5 * USD, 0, 0, 0)


def test_a_check_with_a_code_logs_the_relays_refusal(member: User) -> None:
    key = key_of(member)

    outcomes = write(
        CheckOrder(request_id=new_id(), presented=key, address=None, model="none", status=404, code="model_not_found")
    )

    assert outcomes == [[]]
    assert rows() == [("error", "model_not_found", 404, 0, 5 * USD)]


def test_a_wrong_wallet_hint_charges_the_right_wallet_all_the_same(member: User, stranger: User) -> None:
    mine, order = key_of(member), hold_order(key_of(stranger), USD)
    write(order)
    WALLET_HINTS.update(dict.fromkeys([mine, order.presented], str(Wallet.objects.filter(kind="pool")[0].pk)))

    assert write(hold_order(mine, 2 * USD), settle_order(order, 1)) == [Held(2 * USD), Settled(1, 7 * USD - 1)]
    assert (figures(member)[3], figures(stranger)[2:]) == (2 * USD, (1, 0))


@pytest.mark.postgresql("SQLite writes one by one")
def test_a_set_adds_wallet_hints_and_removes_wrong_ones(member: User, manager: User) -> None:
    keys = [key_of(member), key_of(manager), Presented(member.space_id or 0, "0" * 64)]
    write(*[hold_order(key, 1) for key in keys])

    pool = Wallet.objects.get(kind="pool")
    assert {keys[0]: str(member.wallet.pk), keys[1]: str(pool.pk)} == WALLET_HINTS

    WALLET_HINTS[keys[0]] = str(pool.pk)
    assert write(hold_order(keys[0], 1), hold_order(keys[1], 1)) == [Held(1), Held(1)]
    assert {keys[1]: str(pool.pk)} == WALLET_HINTS


@pytest.mark.postgresql("SQLite writes one by one")
def test_orders_whose_wallet_was_not_locked_are_not_written(member: User, manager: User) -> None:
    order = hold_order(key_of(member), USD)
    write(order)
    wrong = {order.presented: str(Wallet.objects.get(kind="pool").pk)}
    gathered = ChargeSet([hold_order(order.presented, 1), settle_order(order, 1)], wrong)

    with connection.cursor() as cursor:
        cursor.execute(ChargeSet.STATEMENT, gathered.values)
        assert gathered.outcomes(cursor.fetchall()) == [NOT_WRITTEN, NOT_WRITTEN]
    assert figures(member) == (5 * USD, 0, 0, USD) and rows() == []


@pytest.mark.postgresql("SQLite writes one by one")
def test_unknown_keys_are_refused_within_the_set_without_wallet_hints(member: User) -> None:
    """If the function skipped them, each would be written alone and delay all other requests."""
    nobodys = Presented(member.space_id or 0, "0" * 64)
    gathered = ChargeSet([hold_order(nobodys, 1), CheckOrder(request_id=new_id(), presented=nobodys, address=None)], {})

    with connection.cursor() as cursor:
        cursor.execute(ChargeSet.STATEMENT, gathered.values)
        outcomes = gathered.outcomes(cursor.fetchall())
    assert [outcome.code for outcome in outcomes] == ["invalid_api_key"] * 2


# Settlements.


def test_a_settlement_charges_logs_and_rolls_up(member: User) -> None:
    order = hold_order(key_of(member), 2 * USD)
    write(order)

    assert write(settle_order(order, USD)) == [Settled(USD, 4 * USD)]

    record, key = UsageRecord.objects.get(), ApiKey.objects.get()
    assert (record.request_id, record.held, record.cost, record.shortfall) == (order.request_id, 2 * USD, USD, 0)
    assert (record.username, record.key_name, record.model, record.kind) == ("jun", "laptop", "m", "consume")
    assert (record.input_tokens, record.cached_tokens, record.output_tokens) == (7, 2, 3)
    assert (record.price, record.duration_ms, record.first_token_ms) == ({"input": 5}, 40, None)
    assert timezone.now() - record.at < timedelta(minutes=1)
    assert figures(member) == (5 * USD, 0, USD, 0) and (key.spent, key.held) == (USD, 0)
    hour = HourlyUsage.objects.get()
    assert (hour.requests, hour.errors, hour.input_tokens, hour.output_tokens, hour.cost) == (1, 0, 7, 3, USD)
    assert reconcile(member.space) == []


def test_a_settlement_keeps_every_count_and_what_the_request_cost_the_operator(member: User) -> None:
    order = hold_order(key_of(member), 2 * USD)
    call = Call(
        model="m",
        quantities={"cache_write_1h": 5, "tools": {"image_generation": {"image_output": 7}}},
        details={"row": "service_tier=priority", "message": 'a "quoted" {word}, \\ and \n'},
        upstream_cost=USD // 3,
    )
    write(order)

    write(settle_order(order, USD, call))

    record = UsageRecord.objects.get()
    assert (record.quantities, record.details, record.upstream_cost) == (
        call.quantities,
        call.details,
        call.upstream_cost,
    )


def test_a_cost_beyond_the_hold_is_charged_no_further_than_the_keys_limit(member: User) -> None:
    order, other = hold_order(key_of(member, limit_nanos=2 * USD), USD), hold_order(key_of(member), USD)
    write(order, other)

    [beyond] = write(settle_order(order, 4 * USD))

    assert beyond.cost_nanos == 2 * USD
    assert UsageRecord.objects.get().shortfall == 2 * USD
    key = ApiKey.objects.get(limit=2 * USD)
    assert (key.spent, key.held) == (2 * USD, 0)
    assert figures(member) == (5 * USD, 0, 2 * USD, USD) and reconcile(member.space) == []


def test_a_late_settlement_is_charged_no_further_than_the_keys_limit(member: User) -> None:
    order = hold_order(key_of(member, limit_nanos=2 * USD), USD)
    write(order)
    write(renew_order(order, USD))
    expire_holds(now=timezone.now() + timedelta(minutes=5))

    assert write(settle_order(order, 4 * USD)) == [Settled(USD, 3 * USD)]
    assert (ApiKey.objects.get().spent, UsageRecord.objects.latest("id").shortfall) == (2 * USD, 2 * USD)


def test_a_limit_lowered_below_what_was_spent_charges_the_hold_alone(member: User) -> None:
    order = hold_order(key_of(member, limit_nanos=2 * USD), USD)
    write(order)
    ApiKey.objects.update(limit=1)

    assert write(settle_order(order, 4 * USD)) == [Settled(USD, 4 * USD)]


def test_settlements_of_one_wallet_report_what_was_available_after_each(member: User) -> None:
    key = key_of(member)
    holds = [hold_order(key, USD) for _ in range(4)]
    write(*holds)

    outcomes = write(
        settle_order(holds[0], USD), settle_order(holds[1], 1), release_order(holds[2]), settle_order(holds[3], 0)
    )

    left = [USD, 2 * USD - 1, 3 * USD - 1, 4 * USD - 1]
    assert outcomes == [Settled(USD, left[0]), Settled(1, left[1]), True, Settled(0, left[3])]
    assert sorted(row[-1] for row in rows()) == left
    assert HourlyUsage.objects.get().requests == 4 and HourlyUsage.objects.get().errors == 1


def test_a_hold_can_use_money_that_its_own_set_frees(member: User) -> None:
    key = key_of(member)
    first = hold_order(key, 5 * USD)
    write(first)

    assert write(hold_order(key, 4 * USD), settle_order(first, USD)) == [Held(4 * USD), Settled(USD, 4 * USD)]
    assert figures(member) == (5 * USD, 0, USD, 4 * USD)


def test_a_cost_beyond_the_hold_is_charged_up_to_what_is_available(member: User) -> None:
    key = key_of(member)
    one, other = hold_order(key, USD), hold_order(key, USD)
    write(one, other)

    beyond, within = write(settle_order(one, 9 * USD), settle_order(other, USD))

    assert within == Settled(USD, 3 * USD) or within == Settled(USD, 0)
    assert beyond.cost_nanos == 4 * USD
    assert figures(member) == (5 * USD, 0, 5 * USD, 0)
    assert sum(UsageRecord.objects.values_list("shortfall", flat=True)) == 5 * USD
    assert reconcile(member.space) == []


def test_repeated_settlements_releases_and_holds_move_no_money(member: User) -> None:
    order = hold_order(key_of(member), 2 * USD)
    write(order)
    first = write(settle_order(order, USD), settle_order(order, USD))

    assert first == write(settle_order(order, USD), settle_order(order, 2 * USD))
    assert write(release_order(order), renew_order(order, 5)) == [False, False]
    assert write_one(order).code == ""
    assert figures(member) == (5 * USD, 0, USD, 0) and len(rows()) == 1


def test_an_order_retried_after_a_lost_reply_is_written_once(member: User) -> None:
    order, poor = hold_order(key_of(member), 2 * USD), hold_order(key_of(member), 9 * USD)
    write(order, poor)

    assert [comparable(write_one(again)) for again in (order, poor)] == [
        Held(2 * USD),
        comparable(InsufficientQuota(available=3 * USD, amount=9 * USD, spent=0, limit=5 * USD)),
    ]
    assert figures(member)[3] == 2 * USD and len(rows()) == 1


def test_a_release_frees_the_hold_and_logs_the_reason(member: User) -> None:
    order = hold_order(key_of(member), 2 * USD)
    write(order)

    assert write(release_order(order)) == [True]

    assert rows() == [("error", "upstream_error", 502, 0, 5 * USD)]
    assert figures(member) == (5 * USD, 0, 0, 0) and ApiKey.objects.get().held == 0


def test_a_renewal_only_grows_and_is_what_a_sweep_charges(member: User) -> None:
    order = hold_order(key_of(member), 2 * USD)
    write(order)

    assert write(renew_order(order, USD)) == [True]
    assert write(renew_order(order, 5)) == [True]
    assert write(renew_order(order, 9 * USD)) == [True]

    assert Hold.objects.get().accrued == 2 * USD
    assert expire_holds(now=timezone.now() + timedelta(minutes=5)) == 1
    assert write(settle_order(order, 3 * USD)) == [Settled(USD, 2 * USD)]
    assert figures(member) == (5 * USD, 0, 3 * USD, 0) and reconcile(member.space) == []


def test_a_deleted_members_hold_settles_and_its_rest_returns_to_the_pool(member: User, manager: User) -> None:
    order = hold_order(key_of(member), 2 * USD)
    write(order)
    delete_member(member=member, actor=manager)

    [settled] = write(settle_order(order, USD))

    assert settled.cost_nanos == USD
    assert figures(member.space) == (500 * USD, USD, 0, 0) and reconcile(member.space) == []


# A set has the same effect as its orders one by one.


@st.composite
def scripts(draw: st.DrawFn) -> list[list[tuple[str, int, int, int]]]:
    """Draw sets of (deed, index of the key or hold, nanos, least)."""
    deed = st.tuples(
        st.sampled_from(["hold", "hold", "usual", "free", "settle", "release", "renew", "check"]),
        st.integers(0, 5),
        st.integers(1, 12),
        st.integers(1, 12),
    )
    return draw(st.lists(st.lists(deed, min_size=1, max_size=8), min_size=1, max_size=5))


class ScriptRun:
    """Runs a script with one writer. Orders refer to holds by index, because request ids differ in each run."""

    def __init__(self, keys: list[Presented], writer: Callable[[list[Order[Any]]], list[Any]]) -> None:
        self.keys = keys
        self.writer = writer
        self.holds: list[HoldOrder] = []
        self.outcomes: list[Any] = []

    def play(self, script: list[list[tuple[str, int, int, int]]]) -> list[Any]:
        for deeds in script:
            orders = [order for deed in deeds if (order := self._order(*deed))]
            # Sort as a set does: settlements, releases and renewals first, then holds and checks.
            orders.sort(key=lambda order: isinstance(order, HoldOrder | CheckOrder))
            ended: set[UUID] = set()
            orders = [order for order in orders if not self._is_again(order, ended)]
            self.outcomes += [comparable(outcome) for outcome in self.writer(orders)]
            self.holds += [order for order in orders if isinstance(order, HoldOrder)]
        return self.outcomes

    @staticmethod
    def _is_again(order: Order[Any], seen: set[UUID]) -> bool:
        """Whether this set already renews or ends the request; the order of two such orders is unspecified."""
        if isinstance(order, SettleOrder | ReleaseOrder | RenewOrder):
            if order.request_id in seen:
                return True
            seen.add(order.request_id)
        return False

    def _order(self, deed: str, which: int, nanos: int, least: int) -> Order[Any] | None:
        key = self.keys[which % len(self.keys)]
        if deed in ("hold", "usual", "free"):
            return self._hold_order(deed, key, nanos, least)
        if deed == "check":
            return CheckOrder(request_id=new_id(), presented=key, address=None, model="m")
        if not self.holds:
            return None
        held = self.holds[which % len(self.holds)]
        if deed == "settle":
            # A cost beyond the hold is written after the rest of the set, which changes the order of charges.
            return settle_order(held, min(nanos, held.least_nanos))
        return release_order(held) if deed == "release" else renew_order(held, nanos)

    @staticmethod
    def _hold_order(deed: str, key: Presented, nanos: int, least: int) -> HoldOrder:
        if deed == "free":
            return hold_order(key, 0)
        if deed == "usual":
            return hold_order(key, 2 * max(nanos, least), least=1, usual_nanos=min(nanos, least), details={"n": nanos})
        return hold_order(key, max(nanos, least), least=min(nanos, least))

    def state(self, space: Space) -> Any:
        return (
            list(Wallet.objects.filter(space=space).order_by("pk").values_list("total", "spent", "held")),
            list(ApiKey.objects.filter(space=space).order_by("pk").values_list("spent", "held")),
            sorted(
                UsageRecord.objects.filter(space=space).values_list(
                    "kind", "code", "status", "held", "cost", "available_after"
                )
            ),
            sorted(map(str, UsageRecord.objects.filter(space=space).values_list("details", flat=True))),
            sorted(HourlyUsage.objects.filter(space=space).values_list("user_id", "requests", "errors", "cost")),
            sorted(Hold.objects.filter(space=space).values_list("amount", "accrued")),
        )


@given(script=scripts())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_set_does_what_its_orders_do_one_by_one(space: Space, script: list[list[tuple[str, int, int, int]]]) -> None:
    with transaction.atomic():
        people = [MemberFactory.create(space=space, usd=0) for _ in range(2)]
        for person in people:
            Wallet.objects.filter(user=person).update(total=40)
        Wallet.objects.filter(space=space, kind="pool").update(allocated=80)
        keys = [key_of(people[0]), key_of(people[0], limit_nanos=25), key_of(people[1])]
        plays = [
            ScriptRun(keys, write_set),
            ScriptRun(keys, lambda orders: [write_one(order) for order in orders]),
        ]
        results = []
        for play in plays:
            point = transaction.savepoint()
            outcomes = play.play(script)
            results.append((outcomes, play.state(space)))
            transaction.savepoint_rollback(point)
        transaction.set_rollback(True)
    assert results[0] == results[1]


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@pytest.mark.django_db
@pytest.mark.postgresql("a set is arrays on PostgreSQL alone")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.tuples(st.just("bigint"), st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=1)),
        st.tuples(st.just("boolean"), st.lists(st.booleans(), min_size=1)),
        st.tuples(
            st.just("text"), st.lists(st.one_of(st.none(), TEXTS, st.sampled_from(["NULL", '"', "\\", ""])), min_size=1)
        ),
    )
)
def test_array_text_round_trips_through_postgresql(column: tuple[str, list[Any]]) -> None:
    kind, values = column
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT %s::{kind}[]", [array_text(tuple(values))])
        assert cursor.fetchone()[0] == values
