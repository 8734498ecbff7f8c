"""Stateful property test: after each step of any sequence of deeds and requests, the books balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from django.db.models import Count, QuerySet, Sum
from django.utils import timezone
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from accounts.models import User
from core.errors import BelowHeld, InsufficientPool, InsufficientQuota, NotSpending, QuotaError
from core.ids import new_id
from quotas.charging import expire_holds, hold, release, renew, settle
from quotas.members import delete_member, set_enabled
from quotas.models import Hold, Transfer, Wallet
from quotas.pool import pool_of
from quotas.reconcile import reconcile
from quotas.services import grant, revoke, set_remaining
from tenants.models import Space
from tests.factories import MemberFactory, SpaceFactory, manager_of
from tests.quotas.books import CALL, books, conserved
from usage.models import HourlyUsage, UsageRecord

AMOUNTS = st.integers(1, 12) | st.integers(1, 10**12)
REMAININGS = st.just(0) | AMOUNTS
# Amounts in tenths of what is available: most succeed, and the limit and amounts above it are drawn often.
TENTHS = st.sampled_from([1, 2, 3, 5, 10, 11, 40])
COSTS = st.just(0) | TENTHS
LIFETIMES_S = st.sampled_from([1000, 10])
WHICH = st.integers(0, 99)


class Books(RuleBasedStateMachine):
    """One space in one transaction, which is rolled back at the end of each example."""

    space: Space
    manager: User

    def __init__(self) -> None:
        super().__init__()
        self.members: list[User] = []
        self.requests: list[UUID] = []
        self.replays: list[Callable[[], object]] = []
        self.atomic = transaction.atomic()
        self.atomic.__enter__()

    @initialize(amounts=st.lists(AMOUNTS, min_size=2, max_size=3), in_flight=st.lists(TENTHS, min_size=4, max_size=8))
    def found_a_space(self, amounts: list[int], in_flight: list[int]) -> None:
        self.space = SpaceFactory.create(grant_usd=0)
        self.manager = manager_of(self.space)
        grant(space=self.space, amount_nanos=sum(amounts) + 9, reason="", actor=None)
        for amount in amounts:
            member = MemberFactory.create(space=self.space)
            set_remaining(member=member, remaining_nanos=amount, actor=self.manager)
            self.members.append(member)
        for which, tenths in enumerate(in_flight, start=1):
            self.hold_for_a_request(which, tenths, 1000)
        for flying in Hold.objects.all():
            self._renew(flying.pk, flying.amount // 2, 1000)

    # Deeds of operators, managers and admins.

    @rule(amount=AMOUNTS)
    def grant_to_the_pool(self, amount: int) -> None:
        key = str(new_id())
        self._does(lambda: grant(space=self.space, amount_nanos=amount, reason="", actor=None, key=key))

    @rule(amount=AMOUNTS)
    def revoke_from_the_pool(self, amount: int) -> None:
        key = str(new_id())
        free = pool_of(self.space).available
        self._does(
            lambda: revoke(space=self.space, amount_nanos=amount, reason="", actor=None, key=key),
            refused=InsufficientPool if amount > free else None,
        )

    @precondition(lambda self: self.members)
    @rule(which=WHICH, remaining=REMAININGS)
    def set_a_members_remaining(self, which: int, remaining: int) -> None:
        member, key = self._member(which), str(new_id())
        pool, wallet = pool_of(self.space), Wallet.objects.get(user=member)
        refused = (
            BelowHeld
            if remaining < wallet.held
            else InsufficientPool
            if remaining - wallet.remaining > pool.available
            else None
        )
        # Without a difference no transfer stores the idempotency key, so a replay would not be recognised.
        self._does(
            lambda: set_remaining(member=member, remaining_nanos=remaining, actor=self.manager, key=key),
            refused=refused,
            is_replayed=remaining != wallet.remaining,
        )
        assert refused or Wallet.objects.get(user=member).remaining == remaining

    @precondition(lambda self: self.members)
    @rule(which=WHICH, is_enabled=st.booleans())
    def enable_or_disable_a_member(self, which: int, is_enabled: bool) -> None:
        before = self._figures()
        set_enabled(member=self._member(which), is_enabled=is_enabled, actor=self.manager)
        assert self._figures() == before

    @precondition(lambda self: len(self.members) < 4)
    @rule()
    def add_a_member(self) -> None:
        self.members.append(MemberFactory.create(space=self.space))

    @precondition(lambda self: len(self.members) > 1)
    @rule(which=WHICH)
    def delete_a_member(self, which: int) -> None:
        self._delete(self._member(which))

    @precondition(lambda self: self._members_in_flight())
    @rule(which=WHICH, tenths=COSTS)
    def delete_a_member_whose_request_settles_then(self, which: int, tenths: int) -> None:
        members = self._members_in_flight()
        member = members[which % len(members)]
        flying = Hold.objects.filter(user_id=member.pk).order_by("pk")[0]
        self._delete(member)
        free, cost = pool_of(self.space).available, flying.amount * tenths // 10
        self._settle(flying.pk, cost)
        assert pool_of(self.space).available == free + max(0, flying.amount - cost)

    # Steps of requests.

    @rule(which=WHICH, tenths=TENTHS, lifetime_s=LIFETIMES_S)
    def hold_for_a_request(self, which: int, tenths: int, lifetime_s: int) -> None:
        user = [self.manager, *self.members][which % (len(self.members) + 1)]
        wallet, request_id = self._wallet(user), new_id()
        amount = max(1, wallet.available * tenths // 10)
        refused: type[QuotaError] | None = InsufficientQuota if amount > wallet.available else None
        if not User.objects.get(pk=user.pk).is_active:
            refused = NotSpending
        self._does(
            lambda: hold(request_id=request_id, user=user, amount_nanos=amount, call=CALL, lifetime_s=lifetime_s),
            refused=refused,
        )
        if not refused:
            self.requests.append(request_id)

    @precondition(lambda self: Hold.objects.exists())
    @rule(which=WHICH, tenths=COSTS)
    def settle_what_is_in_flight(self, which: int, tenths: int) -> None:
        flying = self._flying(which)
        cost, before = flying.amount * tenths // 10, Wallet.objects.get(pk=flying.wallet_id)
        record = self._settle(flying.pk, cost)
        charged = min(cost, flying.amount + before.available)
        assert (record.held, record.cost, record.shortfall) == (flying.amount, charged, cost - charged)
        assert Wallet.objects.get(pk=before.pk).spent == before.spent + charged

    @precondition(lambda self: self.requests)
    @rule(which=WHICH, cost=REMAININGS)
    def settle_a_request(self, which: int, cost: int) -> None:
        """Whether it is in flight, swept, settled or released, a request is charged at most its cost, once."""
        request_id = self._request(which)
        rows = UsageRecord.objects.filter(request_id=request_id)
        before, charged = self._spent(), sum(rows.values_list("cost", flat=True))
        self._settle(request_id, cost)
        now = sum(rows.values_list("cost", flat=True))
        assert charged <= now <= max(charged, cost)
        assert self._spent() - before == now - charged

    @precondition(lambda self: self.requests)
    @rule(which=WHICH)
    def release_a_request(self, which: int) -> None:
        request_id = self._request(which)
        before = self._spent()
        self._does(lambda: release(space_id=self.space.pk, request_id=request_id, call=CALL))
        assert self._spent() == before
        assert not Hold.objects.filter(pk=request_id).exists()

    @precondition(lambda self: Hold.objects.exists())
    @rule(which=WHICH, tenths=st.integers(0, 10), lifetime_s=LIFETIMES_S)
    def renew_what_is_in_flight(self, which: int, tenths: int, lifetime_s: int) -> None:
        flying, before = self._flying(which), self._figures()
        accrued = max(flying.accrued, flying.amount * tenths // 10)
        assert self._renew(flying.pk, accrued, lifetime_s)
        flying.refresh_from_db()
        assert (flying.accrued, self._figures()) == (accrued, before)

    @precondition(lambda self: self.requests)
    @rule(which=WHICH)
    def renew_what_has_ended(self, which: int) -> None:
        request_id, before = self._request(which), self._figures()
        assert self._renew(request_id, 0, 10) == Hold.objects.filter(pk=request_id).exists()
        assert self._figures() == before

    @precondition(lambda self: self._due().exists())
    @rule()
    def a_minute_passes(self) -> None:
        self._sweep()

    @precondition(lambda self: Hold.objects.exists())
    @rule(which=WHICH, accrued_tenths=st.integers(0, 10), tenths=COSTS)
    def settle_what_was_swept(self, which: int, accrued_tenths: int, tenths: int) -> None:
        flying = self._flying(which)
        accrued = max(flying.accrued, flying.amount * accrued_tenths // 10)
        cost = flying.amount * tenths // 10
        self._renew(flying.pk, accrued, 10)
        self._sweep()
        available, due = Wallet.objects.get(pk=flying.wallet_id).available, max(0, cost - accrued)
        record = self._settle(flying.pk, cost)
        assert (record.cost, record.shortfall) == (min(due, available), due - min(due, available))

    @precondition(lambda self: self.replays)
    @rule(which=WHICH)
    def repeat_an_earlier_step(self, which: int) -> None:
        before = books(self.space)
        try:
            self.replays[which % len(self.replays)]()
        except QuotaError as error:
            note(f"refused: {error!r}")
        assert books(self.space) == before

    # Invariants.

    @invariant()
    def no_figure_is_negative_and_all_are_what_the_records_come_to(self) -> None:
        moved, spent, held = self._records()
        for wallet in self._wallets():
            shown = (wallet.total, wallet.allocated, wallet.spent, wallet.held, wallet.available, wallet.remaining)
            assert min(shown) >= 0, shown
            free = moved[wallet.pk] - spent[wallet.pk] - held[wallet.pk]
            assert (wallet.available, wallet.spent, wallet.held) == (free, spent[wallet.pk], held[wallet.pk])
            if wallet.kind == Wallet.Kind.MEMBER:
                assert (wallet.remaining, wallet.total) == (moved[wallet.pk] - spent[wallet.pk], moved[wallet.pk])
            assert not wallet.is_closed or wallet.available == 0

    @invariant()
    def money_is_conserved(self) -> None:
        if self._wallets():
            total, parts = conserved(self.space)
            assert total == parts

    @invariant()
    def the_last_transfer_tells_the_pools_total(self) -> None:
        for transfer in Transfer.objects.filter(space=self._space_id())[:1]:
            assert transfer.pool_total_after == pool_of(self.space).total

    @invariant()
    def the_dashboard_shows_what_the_log_shows(self) -> None:
        hours = HourlyUsage.objects.filter(space=self._space_id()).aggregate(Sum("requests"), Sum("cost"))
        log = UsageRecord.objects.filter(space=self._space_id()).aggregate(Count("pk"), Sum("cost"))
        assert (hours["requests__sum"] or 0, hours["cost__sum"]) == (log["pk__count"], log["cost__sum"])

    def _records(self) -> tuple[Counter[UUID], Counter[UUID], Counter[UUID]]:
        """Transferred, spent and held nanos by wallet, summed from transfers, usage records and holds."""
        moved: Counter[UUID] = Counter()
        spent: Counter[UUID] = Counter()
        held: Counter[UUID] = Counter()
        transfers = Transfer.objects.filter(space=self._space_id())
        for source, target, amount in transfers.values_list("source_id", "target_id", "amount"):
            moved[source] -= amount
            moved[target] += amount
        for wallet_id, cost in UsageRecord.objects.filter(space=self._space_id()).values_list("wallet_id", "cost"):
            spent[wallet_id] += cost
        for wallet_id, amount in Hold.objects.filter(space=self._space_id()).values_list("wallet_id", "amount"):
            held[wallet_id] += amount
        return moved, spent, held

    def _wallets(self) -> list[Wallet]:
        return list(Wallet.objects.filter(space=self._space_id()))

    def teardown(self) -> None:
        try:
            if hasattr(self, "space"):
                assert reconcile(self.space) == []
        finally:
            transaction.set_rollback(True)
            self.atomic.__exit__(None, None, None)

    def _does(
        self, step: Callable[[], Any], *, refused: type[QuotaError] | None = None, is_replayed: bool = True
    ) -> Any:
        """Run a step and keep it for replay; or, with `refused`, assert that it raises that and writes nothing."""
        if refused is None:
            done = step()
            if is_replayed:
                self.replays.append(step)
            return done
        before = books(self.space)
        with pytest.raises(refused):
            step()
        assert books(self.space) == before
        return None

    def _member(self, which: int) -> User:
        return self.members[which % len(self.members)]

    def _members_in_flight(self) -> list[User]:
        spending = set(Hold.objects.values_list("user_id", flat=True))
        return [member for member in self.members if member.pk in spending]

    def _delete(self, member: User) -> None:
        self.members.remove(member)
        before = pool_of(self.space).available + Wallet.objects.get(user=member).available
        delete_member(member=member, actor=self.manager)
        assert pool_of(self.space).available == before

    def _request(self, which: int) -> UUID:
        return self.requests[which % len(self.requests)]

    def _due(self) -> QuerySet[Hold]:
        """Holds that are expired in a minute, which excludes those with a lifetime of 1000 seconds."""
        return Hold.objects.filter(space=self._space_id(), expires_at__lte=timezone.now() + timedelta(seconds=60))

    def _sweep(self) -> None:
        due, before = self._due(), self._spent()
        accrued, count = sum(due.values_list("accrued", flat=True)), due.count()
        later = timezone.now() + timedelta(seconds=60)
        assert (expire_holds(now=later), expire_holds(now=later)) == (count, 0)
        assert self._spent() == before + accrued

    def _flying(self, which: int) -> Hold:
        flying = list(Hold.objects.order_by("pk"))
        return flying[which % len(flying)]

    def _settle(self, request_id: UUID, cost: int) -> UsageRecord:
        record = self._does(lambda: settle(space_id=self.space.pk, request_id=request_id, cost_nanos=cost, call=CALL))
        assert isinstance(record, UsageRecord)
        return record

    def _renew(self, request_id: UUID, accrued: int, lifetime_s: int) -> bool:
        return renew(
            space_id=self.space.pk,
            request_id=request_id,
            delivered_bytes=0,
            accrued_nanos=accrued,
            lifetime_s=lifetime_s,
        )

    def _wallet(self, user: User) -> Wallet:
        return pool_of(self.space) if user.is_manager else Wallet.objects.get(user=user)

    def _space_id(self) -> int:
        return self.space.pk if hasattr(self, "space") else 0

    def _spent(self) -> int:
        return sum(wallet.spent for wallet in self._wallets())

    def _figures(self) -> list[Any]:
        return list(Wallet.objects.filter(space=self.space).order_by("pk").values())


def test_the_books_balance_whatever_happens(db: None) -> None:
    run_state_machine_as_test(
        Books,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
