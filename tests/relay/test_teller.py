"""The teller in an event loop of the test: concurrent orders, call orders beside sets, and an orderly close."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from django.db import connection
from msgspec.structs import replace

from accounts.keys import Presented, parse_key
from accounts.models import User
from core.errors import InsufficientQuota, KeyRefused, QuotaError
from core.ids import new_id
from quotas.charging import Call
from quotas.models import Wallet
from quotas.reconcile import reconcile
from quotas.sets import CheckOrder, Held, HoldOrder, Settled, SettleOrder
from relay import teller as tellers
from relay.teller import CallOrder, Teller
from tests.relay.conftest import run_async
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db(transaction=True)

USD = 1_000_000_000


def hold_order(key: str, nanos: int) -> HoldOrder:
    presented = parse_key(key)
    assert presented is not None
    return HoldOrder(
        request_id=new_id(), presented=presented, model="m", address=None, least_nanos=nanos, most_nanos=nanos
    )


def settle_order(held: HoldOrder, nanos: int) -> SettleOrder:
    return SettleOrder(
        space_id=held.presented.space_id, request_id=held.request_id, cost_nanos=nanos, call=Call(model="m")
    )


def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)
    connection.close()


def test_concurrent_orders_each_get_their_own_outcome(key: str, member: User) -> None:
    """$5.00 cover exactly 37 of two hundred concurrent holds, and each of these is settled."""
    amount = 5 * USD // 37

    async def scene() -> list[object]:
        teller = Teller()
        teller.start()

        async def one() -> object:
            order = hold_order(key, amount)
            assert await teller.ask(order) == Held(amount)
            return await teller.ask(settle_order(order, amount))

        outcomes = await asyncio.gather(*(one() for _ in range(200)), return_exceptions=True)
        await teller.close()
        return outcomes

    outcomes = run_async(scene())

    assert sum(isinstance(outcome, Settled) for outcome in outcomes) == 37
    assert sum(isinstance(outcome, InsufficientQuota) for outcome in outcomes) == 163
    assert Wallet.objects.get(user=member).spent == 37 * amount and reconcile(member.space) == []


def test_orders_queued_at_close_are_still_written(key: str, member: User) -> None:
    async def scene() -> None:
        teller = Teller()
        teller.start()
        order = hold_order(key, USD)
        await teller.ask(order)
        asking = asyncio.ensure_future(teller.ask(settle_order(order, USD)))
        await asyncio.sleep(0)
        await teller.close()
        assert await asking == Settled(USD, 4 * USD)

    run_async(scene())
    assert UsageRecord.objects.get().cost == USD


def test_orders_retried_at_close_are_still_written(key: str, member: User) -> None:
    async def scene() -> None:
        teller = Teller()
        teller.start()
        order = hold_order(key, USD)
        await teller.ask(order)
        await asyncio.to_thread(execute, "ALTER TABLE quotas_hold RENAME TO away")
        asking = asyncio.ensure_future(teller.ask(settle_order(order, USD)))
        await asyncio.sleep(tellers.RETRY_INTERVAL_S / 2)
        closing = asyncio.ensure_future(teller.close())
        await asyncio.sleep(2 * tellers.RETRY_INTERVAL_S)
        assert not closing.done()
        await asyncio.to_thread(execute, "ALTER TABLE away RENAME TO quotas_hold")
        await closing
        assert await asking == Settled(USD, 4 * USD)

    run_async(scene())
    assert UsageRecord.objects.get().cost == USD and reconcile(member.space) == []


def test_an_order_that_cannot_be_written_does_not_fail_the_others_of_its_set(key: str, member: User) -> None:
    """A lone surrogate cannot be encoded as UTF-8, so neither database can store it."""

    async def scene() -> list[object]:
        teller = Teller()
        teller.start()
        orders = [hold_order(key, USD) for _ in range(3)]
        await asyncio.gather(*map(teller.ask, orders))
        settlements = [settle_order(order, USD) for order in orders]
        settlements[1] = replace(settlements[1], call=Call(model="m", code="\ud800"))
        outcomes = await asyncio.gather(*map(teller.ask, settlements), return_exceptions=True)
        await teller.close()
        return list(outcomes)

    first, second, third = run_async(scene())

    assert isinstance(second, UnicodeEncodeError) and isinstance(first, Settled) and isinstance(third, Settled)
    assert UsageRecord.objects.count() == 2 and reconcile(member.space) == []


def test_cancelling_the_caller_does_not_cancel_its_order(key: str, member: User) -> None:
    async def scene() -> None:
        teller = Teller()
        teller.start()
        order = hold_order(key, USD)
        await teller.ask(order)
        asking = asyncio.ensure_future(teller.ask(settle_order(order, USD)))
        await asyncio.sleep(0)
        asking.cancel()
        await teller.close()

    run_async(scene())
    assert UsageRecord.objects.get().cost == USD


def test_call_orders_run_beside_sets_and_exceptions_return_to_their_caller(key: str, member: User) -> None:
    def bug() -> int:
        raise ZeroDivisionError

    def refuse() -> int:
        Wallet.objects.filter(user=member).update(total=6 * USD)
        raise QuotaError("no")

    async def scene() -> list[object]:
        teller = Teller()
        teller.start()
        unknown = CheckOrder(request_id=new_id(), presented=Presented(1, "0" * 64), address=None)
        outcomes = await asyncio.gather(
            teller.ask(CallOrder(lambda: connection.vendor)),
            teller.ask(unknown),
            teller.ask(CallOrder(bug)),
            teller.ask(CallOrder(refuse)),
            teller.ask(hold_order(key, USD)),
            return_exceptions=True,
        )
        await teller.close()
        return list(outcomes)

    vendor, refused, broken, rolled_back, held = run_async(scene())

    assert (vendor, held) == (connection.vendor, Held(USD))
    assert isinstance(refused, KeyRefused) and isinstance(broken, ZeroDivisionError)
    assert isinstance(rolled_back, QuotaError) and Wallet.objects.get(user=member).total == 5 * USD


@pytest.mark.postgresql("SQLite has no session that could hang")
def test_a_hanging_session_is_dropped_and_owed_orders_are_written_by_another(
    key: str, member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tellers, "SET_TIMEOUT_S", 0.5)

    async def scene() -> Settled:
        teller = Teller()
        teller.start()
        order = hold_order(key, USD)
        await teller.ask(order)
        assert teller._connection is not None
        session = teller._connection.info.backend_pid
        os.kill(session, signal.SIGSTOP)
        try:
            return await teller.ask(settle_order(order, USD))
        finally:
            os.kill(session, signal.SIGCONT)
            await teller.close()

    assert run_async(scene(), seconds=60) == Settled(USD, 4 * USD)
    assert UsageRecord.objects.get().cost == USD
    assert Wallet.objects.get(user=member).spent == USD and reconcile(member.space) == []


@pytest.mark.postgresql("SQLite prepares nothing")
def test_a_pooler_without_prepared_statements_is_supported(key: str, member: User) -> None:
    """A pooler in transaction mode may send each statement to another session, which has not prepared it."""

    async def scene() -> list[Held]:
        teller = Teller()
        teller.start()
        held = []
        for _ in range(3):
            # Holds are not owed orders: a failure would be raised here, not retried.
            held.append(await teller.ask(hold_order(key, USD)))
            assert teller._connection is not None
            # Inside a DO block, so that psycopg does not notice that its statements are gone.
            await teller._connection.execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$")
        await teller.close()
        return held

    assert run_async(scene()) == [Held(USD)] * 3
    assert Wallet.objects.get(user=member).held == 3 * USD and reconcile(member.space) == []
