"""Pruning: whole months are dropped once their roll-ups equal the rows, and the books balance without the rows."""

from __future__ import annotations

import io
from datetime import UTC, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.http import QueryDict
from django.test import Client
from django.utils import timezone

from accounts.keys import KeyTerms, create_key
from accounts.models import ApiKey, User
from console import export
from console.dashboard.dashboard import Dashboard
from console.usage.log import UsageLog
from console.usage.sheet import usage_sheet
from core import append_only
from core.errors import HoldUnknown
from core.ids import id_at, new_id
from core.money import NANOS_PER_USD, format_exact
from core.origin import acting
from quotas.charging import Call, expire_holds, hold, log_refusal, settle
from quotas.reconcile import reconcile
from quotas.statement import member_statement, space_statement
from quotas.statement_reader import StatementMonth
from tenants.models import Space
from tests.factories import charge
from tests.quotas.books import books
from tests.quotas.test_concurrency import together
from tests.usage.test_partitions import OtherConnection
from tests.usage.videos import submit, succeed, take
from usage import figures
from usage.models import HourlyUsage, QuarterMark, SpaceQuarter, UsageCheckpoint, UsageRecord
from usage.partitions import Month
from usage.quarters import PrunedError, close_quarters, pruned_through
from usage.retention import Pruned, months_due, prune_month

USD = NANOS_PER_USD
NOW = timezone.now()
# In the middle of a month, so that moments close to it are in the same month.
OLD = Month.of(NOW - timedelta(days=500)).start + timedelta(days=15)
OLD_MONTH = Month.of(OLD)


def prune(*arguments: str) -> str:
    output = io.StringIO()
    call_command("prune_usage", *(arguments or ("--keep", "400d")), stdout=output)
    return output.getvalue()


def charge_at(moment: Any, user: User, cost_usd: float) -> UsageRecord:
    with acting(moment=moment):
        return charge(user, cost_usd=cost_usd)


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.fixture
def history(space: Space, manager: User, member: User) -> Space:
    """Charges in two old months and today: the member's with and without a key, the manager's, and a refusal."""
    key = create_key(owner=member, terms=KeyTerms(name="laptop"))[0]
    with acting(moment=OLD):
        charge(manager, cost_usd=2)
        call = Call(model="gpt-4o", key_id=key.pk, key_name=key.name, input_tokens=5)
        request_id = new_id()
        hold(request_id=request_id, user=member, amount_nanos=USD, call=call)
        settle(space_id=space.pk, request_id=request_id, cost_nanos=USD // 4, call=call)
        refused = Call(model="gpt-4o", status=429, code="insufficient_quota")
        log_refusal(request_id=new_id(), user=member, call=refused)
    charge_at(OLD + timedelta(days=31), member, 0.5)
    charge(member, cost_usd=1)
    assert reconcile(space) == []
    return space


def test_old_months_are_dropped_and_their_sums_stay(history: Space, member: User, manager: User) -> None:
    before = books(history)
    younger = [row for row in before["UsageRecord"] if Month.of(UsageRecord(id=row["id"]).at) > OLD_MONTH.plus(1)]

    output = prune()

    assert output == (
        f"{OLD_MONTH}: 3 rows dropped, $2.25 kept as checkpoints.\n"
        f"{OLD_MONTH.plus(1)}: 1 row dropped, $0.50 kept as checkpoints.\n"
    )
    after = books(history)
    assert after.pop("UsageRecord") == younger and len(younger) == 1
    before.pop("UsageRecord")
    assert after == before
    kept = UsageCheckpoint.objects.order_by("through", "user_id", "spent")
    assert list(kept.values_list("user_id", "model", "through", "requests", "errors", "spent")) == [
        (manager.pk, "gpt-4o-mini", OLD_MONTH.end, 1, 0, 2 * USD),
        (member.pk, "gpt-4o", OLD_MONTH.end, 1, 1, 0),
        (member.pk, "gpt-4o", OLD_MONTH.end, 1, 0, USD // 4),
        (member.pk, "gpt-4o-mini", OLD_MONTH.plus(1).end, 1, 0, USD // 2),
    ]
    assert pruned_through(history.pk) == OLD_MONTH.plus(1).end and reconcile(history) == []


@pytest.mark.parametrize(
    ("statement", "figures"),
    [
        ("UPDATE quotas_wallet SET spent = spent - 1 WHERE kind = 'member'", ["spent"]),
        ("UPDATE quotas_wallet SET spent = spent - 1 WHERE kind = 'pool'", ["spent"]),
        ("UPDATE accounts_apikey SET spent = 0", ["spent"]),
        # Reported twice: compared with the checkpoints and with the quarters.
        ("UPDATE usage_hourlyusage SET cost = cost + 1 WHERE model = 'gpt-4o' AND cost > 0", ["cost", "cost"]),
        ("DELETE FROM usage_hourlyusage WHERE errors > 0", ["requests", "errors"] * 2),
    ],
)
def test_wrong_figures_are_found_after_pruning(history: Space, statement: str, figures: list[str]) -> None:
    prune()

    execute(statement)

    assert [difference.figure for difference in reconcile(history)] == figures


@pytest.mark.postgresql("SQLite blocks other writers during a transaction")
def test_books_balance_while_months_are_dropped(transactional_db: None, history: Space) -> None:
    due = months_due(timedelta(days=400))
    with transaction.atomic():
        assert [pruned.rows for month in due if (pruned := prune_month(month))] == [3, 1]
        beside = OtherConnection(lambda: reconcile(history))
        beside.wait_until_blocked()

    assert beside.found() == [] and UsageCheckpoint.objects.count() == 4


def test_roll_ups_that_differ_from_the_rows_stop_pruning(history: Space, member: User) -> None:
    before = books(history)
    execute(f"UPDATE usage_hourlyusage SET cost = cost + 1, requests = requests + 1 WHERE user_id = {member.pk}")
    wrong = books(history)

    with pytest.raises(
        CommandError, match=rf"Halcyon Labs, {OLD_MONTH}: 4 rolled-up figures differ from .* Nothing .* dropped"
    ):
        prune()

    assert books(history) == wrong and wrong["UsageRecord"] == before["UsageRecord"]
    assert not UsageCheckpoint.objects.exists()


def fail(user: User, moment: Any) -> None:
    """Log a request that failed at its upstream but has used tokens."""
    with acting(moment=moment):
        call = Call(model="gpt-4o", status=502, code="upstream_error", input_tokens=70, output_tokens=3)
        log_refusal(request_id=new_id(), user=user, call=call)


@pytest.mark.parametrize("figure", ["error_input_tokens", "error_output_tokens"])
@pytest.mark.parametrize(("table", "column"), [("hourlyusage", "hour"), ("spacequarter", "quarter")])
def test_wrong_tokens_of_errors_are_found_before_pruning_and_stop_it(
    history: Space, member: User, figure: str, table: str, column: str
) -> None:
    fail(member, OLD)
    close_quarters()
    assert reconcile(history) == []
    execute(f"UPDATE usage_{table} SET {figure} = {figure} + 1 WHERE errors > 0")

    assert {difference.figure for difference in reconcile(history)} == {figure}
    with pytest.raises(CommandError, match=f"{OLD_MONTH}: 1 rolled-up figure differs"):
        prune()


def test_wrong_tokens_of_errors_are_found_after_pruning(history: Space, member: User) -> None:
    fail(member, OLD)
    fail(member, NOW)

    assert prune().startswith(f"{OLD_MONTH}: 4 rows dropped") and reconcile(history) == []

    execute("UPDATE usage_hourlyusage SET error_input_tokens = error_input_tokens + 1 WHERE error_input_tokens > 0")
    assert [difference.row.split()[0] for difference in reconcile(history)] == ["usage", "closed"]


def test_books_balance_when_a_later_month_is_pruned_before_an_earlier_one(history: Space, member: User) -> None:
    fail(member, OLD)
    _first, second = months_due(timedelta(days=400))

    assert prune_month(second) is not None

    assert reconcile(history) == []


def test_a_dry_run_says_what_would_be_dropped_and_changes_nothing(history: Space) -> None:
    before = books(history)

    output = prune("--keep", "400d", "--dry-run")

    assert output.splitlines()[0] == f"{OLD_MONTH}: 3 rows would be dropped, $2.25 kept as checkpoints."
    assert books(history) == before and not UsageCheckpoint.objects.exists()


def test_a_month_that_ended_too_recently_stays(history: Space) -> None:
    days = (timezone.now() - OLD_MONTH.end).days + 1

    assert prune("--keep", f"{days}d") == "No whole month is older than that.\n"
    assert prune("--keep", f"{days - 1}d").startswith(f"{OLD_MONTH}: 3 rows dropped")


@pytest.mark.parametrize("keep", ["30d", "0", "1d"])
def test_keeping_less_than_31_days_is_refused(history: Space, keep: str) -> None:
    with pytest.raises(CommandError, match="at least 31d"):
        prune("--keep", keep)
    assert not UsageCheckpoint.objects.exists()


@pytest.mark.parametrize("keep", ["", "-400d", "forever", "400 d", "4e2", "99999d", "٤٠٠d"])
@pytest.mark.any_database
def test_a_value_that_is_not_a_number_of_days_is_refused(db: None, keep: str) -> None:
    with pytest.raises(CommandError, match="--keep: a number of days"):
        prune(f"--keep={keep}")


def test_the_service_refuses_less_than_31_days_too(db: None) -> None:
    with pytest.raises(ValueError, match="31 days"):
        months_due(timedelta(days=30))


def test_pruning_again_changes_nothing(history: Space) -> None:
    prune()
    kept = list(UsageCheckpoint.objects.values())

    assert prune() == "No whole month is older than that.\n"
    assert prune_month(OLD_MONTH) is None
    assert list(UsageCheckpoint.objects.values()) == kept


def test_a_backdated_charge_in_a_pruned_month_is_refused(history: Space, member: User) -> None:
    prune()
    before = books(history)

    with pytest.raises(PrunedError), transaction.atomic():
        charge_at(OLD_MONTH.plus(2).start - timedelta(microseconds=1), member, 0.25)
    assert books(history) == before and reconcile(history) == []

    charge_at(OLD_MONTH.plus(2).start, member, 0.25)
    assert reconcile(history) == []


def test_pruned_quarters_cannot_be_reopened(history: Space) -> None:
    prune()
    kept = list(SpaceQuarter.objects.values())

    since = f"{OLD:%Y-%m-%d}"
    with pytest.raises(CommandError, match=f"the rows before {OLD_MONTH.plus(2).start:%Y-%m-%d} are no longer kept"):
        call_command("reopen_quarters", "--space", history.name, "--since", since)
    assert list(SpaceQuarter.objects.values()) == kept and reconcile(history) == []


def test_quarters_are_closed_before_pruning_and_stay(history: Space) -> None:
    assert not QuarterMark.objects.exists()

    prune()
    assert QuarterMark.objects.get(space=history).through >= OLD_MONTH.plus(1).end
    quarters = list(
        SpaceQuarter.objects.order_by("quarter", "model").values_list("model", "requests", "errors", "cost")
    )
    close_quarters()

    assert quarters == [("gpt-4o", 2, 1, USD // 4), ("gpt-4o-mini", 1, 0, 2 * USD), ("gpt-4o-mini", 1, 0, USD // 2)]
    assert reconcile(history) == []


def test_a_quarter_that_differs_from_its_rows_stops_pruning(history: Space) -> None:
    close_quarters()
    execute("UPDATE usage_spacequarter SET cost = cost + 1 WHERE model = 'gpt-4o'")
    before = books(history)

    with pytest.raises(CommandError, match=f"{OLD_MONTH}: 1 rolled-up figure differs"):
        prune()

    assert books(history) == before and not UsageCheckpoint.objects.exists()


def test_the_log_of_a_token_shows_its_kept_rows(history: Space, manager: User, member: User) -> None:
    later, key = OLD_MONTH.plus(3).start, ApiKey.objects.get(space=history)
    with acting(moment=later):
        request_id, call = new_id(), Call(model="gpt-4o", key_id=key.pk, key_name=key.name)
        hold(request_id=request_id, user=member, amount_nanos=USD, call=call)
        settle(space_id=history.pk, request_id=request_id, cost_nanos=USD // 2, call=call)
    close_quarters()

    prune("--keep", f"{(NOW - OLD_MONTH.plus(2).end).days}d")

    for token in ("laptop", str(key.pk)):
        log = log_of(manager, f"from={OLD:%Y-%m-%d}&to={NOW:%Y-%m-%d}&token={token}")
        assert log.totals == figures.sum_records(log.records) and log.totals.cost_nanos == USD // 2


def test_kept_quarters_can_be_reopened_after_pruning(history: Space, member: User) -> None:
    charge_at(OLD_MONTH.plus(3).start, member, 0.25)
    prune("--keep", f"{(NOW - OLD_MONTH.plus(2).end).days}d")
    close_quarters()

    charge_at(OLD_MONTH.plus(3).start + timedelta(hours=1), member, 0.25)
    close_quarters()

    assert reconcile(history) == [] and SpaceQuarter.objects.filter(quarter__lt=OLD_MONTH.plus(2).end).count() == 3


# -- What the pages say -------------------------------------------------------------------------------------------


def log_of(user: User, query: str) -> UsageLog:
    return UsageLog(user, QueryDict(query))


def test_log_totals_and_csv_cover_the_kept_rows(history: Space, manager: User) -> None:
    period = f"from={OLD:%Y-%m-%d}&to={NOW + timedelta(days=1):%Y-%m-%d}"
    before, spent = log_of(manager, period), Dashboard(manager, QueryDict(period)).figures
    assert before.cut_note == "" and before.totals == spent and spent.cost_nanos == 3 * USD + 3 * USD // 4

    prune()

    log = log_of(manager, period)
    assert [record.cost for record in log.page.records] == [USD]
    assert log.totals == figures.sum_records(log.records) and log.totals.cost_nanos == USD
    lines = "".join(usage_sheet(log)).splitlines()
    assert len(lines) == 4 and lines[-2].startswith("Total,") and log.cut_note in lines[-1]
    assert f"{OLD_MONTH.plus(2).start:%Y}" in log.cut_note
    assert Dashboard(manager, QueryDict(period)).figures == spent


@pytest.mark.parametrize("size", [1, 2, 2000])
def test_a_csv_breaks_off_when_one_of_its_months_is_pruned_meanwhile(
    history: Space, manager: User, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(export, "BATCH_ROWS", size)
    monkeypatch.setattr(export, "PIECE_CHARS", 1)
    pieces = usage_sheet(log_of(manager, f"from={OLD:%Y-%m-%d}&to={NOW + timedelta(days=1):%Y-%m-%d}"))
    got = [next(pieces), next(pieces)]

    prune()
    with pytest.raises(PrunedError):
        got += pieces

    assert len("".join(got).splitlines()) >= 2 and "Total" not in "".join(got)


def test_a_csv_of_kept_months_is_complete_when_others_are_pruned_meanwhile(history: Space, manager: User) -> None:
    pieces = usage_sheet(log_of(manager, f"from={OLD_MONTH.plus(2).start:%Y-%m-%d}"))
    got = [next(pieces)]

    prune()
    got += pieces

    assert "".join(got).splitlines()[-1].startswith("Total,")


def test_a_period_of_kept_rows_has_no_note_on_pruning(history: Space, manager: User) -> None:
    prune()

    assert log_of(manager, "").cut_note == ""
    assert "no longer kept" not in "".join(usage_sheet(log_of(manager, "")))


def test_a_period_that_is_wholly_pruned_is_empty_and_says_why(history: Space, manager: User) -> None:
    period = f"from={OLD:%Y-%m-%d}&to={OLD:%Y-%m-%d}"
    prune()

    log = log_of(manager, period)

    assert log.page.records == [] and log.totals == figures.Figures() and "no longer kept" in log.cut_note
    assert Dashboard(manager, QueryDict(period)).figures.cost_nanos == 2 * USD + USD // 4


def test_the_usage_page_says_that_rows_are_no_longer_kept(
    client: Client, history: Space, manager: User, stranger: User
) -> None:
    prune()
    for user, has_note in ((manager, True), (stranger, False)):
        client.force_login(user, backend="accounts.backends.LivingUserBackend")
        page = client.get("/console/usage/", {"from": "2020-01-01"}).content.decode()
        assert ("are no longer kept." in page) is has_note


def test_a_pruned_request_is_not_found_and_the_log_says_why(history: Space, manager: User) -> None:
    pruned = UsageRecord.objects.order_by("id")[0].request_id
    kept = UsageRecord.objects.order_by("-id")[0].request_id
    prune()

    assert "no longer kept" in log_of(manager, f"request_id={pruned}").cut_note
    assert log_of(manager, f"request_id={kept}").cut_note == ""


def test_a_task_whose_row_is_pruned_still_says_what_it_cost(client: Client, manager: User) -> None:
    task = succeed(take(submit(manager, seconds=4)))
    with append_only.without_append_only_triggers(connection, "usage_usagerecord"):
        UsageRecord.objects.filter(request_id=task.pk).delete()

    client.force_login(manager, backend="accounts.backends.LivingUserBackend")
    page = client.get("/console/tasks/").content.decode()

    assert "<dd>$0.04</dd>" in page
    assert "How this was charged is no longer kept." in page and "Held until it ends" not in page
    assert page.count(format_exact(task.cost or 0)) >= 1


def test_statements_are_the_same_after_pruning(history: Space, member: User) -> None:
    month = StatementMonth(OLD_MONTH.year, OLD_MONTH.number, UTC)
    before = (space_statement(history, month), member_statement(member, month))

    prune()

    after = (space_statement(history, month), member_statement(member, month))
    assert after == before and before[0].combined.spent_nanos == 2 * USD + USD // 4


def test_two_spaces_are_pruned_together_and_both_balance(history: Space, stranger: User) -> None:
    charge_at(OLD, stranger, 3)

    assert prune().startswith(f"{OLD_MONTH}: 4 rows dropped, $5.25 kept")

    assert stranger.space is not None and reconcile(stranger.space) == [] == reconcile(history)
    assert UsageCheckpoint.objects.get(space=stranger.space_id).spent == 3 * USD


def test_a_checkpoint_can_be_neither_changed_nor_deleted(history: Space) -> None:
    prune()

    for statement in ("UPDATE usage_usagecheckpoint SET spent = 0", "DELETE FROM usage_usagecheckpoint"):
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            execute(statement)


def test_the_log_is_append_only_after_pruning(history: Space) -> None:
    prune()

    for statement in ("UPDATE usage_usagerecord SET cost = cost", "DELETE FROM usage_usagerecord"):
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            execute(statement)


def test_a_settlement_after_pruning_changes_nothing(history: Space, member: User) -> None:
    swept = id_at(OLD)
    with acting(moment=OLD):
        hold(request_id=swept, user=member, amount_nanos=USD, call=Call(model="gpt-4o"))
    with acting(moment=OLD + timedelta(minutes=5)):
        assert expire_holds() == 1
    prune()
    before = books(history)

    with pytest.raises(HoldUnknown):
        settle(space_id=history.pk, request_id=swept, cost_nanos=USD, call=Call(model="gpt-4o"))
    with pytest.raises(HoldUnknown):
        hold(request_id=swept, user=member, amount_nanos=USD, call=Call(model="gpt-4o"))

    assert books(history) == before and reconcile(history) == []


def test_a_settlement_that_is_repeated_before_pruning_finds_its_record(history: Space, member: User) -> None:
    prune()
    request_id, call = new_id(), Call(model="gpt-4o")
    hold(request_id=request_id, user=member, amount_nanos=USD, call=call)
    first = settle(space_id=history.pk, request_id=request_id, cost_nanos=1, call=call)

    assert settle(space_id=history.pk, request_id=request_id, cost_nanos=1, call=call) == first


@pytest.mark.django_db(transaction=True)
def test_concurrent_pruning_prunes_each_month_once(history: Space) -> None:
    due = months_due(timedelta(days=400))
    assert due == [OLD_MONTH, OLD_MONTH.plus(1)]

    found = together(*(lambda month=month: prune_month(month) for month in due * 2))

    assert sorted(pruned.rows for pruned in found if isinstance(pruned, Pruned)) == [1, 3]
    assert UsageCheckpoint.objects.count() == 4 and reconcile(history) == []


def test_a_missing_hourly_roll_up_stops_pruning(history: Space, manager: User) -> None:
    HourlyUsage.objects.filter(user_id=manager.pk).delete()

    with pytest.raises(CommandError, match=f"{OLD_MONTH}: 4 rolled-up figures"):
        prune()
