"""Race conditions: deeds run in threads with connections of their own, and the books balance afterwards."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from threading import Barrier
from uuid import UUID

import msgspec
import pytest
from django.db import connection
from django.db.models import Sum
from django.utils import timezone

from accounts.keys import KeyTerms, create_key
from accounts.models import User
from audit.models import AuditEvent
from core.errors import (
    BelowHeld,
    HoldUnknown,
    InsufficientPool,
    InsufficientQuota,
    MemberGoneError,
    NotSpending,
    StaleTotal,
    WalletClosed,
)
from core.ids import new_id
from quotas.charging import expire_holds, hold, release, renew, settle
from quotas.members import MemberChanges, delete_member, edit_member, set_enabled
from quotas.models import Hold, Transfer, Wallet
from quotas.pool import pool_of
from quotas.reconcile import reconcile
from quotas.services import grant, revoke, set_remaining
from tenants.models import Space
from tests.factories import MemberFactory, SpaceFactory
from tests.quotas.books import CALL, USD, conserved, figures, journal
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db(transaction=True)

REFUSALS = (
    BelowHeld,
    HoldUnknown,
    InsufficientPool,
    InsufficientQuota,
    MemberGoneError,
    NotSpending,
    StaleTotal,
    WalletClosed,
)


def together(*steps: Callable[[], object]) -> list[object]:
    """Run all steps at the same time, each in a thread with its own connection.

    Returns each step's result, or the refusal that it raised. Any other exception, such as a deadlock or "database is
    locked", fails the test.
    """
    start = Barrier(len(steps))

    def run(step: Callable[[], object]) -> object:
        start.wait(timeout=60)
        try:
            return step()
        except REFUSALS as refusal:
            return refusal
        finally:
            connection.close()

    with ThreadPoolExecutor(len(steps)) as pool:
        return list(pool.map(run, steps))


def kinds(results: Sequence[object]) -> Counter[str]:
    return Counter(type(result).__name__ for result in results)


def assert_balanced(space: Space) -> None:
    total, parts = conserved(space)
    assert total == parts
    assert reconcile(space) == []


def holding(user: User, nanos: int, request_id: UUID | None = None) -> Callable[[], object]:
    made = request_id or new_id()
    return lambda: hold(request_id=made, user=user, amount_nanos=nanos, call=CALL)


def settling(user: User, request_id: UUID, nanos: int) -> Callable[[], object]:
    assert user.space_id is not None
    space_id = user.space_id
    return lambda: settle(space_id=space_id, request_id=request_id, cost_nanos=nanos, call=CALL)


def setting(user: User, nanos: int, actor: User, was_total_nanos: int | None = None) -> Callable[[], object]:
    def step() -> object:
        return set_remaining(member=user, remaining_nanos=nanos, actor=actor, was_total_nanos=was_total_nanos).transfer

    return step


def held(user: User, nanos: int) -> UUID:
    request_id = new_id()
    holding(user, nanos, request_id)()
    return request_id


def test_opposite_moves_between_pool_and_members_never_deadlock(space: Space, manager: User) -> None:
    members = [MemberFactory.create(space=space, usd=50) for _ in range(4)]
    steps = [setting(members[n % 4], (n * 37 % 100) * USD, manager) for n in range(50)]

    results = together(*steps)

    assert kinds(results).keys() <= {"Transfer", "NoneType", "InsufficientPool"}
    assert Transfer.objects.filter(kind__in=["allocate", "reclaim"]).count() == 4 + kinds(results)["Transfer"]
    assert_balanced(space)


def test_grants_revokes_allocations_and_the_managers_spending_never_overdraw_the_pool(
    space: Space, manager: User, member: User
) -> None:
    moves = [
        lambda: grant(space=space, amount_nanos=10 * USD, reason="", actor=None),
        lambda: revoke(space=space, amount_nanos=60 * USD, reason="", actor=None),
        setting(member, 300 * USD, manager),
        setting(member, 0, manager),
    ]
    results = together(*moves * 8, *(holding(manager, 40 * USD) for _ in range(16)))

    assert kinds(results)["InsufficientPool"] + kinds(results)["InsufficientQuota"] > 0
    assert pool_of(space).available >= 0
    assert_balanced(space)


def test_a_wallet_that_covers_37_holds_accepts_37_of_200(space: Space, manager: User, member: User) -> None:
    setting(member, 37 * USD + USD - 1, manager)()
    steps = [holding(member, USD) for _ in range(200)]

    results = [result for batch in range(4) for result in together(*steps[batch * 50 : batch * 50 + 50])]

    assert kinds(results) == {"tuple": 37, "InsufficientQuota": 163}
    assert figures(member) == (38 * USD - 1, 0, 0, 37 * USD)
    assert Hold.objects.count() == 37
    assert_balanced(space)


def test_the_managers_holds_and_an_allocation_share_what_the_pool_has(
    space: Space, manager: User, member: User
) -> None:
    results = together(*(holding(manager, 50 * USD) for _ in range(15)), setting(member, 255 * USD, manager))

    assert pool_of(space).available < 50 * USD
    assert figures(space)[1] + figures(space)[3] <= 500 * USD
    assert kinds(results)["tuple"] == figures(space)[3] // (50 * USD)
    assert_balanced(space)


def test_one_id_held_from_many_threads_holds_once(space: Space, member: User) -> None:
    request_id = new_id()

    results = together(*(holding(member, USD, request_id) for _ in range(30)))

    made = Hold.objects.get()
    assert Counter(results) == {(made, True): 1, (made, False): 29}
    assert figures(member) == (5 * USD, 0, 0, 1 * USD)
    assert_balanced(space)


def test_one_hold_settled_from_many_threads_is_charged_once(space: Space, member: User) -> None:
    request_id = held(member, 2 * USD)

    results = together(*(settling(member, request_id, 1 * USD) for _ in range(30)))

    assert set(results) == {UsageRecord.objects.get()}
    assert figures(member) == (5 * USD, 0, 1 * USD, 0)
    assert_balanced(space)


def test_one_hold_settled_released_renewed_and_swept_at_once_ends_once(space: Space, member: User) -> None:
    for _ in range(5):
        request_id = held(member, USD // 2)
        results = together(
            *[settling(member, request_id, USD // 4)] * 4,
            *[partial(release, space_id=space.pk, request_id=request_id, call=CALL)] * 4,
            *[lambda: expire_holds(now=timezone.now() + timedelta(hours=1))] * 4,
            *[partial(renew, space_id=space.pk, request_id=request_id, delivered_bytes=1, accrued_nanos=USD // 8)] * 4,
        )
        assert kinds(results).keys() <= {"UsageRecord", "bool", "int"}
        assert sum(UsageRecord.objects.filter(request_id=request_id).values_list("cost", flat=True)) in (0, USD // 4)

    assert not Hold.objects.exists()
    assert_balanced(space)


def test_many_sweepers_sweep_each_hold_once(space: Space, member: User, manager: User) -> None:
    for _ in range(10):
        renewed = held(member, USD // 4)
        renew(space_id=space.pk, request_id=renewed, delivered_bytes=1, accrued_nanos=USD // 8)
        held(manager, USD)

    swept = together(*[lambda: expire_holds(now=timezone.now() + timedelta(hours=1))] * 8)

    assert sum(count for count in swept if isinstance(count, int)) == UsageRecord.objects.count() == 20
    assert figures(member) == (5 * USD, 0, 10 * (USD // 8), 0)
    assert_balanced(space)


def test_a_swept_hold_settled_from_many_threads_is_charged_once(space: Space, member: User) -> None:
    request_id = held(member, 2 * USD)
    expire_holds(now=timezone.now() + timedelta(hours=1))

    results = together(*(settling(member, request_id, 1 * USD) for _ in range(20)))

    assert len(set(results)) == 1
    assert figures(member) == (5 * USD, 0, 1 * USD, 0)
    assert_balanced(space)


def test_costs_beyond_their_holds_settled_from_many_threads_never_pass_the_keys_limit(
    space: Space, member: User
) -> None:
    key, _text = create_key(owner=member, terms=KeyTerms(name="laptop", limit_nanos=2 * USD))
    call = msgspec.structs.replace(CALL, key_id=key.pk)
    requests = [new_id() for _ in range(16)]
    for request_id in requests:
        hold(request_id=request_id, user=member, amount_nanos=USD // 16, call=call)

    together(*(settling(member, request_id, USD // 2) for request_id in requests))

    key.refresh_from_db()
    assert (key.spent, key.held) == (2 * USD, 0)
    assert figures(member) == (5 * USD, 0, 2 * USD, 0)
    assert UsageRecord.objects.aggregate(all=Sum("shortfall")) == {"all": 6 * USD}
    assert_balanced(space)


def test_holds_of_nothing_from_many_threads_are_made_settled_and_swept_once(space: Space, member: User) -> None:
    requests = [held(member, 0) for _ in range(10)]
    sweep = partial(expire_holds, now=timezone.now() + timedelta(hours=1))

    together(*(settling(member, request_id, 0) for request_id in requests), sweep, sweep)

    assert UsageRecord.objects.values("request_id").distinct().count() == 10 and not Hold.objects.exists()
    assert figures(member) == (5 * USD, 0, 0, 0)
    assert_balanced(space)


def test_deleting_a_member_while_their_requests_settle_loses_no_money(space: Space, manager: User) -> None:
    for _ in range(8):
        member = MemberFactory.create(space=space, usd=10)
        settled = [settling(member, held(member, USD), USD // 2) for _ in range(8)]

        results = together(*settled, partial(delete_member, member=member, actor=manager))

        assert kinds(results) == {"UsageRecord": 8, "Transfer": 1}
        assert figures(member) == (4 * USD, 0, 4 * USD, 0)

    assert figures(space) == (500 * USD, 32 * USD, 0, 0)
    assert_balanced(space)


def test_deleting_a_member_while_their_quota_is_set_and_held_succeeds_once_without_deadlock(
    space: Space, manager: User
) -> None:
    for _ in range(8):
        member = MemberFactory.create(space=space, usd=10)
        changes = MemberChanges(remaining_nanos=30 * USD)

        first, second, *_others = together(
            partial(delete_member, member=member, actor=manager),
            partial(delete_member, member=member, actor=manager),
            partial(edit_member, member=member, changes=changes, actor=manager),
            *(setting(member, n * USD, manager) for n in (0, 20, 40)),
            *(holding(member, USD) for _ in range(4)),
        )

        assert kinds([first, second])["MemberGoneError"] == 1
        wallet = Wallet.objects.get(user=member)
        assert (wallet.is_closed, wallet.available, wallet.total) == (True, 0, wallet.held)
        assert AuditEvent.objects.filter(kind="member.deleted", target_id=member.pk, refusal="").count() == 1

    assert_balanced(space)


def test_members_of_one_space_settle_while_the_pools_money_moves(space: Space, manager: User) -> None:
    members = [MemberFactory.create(space=space, usd=50) for _ in range(2)]
    charges = [settling(user, held(user, USD), USD // 4) for user in [*members, manager] for _ in range(8)]
    moves = [setting(member, (20 + n) * USD, manager) for n in range(8) for member in members]
    steps = charges + moves + [lambda: grant(space=space, amount_nanos=USD, reason="", actor=None)] * 4
    random.Random(7).shuffle(steps)

    results = together(*steps)

    assert kinds(results)["UsageRecord"] == 24
    assert [*(figures(member)[2:] for member in members), figures(space)[2:]] == [(2 * USD, 0)] * 3
    assert_balanced(space)


def test_disabling_while_holds_come_in_leaves_only_holds_that_were_made_before(space: Space, manager: User) -> None:
    member = MemberFactory.create(space=space, usd=50)
    disable = [lambda: set_enabled(member=member, is_enabled=False, actor=manager)]

    results = together(*(holding(member, USD) for _ in range(15)), *disable, *(holding(member, USD) for _ in range(15)))

    made = kinds(results)["tuple"]
    assert kinds(results) == Counter({"tuple": made, "NotSpending": 30 - made, "User": 1}) - Counter()
    assert figures(member) == (50 * USD, 0, 0, made * USD)
    assert isinstance(together(holding(member, USD))[0], NotSpending)
    assert_balanced(space)


def test_a_form_submitted_twenty_times_at_once_moves_money_once(space: Space, manager: User, member: User) -> None:
    results = together(*(setting(member, n * USD, manager, was_total_nanos=5 * USD) for n in range(10, 30)))

    assert kinds(results) == {"Transfer": 1, "StaleTotal": 19}
    assert [kind for kind, _amount in journal(space)] == ["grant", "allocate", "allocate"]
    assert_balanced(space)


def test_one_key_granted_from_twenty_threads_grants_once(space: Space) -> None:
    results = together(*[lambda: grant(space=space, amount_nanos=20 * USD, reason="May", actor=None, key="may")] * 20)

    assert set(results) == {Transfer.objects.get(idempotency_key="may")}
    assert figures(space) == (520 * USD, 0, 0, 0)
    assert AuditEvent.objects.filter(kind="pool.grant").count() == 2
    assert_balanced(space)


def test_one_key_in_two_spaces_grants_once_in_each(space: Space) -> None:
    other = SpaceFactory.create(grant_usd=10)

    together(
        *(
            partial(grant, space=each, amount_nanos=20 * USD, reason="May", actor=None, key="may")
            for each in [space, other] * 10
        )
    )

    assert (figures(space), figures(other)) == ((520 * USD, 0, 0, 0), (30 * USD, 0, 0, 0))
    assert_balanced(space)
    assert_balanced(other)
