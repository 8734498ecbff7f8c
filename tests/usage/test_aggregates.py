from __future__ import annotations

import pytest
from django.db import connection
from django.db.models import QuerySet

from accounts.models import User
from core.ids import new_id
from quotas.charging import Call, hold, release, settle
from quotas.reconcile import reconcile
from tests.quotas.books import USD
from usage.aggregates import AGGREGATES, SUFFIX, of_record, of_roll_ups, of_rows
from usage.models import HourlyUsage, UsageRecord

EXPECTED = {
    "requests": 3,
    "errors": 1,
    "input_tokens": 12,
    "output_tokens": 24,
    "error_input_tokens": 5,
    "error_output_tokens": 6,
    "cost": 2 * USD,
}


@pytest.fixture
def charged(member: User) -> User:
    """Two charges and an error, all with tokens."""
    for read, written, status in ((3, 7, 200), (4, 11, 200), (5, 6, 502)):
        call = Call(model="m", input_tokens=read, output_tokens=written, status=status)
        held, _is_new = hold(request_id=new_id(), user=member, amount_nanos=USD, call=call)
        if status == 200:
            settle(space_id=held.space_id, request_id=held.pk, cost_nanos=USD, call=call)
        else:
            release(space_id=held.space_id, request_id=held.pk, call=call)
    return member


def test_records_roll_ups_python_and_sql_have_equal_sums(charged: User) -> None:
    suffixed = {name + SUFFIX: value for name, value in EXPECTED.items()}
    assert UsageRecord.objects.aggregate(**of_rows()) == suffixed
    assert HourlyUsage.objects.aggregate(**of_roll_ups()) == suffixed

    records = [of_record(record) for record in UsageRecord.objects.all()]
    assert {name: sum(record[name] for record in records) for name in AGGREGATES} == EXPECTED

    sums = ", ".join(f"SUM({aggregate.row_sql()})" for aggregate in AGGREGATES.values())
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {sums} FROM usage_usagerecord")
        assert dict(zip(AGGREGATES, cursor.fetchone(), strict=True)) == EXPECTED


def test_sums_of_no_rows_are_zero(db: None) -> None:
    empty: list[QuerySet[UsageRecord] | QuerySet[HourlyUsage]] = [UsageRecord.objects.all(), HourlyUsage.objects.all()]
    for rows, sums in zip(empty, (of_rows(), of_roll_ups()), strict=True):
        assert rows.aggregate(**sums) == {name + SUFFIX: 0 for name in AGGREGATES}


@pytest.mark.parametrize("figure", AGGREGATES)
def test_reconcile_compares_each_aggregate_of_hours(charged: User, figure: str) -> None:
    HourlyUsage.objects.update(**{figure: EXPECTED[figure] + 1})

    assert charged.space is not None
    [difference] = reconcile(charged.space)
    assert (difference.figure, difference.stored, difference.computed) == (
        figure,
        EXPECTED[figure] + 1,
        EXPECTED[figure],
    )
