"""Monthly partitions of the usage log on PostgreSQL: made ahead, each append-only; no row is refused for its date."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue
from time import monotonic
from typing import Generic, TypeVar, cast

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Sum
from django.http import QueryDict
from django.utils import timezone

from accounts.models import User
from console.usage.log import UsageLog
from core import append_only
from core.ids import id_at, moment_of
from core.origin import acting
from quotas.models import Wallet
from quotas.reconcile import reconcile
from quotas.statement_reader import snapshot
from tenants.models import Space
from tests.factories import charge
from tests.quotas.test_concurrency import together
from tests.relay.test_tasks import work_once
from usage import partitions as months
from usage.models import QuarterMark, SpaceQuarter, UsageRecord
from usage.partitions import (
    ADVISORY_LOCK,
    DEFAULT_PARTITION,
    MONTHS_AHEAD,
    TABLE,
    Month,
    existing_months,
    make_ahead,
    make_months,
    months_from,
)
from usage.quarters import close_quarters

Found = TypeVar("Found")

on_postgresql = pytest.mark.postgresql("SQLite keeps one table")
LONG_AGO = datetime(2021, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)


def table_of(record: UsageRecord) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT tableoid::regclass::text FROM {TABLE} WHERE id = %s", [record.pk])
        return str(cursor.fetchone()[0])


def made() -> list[Month]:
    with connection.cursor() as cursor:
        return existing_months(cursor)


def assert_append_only(statement: str) -> None:
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


def charge_at(user: User, moment: datetime) -> UsageRecord:
    with acting(moment=moment):
        return charge(user, cost_usd=0.5)


@pytest.fixture
def made_for_today(db: None) -> None:
    """The months that today asks for: another month may have begun since the tests' database was made."""
    make_ahead()


def test_nothing_is_made_on_sqlite(db: None) -> None:
    assert connection.vendor == "postgresql" or make_ahead() == []


def test_a_month_ends_where_the_next_begins() -> None:
    december = Month.of(datetime(2025, 12, 31, 23, 59, tzinfo=UTC))

    assert (december, december.plus(1), december.plus(-12)) == (Month(2025, 12), Month(2026, 1), Month(2024, 12))
    assert december.end == december.plus(1).start == datetime(2026, 1, 1, tzinfo=UTC)
    assert december.ids[0] <= id_at(december.start) < id_at(LONG_AGO.replace(year=2025, month=12)) < december.ids[1]
    assert december.ids[1] == december.plus(1).ids[0] <= id_at(december.end)
    assert months_from(december, Month(2026, 2)) == [december, Month(2026, 1), Month(2026, 2)]


@on_postgresql
def test_the_migrations_make_this_month_and_those_ahead(db: None) -> None:
    migrated = MigrationRecorder.Migration.objects.filter(app="usage").latest("applied")
    this = Month.of(migrated.applied)

    assert set(months_from(this, this.plus(MONTHS_AHEAD))) <= set(made())


@on_postgresql
def test_a_charge_lands_in_its_month(member: User) -> None:
    record = charge(member, cost_usd=1)

    assert table_of(record) == Month.of(record.at).table


@on_postgresql
def test_a_row_in_the_default_partition_is_found_and_moves_when_its_month_is_made(
    made_for_today: None, member: User
) -> None:
    old = charge_at(member, LONG_AGO)
    assert table_of(old) == DEFAULT_PARTITION and UsageRecord.objects.get(pk=old.pk) == old
    before = UsageRecord.objects.filter(pk=old.pk).values().get()

    assert make_ahead() == [Month(2021, 2)]

    assert table_of(old) == "usage_usagerecord_2021_02"
    assert UsageRecord.objects.filter(pk=old.pk).values().get() == before
    for table in (DEFAULT_PARTITION, "usage_usagerecord_2021_02"):
        assert_append_only(f"TRUNCATE {table}")
    assert_append_only("DELETE FROM usage_usagerecord_2021_02")


@on_postgresql
def test_a_row_dated_years_ahead_stays_in_the_default_partition_and_is_found(
    made_for_today: None, member: User
) -> None:
    ahead = charge(member, cost_usd=1)
    ahead.pk = id_at(datetime(2091, 5, 1, tzinfo=UTC))
    UsageRecord.objects.bulk_create([ahead])

    assert make_ahead() == []

    assert table_of(ahead) == DEFAULT_PARTITION and UsageRecord.objects.get(pk=ahead.pk) == ahead


@on_postgresql
def test_the_next_months_are_made_once_as_time_goes_on(db: None) -> None:
    last = made()[-1]

    assert make_ahead(last.start) == months_from(last.plus(1), last.plus(MONTHS_AHEAD))
    assert make_ahead(last.start) == []


@on_postgresql
@pytest.mark.parametrize("change", ["UPDATE {} SET cost = cost + 1", "DELETE FROM {}", "TRUNCATE {}"])
def test_no_partition_can_be_changed_directly(member: User, change: str) -> None:
    new, old = charge(member, cost_usd=1), charge_at(member, LONG_AGO)
    far = charge_at(member, LONG_AGO.replace(year=2020))
    before = list(UsageRecord.objects.values())
    make_months([Month(2021, 2)])
    assert {table_of(record) for record in (old, far)} == {"usage_usagerecord_2021_02", "usage_usagerecord_2020_02"}

    for table in (TABLE, table_of(new), table_of(old), DEFAULT_PARTITION):
        if table != DEFAULT_PARTITION or change.startswith("TRUNCATE"):
            assert_append_only(change.format(table))

    assert list(UsageRecord.objects.values()) == before


@on_postgresql
def test_a_row_in_the_default_partition_cannot_be_changed_directly(member: User) -> None:
    charge_at(member, LONG_AGO)

    assert_append_only(f"UPDATE {DEFAULT_PARTITION} SET cost = cost + 1")
    assert_append_only(f"DELETE FROM {DEFAULT_PARTITION}")


@on_postgresql
def test_every_partition_has_every_index_of_the_log(db: None) -> None:
    make_months([Month(2021, 2)])

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tablename, count(*) FROM pg_indexes WHERE tablename LIKE %s GROUP BY tablename", [f"{TABLE}%"]
        )
        indexes = dict(cursor.fetchall())
    assert indexes.keys() == {TABLE, *partitions()} and set(indexes.values()) == {len(UsageRecord._meta.indexes) + 1}


def partitions() -> list[str]:
    with connection.cursor() as cursor:
        return append_only.partitions_of(cursor, TABLE)


@on_postgresql
def test_a_query_of_one_month_scans_only_its_partition(member: User) -> None:
    this = Month.of(timezone.now())
    first, after = this.ids

    plan = UsageRecord.objects.filter(space=member.space_id, id__gte=first, id__lt=after).explain()

    assert this.table in plan and this.plus(1).table not in plan and DEFAULT_PARTITION not in plan


@pytest.fixture
def drops_old_month(transactional_db: None) -> Iterator[None]:
    yield
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS usage_usagerecord_2021_02")


@on_postgresql
def test_the_worker_makes_months(member: User, drops_old_month: None) -> None:
    old = charge_at(member, LONG_AGO)

    work_once()

    assert table_of(old) == "usage_usagerecord_2021_02"


@on_postgresql
def test_several_workers_make_a_month_once_and_nobody_fails(
    made_for_today: None, member: User, drops_old_month: None
) -> None:
    old = charge_at(member, LONG_AGO)

    found = [month for months in together(*[make_ahead] * 8) for month in cast("list[Month]", months)]

    assert found == [Month(2021, 2)] and table_of(old) == "usage_usagerecord_2021_02"


@on_postgresql
def test_a_worker_does_not_wait_for_another_that_makes_months(transactional_db: None) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [ADVISORY_LOCK])
        assert together(lambda: make_ahead(timezone.now() + timedelta(days=400))) == [[]]

    assert Month.of(timezone.now() + timedelta(days=400)) not in made()


# -- Readers while rows move ------------------------------------------------------------------------------------------


class OtherConnection(Generic[Found]):
    """Runs a step in a thread, on a database connection whose backend process id is known."""

    def __init__(self, step: Callable[[], Found]) -> None:
        self._process = SimpleQueue[int]()
        self._pool = ThreadPoolExecutor(1)
        self._found = self._pool.submit(self._run, step)

    def _run(self, step: Callable[[], Found]) -> Found:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                self._process.put(cursor.fetchone()[0])
            return step()
        finally:
            connection.close()

    def wait_until_blocked(self) -> None:
        process, give_up_at = self._process.get(timeout=60), monotonic() + 60
        with connection.cursor() as cursor:
            while monotonic() < give_up_at:
                cursor.execute("SELECT FROM pg_locks WHERE pid = %s AND NOT granted", [process])
                if cursor.rowcount:
                    return
        raise AssertionError("it never waited for a lock")

    def found(self) -> Found:
        with self._pool:
            return self._found.result(timeout=60)


def found_while_rows_move(reader: Callable[[], Found]) -> Found:
    """Start the reader after rows have moved in an uncommitted transaction, and commit once it waits for a lock."""
    with transaction.atomic():
        assert make_ahead() == [Month(2021, 2)]
        beside = OtherConnection(reader)
        beside.wait_until_blocked()
    return beside.found()


@on_postgresql
def test_a_page_shows_all_rows_while_they_move(member: User, drops_old_month: None) -> None:
    old = charge_at(member, LONG_AGO)

    shown = found_while_rows_move(lambda: UsageLog(member, QueryDict("from=2021-02-28&to=2021-02-28")).page.records)

    assert shown == [old]


@on_postgresql
def test_quarters_are_closed_over_all_rows_while_they_move(member: User, drops_old_month: None) -> None:
    charge_at(member, LONG_AGO)
    charge_at(member, LONG_AGO - timedelta(hours=1))

    assert found_while_rows_move(close_quarters) == 2

    assert SpaceQuarter.objects.aggregate(Sum("requests")) == {"requests__sum": 2}
    assert member.space is not None and reconcile(member.space) == []


@on_postgresql
def test_books_balance_while_rows_move(member: User, drops_old_month: None) -> None:
    charge_at(member, LONG_AGO)
    space = member.space
    assert space is not None

    assert found_while_rows_move(lambda: reconcile(space)) == []


@on_postgresql
def test_a_statements_snapshot_finds_rows_whose_month_is_due(
    monkeypatch: pytest.MonkeyPatch, member: User, drops_old_month: None
) -> None:
    monkeypatch.setattr(months, "LOCK_TIMEOUT", "20ms")
    monkeypatch.setattr(months, "LOCK_PAUSE_S", 0)
    old = charge_at(member, LONG_AGO)

    with snapshot():
        # This query takes the snapshot, and would see neither the old partition's row nor the new one's.
        assert Wallet.objects.filter(user=member).exists()
        OtherConnection(make_ahead).found()
        assert UsageRecord.objects.get() == old

    assert make_ahead() == [Month(2021, 2)]


@on_postgresql
def test_rows_move_after_earlier_readers_end_and_late_rows_move_too(member: User, drops_old_month: None) -> None:
    early, far = charge_at(member, LONG_AGO), charge(member, cost_usd=1)
    far.pk = id_at(datetime(2091, 5, 1, tzinfo=UTC))
    UsageRecord.objects.bulk_create([far])
    with transaction.atomic():
        assert UsageRecord.objects.count() == 3
        mover = OtherConnection(make_ahead)
        mover.wait_until_blocked()
        late = charge_at(member, LONG_AGO - timedelta(hours=1))
        assert UsageRecord.objects.count() == 4

    assert mover.found() == [Month(2021, 2)]

    assert [table_of(record) for record in (early, late, far)] == [
        *["usage_usagerecord_2021_02"] * 2,
        DEFAULT_PARTITION,
    ]
    assert UsageRecord.objects.count() == 4
    assert_append_only(f"TRUNCATE {DEFAULT_PARTITION}")
    assert_append_only(f"DELETE FROM {TABLE} WHERE id = '{far.pk}'")


@on_postgresql
def test_nothing_moves_while_the_log_is_too_busy(
    monkeypatch: pytest.MonkeyPatch, member: User, drops_old_month: None
) -> None:
    monkeypatch.setattr(months, "LOCK_TIMEOUT", "20ms")
    monkeypatch.setattr(months, "LOCK_PAUSE_S", 0)
    old = charge_at(member, LONG_AGO)
    with transaction.atomic():
        assert UsageRecord.objects.get() == old
        assert OtherConnection(make_ahead).found() == []

    assert table_of(old) == DEFAULT_PARTITION and Month(2021, 2) not in made()
    assert make_ahead() == [Month(2021, 2)]


def migrate(*targets: tuple[str, str]) -> None:
    executor = MigrationExecutor(connection)
    executor.migrate(list(targets) or executor.loader.graph.leaf_nodes())


def test_migrating_back_and_forth_keeps_rows_triggers_and_balanced_books(
    transactional_db: None, member: User, charged: None, drops_old_month: None
) -> None:
    charge_at(member, LONG_AGO)
    before = list(UsageRecord.objects.order_by("id").values())
    added_since = {"quantities", "details", "upstream_cost"}
    then = [{name: value for name, value in row.items() if name not in added_since} for row in before]
    try:
        migrate(("usage", "0005_no_constraint"))
        assert list(UsageRecord.objects.order_by("id").values(*then[0])) == then
        assert_append_only(f"DELETE FROM {TABLE}")
    finally:
        migrate()

    assert list(UsageRecord.objects.order_by("id").values()) == before
    for change in ("DELETE FROM {}", "UPDATE {} SET cost = cost"):
        assert_append_only(change.format(TABLE))
    assert member.space is not None and reconcile(member.space) == []
    if connection.vendor == "postgresql":
        assert_append_only(f"TRUNCATE {TABLE}")
        assert {table_of(record) for record in UsageRecord.objects.all()} == {
            Month.of(moment_of(row["id"])).table for row in before
        }
        # Every month from the first row's has a partition.
        assert months_from(Month(2021, 2), Month.of(timezone.now()).plus(MONTHS_AHEAD)) == made()
        drop_between(Month(2021, 3), Month.of(timezone.now()).plus(-1))


def drop_between(first: Month, last: Month) -> None:
    with connection.cursor() as cursor:
        for month in months_from(first, last):
            cursor.execute(f"DROP TABLE {month.table}")


def test_a_migration_reopens_quarters_that_were_closed_while_rows_moved(
    transactional_db: None, space: Space, manager: User, stranger: User, drops_old_month: None
) -> None:
    for user, hours in [(manager, 9), (manager, 6), (manager, 6), (manager, 3), (stranger, 9)]:
        charge_at(user, LONG_AGO - timedelta(hours=hours))
    close_quarters()
    right = closed()
    first, lacking, _last = SpaceQuarter.objects.filter(space=space).order_by("quarter")
    SpaceQuarter.objects.filter(pk=lacking.pk).update(requests=1, cost=lacking.cost // 2)
    assert reconcile(space) != []

    try:
        migrate(("usage", "0009_common_names"))
    finally:
        migrate()

    assert set(SpaceQuarter.objects.all()) == {first, SpaceQuarter.objects.get(space=stranger.space_id)}
    assert QuarterMark.objects.get(space=space).through == lacking.quarter.replace(minute=0)
    assert reconcile(space) == []
    close_quarters()
    assert closed() == right


def closed() -> list[object]:
    quarters = SpaceQuarter.objects.order_by("space", "quarter")
    return list(quarters.values_list("space", "quarter", "model", "requests", "cost"))
