"""The usage log by months on PostgreSQL: made ahead, guarded each, and no row is ever refused for its date."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from accounts.models import User
from audit.origin import acting
from quotas.reconcile import reconcile
from tenants import append_only
from tenants.ids import id_at, moment_of
from tests.factories import charge
from tests.quotas.test_concurrency import together
from tests.relay.test_tasks import work_once
from usage.models import UsageRecord
from usage.partitions import LOCK, MONTHS_AHEAD, REST, TABLE, Month, make_ahead, make_months, months_from, months_made

on_postgresql = pytest.mark.postgresql("SQLite keeps one table")
LONG_AGO = datetime(2021, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)


def table_of(record: UsageRecord) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT tableoid::regclass::text FROM {TABLE} WHERE id = %s", [record.pk])
        return str(cursor.fetchone()[0])


def made() -> list[Month]:
    with connection.cursor() as cursor:
        return months_made(cursor)


def refused(statement: str) -> None:
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


def then(user: User, at: datetime) -> UsageRecord:
    with acting(moment=at):
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
def test_this_month_and_those_ahead_are_there_from_the_first_moment(db: None) -> None:
    migrated = MigrationRecorder.Migration.objects.filter(app="usage").latest("applied")
    this = Month.of(migrated.applied)

    assert set(months_from(this, this.plus(MONTHS_AHEAD))) <= set(made())


@on_postgresql
def test_a_charge_lands_in_its_month(member: User) -> None:
    record = charge(member, cost_usd=1)

    assert table_of(record) == Month.of(record.at).table


@on_postgresql
def test_a_row_beyond_all_months_is_found_and_moves_when_its_month_is_made(made_for_today: None, member: User) -> None:
    old = then(member, LONG_AGO)
    assert table_of(old) == REST and UsageRecord.objects.get(pk=old.pk) == old
    before = UsageRecord.objects.filter(pk=old.pk).values().get()

    assert make_ahead() == [Month(2021, 2)]

    assert table_of(old) == "usage_usagerecord_2021_02"
    assert UsageRecord.objects.filter(pk=old.pk).values().get() == before
    for table in (REST, "usage_usagerecord_2021_02"):
        refused(f"TRUNCATE {table}")
    refused("DELETE FROM usage_usagerecord_2021_02")


@on_postgresql
def test_a_row_of_a_clock_that_is_years_ahead_stays_findable(made_for_today: None, member: User) -> None:
    ahead = charge(member, cost_usd=1)
    ahead.pk = id_at(datetime(2091, 5, 1, tzinfo=UTC))
    UsageRecord.objects.bulk_create([ahead])

    assert make_ahead() == []

    assert table_of(ahead) == REST and UsageRecord.objects.get(pk=ahead.pk) == ahead


@on_postgresql
def test_the_next_months_are_made_when_time_goes_on_and_once(db: None) -> None:
    last = made()[-1]

    assert make_ahead(last.start) == months_from(last.plus(1), last.plus(MONTHS_AHEAD))
    assert make_ahead(last.start) == []


@on_postgresql
@pytest.mark.parametrize("change", ["UPDATE {} SET cost = cost + 1", "DELETE FROM {}", "TRUNCATE {}"])
def test_no_partition_can_be_changed_directly(member: User, change: str) -> None:
    new, old = charge(member, cost_usd=1), then(member, LONG_AGO)
    far = then(member, LONG_AGO.replace(year=2020))
    before = list(UsageRecord.objects.values())
    make_months([Month(2021, 2)])
    assert {table_of(record) for record in (old, far)} == {"usage_usagerecord_2021_02", "usage_usagerecord_2020_02"}

    for table in (TABLE, table_of(new), table_of(old), REST):
        if table != REST or change.startswith("TRUNCATE"):
            refused(change.format(table))

    assert list(UsageRecord.objects.values()) == before


@on_postgresql
def test_a_row_in_the_rest_cannot_be_changed_directly(member: User) -> None:
    then(member, LONG_AGO)

    refused(f"UPDATE {REST} SET cost = cost + 1")
    refused(f"DELETE FROM {REST}")


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
def test_a_period_reads_its_month_alone(member: User) -> None:
    this = Month.of(timezone.now())
    first, after = this.ids

    plan = UsageRecord.objects.filter(space=member.space_id, id__gte=first, id__lt=after).explain()

    assert this.table in plan and this.plus(1).table not in plan and REST not in plan


@pytest.fixture
def one_old_month_goes_again(transactional_db: None) -> Iterator[None]:
    yield
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS usage_usagerecord_2021_02")


@on_postgresql
def test_the_worker_makes_months(member: User, one_old_month_goes_again: None) -> None:
    old = then(member, LONG_AGO)

    work_once()

    assert table_of(old) == "usage_usagerecord_2021_02"


@on_postgresql
def test_several_workers_make_a_month_once_and_nobody_fails(
    made_for_today: None, member: User, one_old_month_goes_again: None
) -> None:
    old = then(member, LONG_AGO)

    found = [month for months in together(*[make_ahead] * 8) for month in cast("list[Month]", months)]

    assert found == [Month(2021, 2)] and table_of(old) == "usage_usagerecord_2021_02"


@on_postgresql
def test_a_worker_does_not_wait_for_another_that_is_at_it(transactional_db: None) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        assert together(lambda: make_ahead(timezone.now() + timedelta(days=400))) == [[]]

    assert Month.of(timezone.now() + timedelta(days=400)) not in made()


def migrate(*targets: tuple[str, str]) -> None:
    executor = MigrationExecutor(connection)
    executor.migrate(list(targets) or executor.loader.graph.leaf_nodes())


def test_a_filled_database_keeps_its_rows_its_guards_and_its_books(
    transactional_db: None, member: User, charged: None, one_old_month_goes_again: None
) -> None:
    then(member, LONG_AGO)
    before = list(UsageRecord.objects.order_by("id").values())
    try:
        migrate(("usage", "0005_no_constraint"))
        assert list(UsageRecord.objects.order_by("id").values()) == before
        refused(f"DELETE FROM {TABLE}")
    finally:
        migrate()

    assert list(UsageRecord.objects.order_by("id").values()) == before
    for change in ("DELETE FROM {}", "UPDATE {} SET cost = cost"):
        refused(change.format(TABLE))
    assert member.space is not None and reconcile(member.space) == []
    if connection.vendor == "postgresql":
        refused(f"TRUNCATE {TABLE}")
        assert {table_of(record) for record in UsageRecord.objects.all()} == {
            Month.of(moment_of(row["id"])).table for row in before
        }
        # Between the first row's month and now there is none that is missing.
        assert months_from(Month(2021, 2), Month.of(timezone.now()).plus(MONTHS_AHEAD)) == made()
        drop_between(Month(2021, 3), Month.of(timezone.now()).plus(-1))


def drop_between(first: Month, last: Month) -> None:
    with connection.cursor() as cursor:
        for month in months_from(first, last):
            cursor.execute(f"DROP TABLE {month.table}")
