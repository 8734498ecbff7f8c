"""Whatever happens in whatever order, the books balance after each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from django.db.models import Count, Sum
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
from quotas.charging import expire_holds, hold, release, renew, settle
from quotas.errors import BelowHeld, InsufficientPool, InsufficientQuota, NotSpending, QuotaError
from quotas.models import Hold, Transfer, Wallet
from quotas.pool import pool_of
from quotas.reconcile import reconcile
from quotas.services import grant, revoke, set_remaining
from tenants.ids import new_id
from tenants.models import Space
from tenants.services import delete_member, set_enabled
from tests.factories import MemberFactory, SpaceFactory, manager_of
from tests.quotas.books import CALL, books, conserved
from usage.models import HourlyUsage, UsageRecord

# Small figures, so that limits are met often; and some with every digit.
AMOUNTS = st.integers(1, 12) | st.integers(1, 10**12)
COSTS = st.just(0) | AMOUNTS
WHICH = st.integers(0, 99)


class Books(RuleBasedStateMachine):
    """One space in one transaction, undone at the end of each story."""

    space: Space
    manager: User

    def __init__(self) -> None:
        super().__init__()
        self.members: list[User] = []
        self.requests: list[UUID] = []
        self.replays: list[Callable[[], object]] = []
        self.atomic = transaction.atomic()
        self.atomic.__enter__()

    @initialize(amounts=st.lists(AMOUNTS, min_size=2, max_size=3))
    def found_a_space(self, amounts: list[int]) -> None:
        self.space = SpaceFactory.create(grant_usd=0)
        self.manager = manager_of(self.space)
        grant(space=self.space, amount_nanos=sum(amounts) + 9, reason="", actor=None)
        for amount in amounts:
            member = MemberFactory.create(space=self.space)
            set_remaining(member=member, remaining_nanos=amount, actor=self.manager)
            self.members.append(member)

    # What operators, managers and admins do.

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
    @rule(which=WHICH, remaining=COSTS)
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
        # Without a difference there is no transfer that would remember the key.
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
        member = self.members.pop(which % len(self.members))
        before = pool_of(self.space).available + Wallet.objects.get(user=member).available
        delete_member(member=member, actor=self.manager)
        assert pool_of(self.space).available == before

    # What requests do.

    @rule(which=WHICH, amount=AMOUNTS, lifetime_s=st.sampled_from([10, 1000]))
    def hold_for_a_request(self, which: int, amount: int, lifetime_s: int) -> None:
        user = [self.manager, *self.members][which % (len(self.members) + 1)]
        wallet, request_id = self._wallet(user), new_id()
        refused: type[QuotaError] | None = InsufficientQuota if amount > wallet.available else None
        if not User.objects.get(pk=user.pk).is_active:
            refused = NotSpending
        self._does(
            lambda: hold(request_id=request_id, user=user, amount_nanos=amount, call=CALL, lifetime_s=lifetime_s),
            refused=refused,
        )
        if not refused:
            self.requests.append(request_id)

    @precondition(lambda self: self.requests)
    @rule(which=WHICH, cost=COSTS)
    def settle_a_request(self, which: int, cost: int) -> None:
        """Of those in flight, swept, settled and released before: whatever an upstream reports, and when."""
        request_id = self._request(which)
        before = self._spent()
        rows = UsageRecord.objects.filter(request_id=request_id)
        charged = sum(rows.values_list("cost", flat=True))
        record = self._does(
            lambda: settle(space_id=self.space.pk, request_id=request_id, cost_nanos=cost, call=CALL), refused=None
        )
        assert isinstance(record, UsageRecord)
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

    @precondition(lambda self: self.requests)
    @rule(which=WHICH, accrued=COSTS, lifetime_s=st.sampled_from([10, 1000]))
    def renew_a_request(self, which: int, accrued: int, lifetime_s: int) -> None:
        found = Hold.objects.filter(pk=self._request(which)).first()
        before = self._figures()
        renewed = renew(
            space_id=self.space.pk,
            request_id=self._request(which),
            delivered_bytes=0,
            accrued_nanos=min(accrued, found.amount) if found else accrued,
            lifetime_s=lifetime_s,
        )
        assert (renewed, self._figures()) == (found is not None, before)

    @rule()
    def sweep(self) -> None:
        """A minute later: those that live for 1000 seconds stay."""
        later = timezone.now() + timedelta(seconds=60)
        due = Hold.objects.filter(space=self.space, expires_at__lte=later)
        accrued, count, before = sum(due.values_list("accrued", flat=True)), due.count(), self._spent()
        assert expire_holds(now=later) == count
        assert self._spent() == before + accrued
        assert expire_holds(now=later) == 0

    @precondition(lambda self: self.replays)
    @rule(which=WHICH)
    def repeat_an_earlier_step(self, which: int) -> None:
        before = books(self.space)
        try:
            self.replays[which % len(self.replays)]()
        except QuotaError as error:
            note(f"refused: {error!r}")
        assert books(self.space) == before

    # What holds after each step.

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
        """What each wallet was moved, has spent and holds, by the journal, the log and the holds."""
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
        """Take a step that succeeds, to be repeated later; or see that it is refused and changes nothing."""
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

    def _request(self, which: int) -> UUID:
        return self.requests[which % len(self.requests)]

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
