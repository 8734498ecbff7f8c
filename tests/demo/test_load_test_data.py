"""The test space has balanced books and consistent rows, as if the product's services had written it."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models import Count, Sum
from django.test import Client
from django.utils import timezone

from accounts.keys import KeyTerms, create_key
from accounts.models import ApiKey, User
from core.ids import new_id
from core.money import NANOS_PER_USD
from quotas.charging import Call, hold, settle
from quotas.members import create_member
from quotas.models import Transfer, Wallet
from quotas.reconcile import reconcile
from quotas.services import set_remaining
from relay.pricing import Rate, Usage, cost_nanos
from tenants.models import Space
from tenants.roles import Role
from tests.quotas.books import conserved
from usage.models import HourlyUsage, UsageRecord

pytestmark = pytest.mark.django_db


def load(monkeypatch: Any, *extra: str, password: str = "long enough") -> tuple[Space, str]:
    monkeypatch.setattr("sys.stdin", io.StringIO(password + "\n"))
    out = io.StringIO()
    sizes = ("--members=60", "--rows=2000", "--days=12")
    call_command("load_test_data", "--space=Big One", *sizes, "--password-stdin", *extra, stdout=out)
    return Space.objects.get(name="Big One"), out.getvalue()


def test_the_books_balance_and_the_sizes_are_as_requested(monkeypatch: Any) -> None:
    space, output = load(monkeypatch)

    assert "60 members" in output and "the books balance" in output and "manager big-one.manager, admin " in output
    total, parts = conserved(space)
    assert total == parts and reconcile(space) == []
    assert UsageRecord.objects.filter(space=space).count() == 2000
    assert Wallet.objects.filter(space=space, kind="member").count() == 60
    assert Transfer.objects.filter(space=space, kind="allocate").count() == 60
    assert space.people.get(number=2).role == Role.ADMIN and space.last_number == 61
    assert space.is_demo


def test_usage_is_distributed_unevenly(monkeypatch: Any) -> None:
    space, _output = load(monkeypatch)

    rows = UsageRecord.objects.filter(space=space).order_by()
    by_user = sorted(rows.values("user_id").annotate(n=Count("id")).values_list("n", flat=True), reverse=True)
    assert by_user[0] > 4 * by_user[len(by_user) // 2]
    assert rows.values("model").distinct().count() == 5
    assert 0 < rows.filter(kind="error").count() < 400
    assert rows.filter(user_id=space.people.get(number=1).pk).exists()
    assert ApiKey.objects.filter(space=space).count() > 61
    days = {record.at.date() for record in rows.order_by("id")}
    # The first hours may be at night without a row; then only twelve different dates occur.
    assert len(days) >= 12 and max(days) - min(days) in {timedelta(days=11), timedelta(days=12)}
    assert max(record.at for record in rows) < timezone.now()


def test_each_row_costs_what_its_price_says_and_leaves_what_is_available(monkeypatch: Any) -> None:
    space, _output = load(monkeypatch)

    spent = dict.fromkeys(Wallet.objects.filter(space=space).values_list("pk", flat=True), 0)
    free = {wallet.pk: wallet.total - wallet.allocated for wallet in Wallet.objects.filter(space=space)}
    for record in UsageRecord.objects.filter(space=space).order_by("id"):
        usage = Usage(
            input=record.input_tokens - record.cached_tokens, cached=record.cached_tokens, output=record.output_tokens
        )
        assert record.cost == (0 if record.kind == "error" else cost_nanos(Rate.of(record.price), usage))
        spent[record.wallet_id] += record.cost
        assert record.available_after == free[record.wallet_id] - spent[record.wallet_id]
    assert spent == dict(Wallet.objects.filter(space=space).values_list("pk", "spent"))


def test_roll_ups_are_the_sums_of_the_rows(monkeypatch: Any) -> None:
    space, _output = load(monkeypatch)

    hours = HourlyUsage.objects.filter(space=space)
    for record in UsageRecord.objects.filter(space=space)[:20]:
        hour = record.at.replace(minute=0, second=0, microsecond=0)
        assert hours.filter(user_id=record.user_id, key_id=record.key_id, model=record.model, hour=hour).exists()
    rows = UsageRecord.objects.filter(space=space).aggregate(Count("id"), Sum("cost"), Sum("input_tokens"))
    assert list(hours.aggregate(Sum("requests"), Sum("cost"), Sum("input_tokens")).values()) == list(rows.values())


def test_the_same_seed_makes_the_same_data(monkeypatch: Any) -> None:
    def rows_of(space: Space) -> list[Any]:
        return list(UsageRecord.objects.filter(space=space).order_by("id").values_list("model", "cost", "kind"))

    space, _output = load(monkeypatch)
    other = io.StringIO()
    for name, seed in (("Again", "1"), ("Other", "2")):
        sizes = ("--members=60", "--rows=2000", "--days=12", f"--seed={seed}")
        call_command("load_test_data", f"--space={name}", *sizes, stdout=other)

    assert rows_of(space) == rows_of(Space.objects.get(name="Again")) != rows_of(Space.objects.get(name="Other"))
    assert "nobody can sign in" in other.getvalue()


def test_the_services_work_in_the_test_space(monkeypatch: Any) -> None:
    space, _output = load(monkeypatch)
    manager, member = User.objects.get(space=space, number=1), User.objects.get(space=space, number=3)
    set_remaining(member=member, remaining_nanos=5 * NANOS_PER_USD, actor=manager)
    request_id, key = new_id(), create_key(owner=member, terms=KeyTerms(name="new"))[0]
    call = Call(model="gpt-4o", key_id=key.pk)
    hold(request_id=request_id, user=member, amount_nanos=NANOS_PER_USD, call=call)
    settle(space_id=space.pk, request_id=request_id, cost_nanos=7, call=call)
    new = create_member(space=space, username="new-one", display_name="", password="long enough", actor=manager)

    assert new.number == 62 and reconcile(space) == []


@pytest.mark.parametrize("number", [1, 2, 3, 40])
def test_people_sign_in_with_the_password_that_was_given(monkeypatch: Any, client: Client, number: int) -> None:
    space, _output = load(monkeypatch)
    person = space.people.get(number=number)
    person.is_active = True
    person.save(update_fields=["is_active"])

    answer = client.post("/login/", {"username": person.username, "password": "long enough"})

    assert answer.status_code == 302
    assert client.get("/console/usage/").status_code == 200


def test_it_refuses_a_database_with_real_spaces_unless_forced(monkeypatch: Any, space: Space) -> None:
    with pytest.raises(CommandError, match="--force"):
        load(monkeypatch)
    assert list(Space.objects.all()) == [space]

    load(monkeypatch, "--force")

    assert reconcile(space) == []


def test_a_name_that_is_taken_is_refused(monkeypatch: Any) -> None:
    load(monkeypatch)

    with pytest.raises(CommandError, match="--space"):
        load(monkeypatch)
    assert Space.objects.count() == 1 and UsageRecord.objects.count() == 2000


@pytest.mark.parametrize("option", ["--members=0", "--rows=-1", "--days=0", "--days=99999"])
def test_sizes_out_of_range_are_refused(monkeypatch: Any, option: str) -> None:
    with pytest.raises(CommandError, match=option.partition("=")[0]):
        load(monkeypatch, option)
    assert not Space.objects.exists()


def test_a_short_password_is_refused(monkeypatch: Any) -> None:
    with pytest.raises(CommandError, match="at least 8"):
        load(monkeypatch, password="short")
    assert not Space.objects.exists()


def test_a_space_of_one_member_without_a_row_balances(monkeypatch: Any) -> None:
    space, output = load(monkeypatch, "--members=1", "--rows=0")

    assert reconcile(space) == [] and "the books balance" in output
