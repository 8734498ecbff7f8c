"""Defines each usage aggregate once, for the ORM (records and roll-ups), for one record in Python, and for raw SQL.

A roll-up (an hour, a closed quarter) has a column of the same name for each aggregate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Count, Q, Sum

from usage.models import UsageRecord

# Django rejects an annotation with the name of a model field, and the aggregates have such names.
SUFFIX = "_sum"
_FAILED = Q(kind=UsageRecord.Kind.ERROR)


@dataclass(frozen=True)
class Aggregate:
    """The sum of a column of usage records, or their number; with `of_errors`, only of records of kind error."""

    name: str
    column: str | None = None
    of_errors: bool = False

    def of_rows(self) -> Count | Sum:
        condition = _FAILED if self.of_errors else None
        if self.column is None:
            return Count("id", filter=condition)
        return Sum(self.column, filter=condition, default=0)

    def of_roll_ups(self) -> Sum:
        return Sum(self.name, default=0)

    def of_record(self, record: UsageRecord) -> int:
        if self.of_errors and record.kind != UsageRecord.Kind.ERROR:
            return 0
        return 1 if self.column is None else int(getattr(record, self.column))

    def row_sql(self, condition: str = "") -> str:
        value = self.column or "1"
        failed = f"kind = '{UsageRecord.Kind.ERROR.value}'" if self.of_errors else ""
        conditions = " AND ".join(filter(None, (failed, condition)))
        return f"CASE WHEN {conditions} THEN {value} ELSE 0 END" if conditions else value


AGGREGATES = {
    aggregate.name: aggregate
    for aggregate in (
        Aggregate("requests"),
        Aggregate("errors", of_errors=True),
        Aggregate("input_tokens", "input_tokens"),
        Aggregate("output_tokens", "output_tokens"),
        Aggregate("error_input_tokens", "input_tokens", of_errors=True),
        Aggregate("error_output_tokens", "output_tokens", of_errors=True),
        Aggregate("cost", "cost"),
    )
}
# Checkpoints have no columns for these.
ERROR_TOKENS = ("error_input_tokens", "error_output_tokens")


def of_rows(names: Iterable[str] = AGGREGATES) -> dict[str, Any]:
    return {name + SUFFIX: AGGREGATES[name].of_rows() for name in names}


def of_roll_ups(names: Iterable[str] = AGGREGATES) -> dict[str, Any]:
    return {name + SUFFIX: AGGREGATES[name].of_roll_ups() for name in names}


def of_record(record: UsageRecord) -> dict[str, int]:
    return {name: aggregate.of_record(record) for name, aggregate in AGGREGATES.items()}


@dataclass(frozen=True)
class Source:
    table: str
    where: str
    # SQL of the aggregates that are not a column of the same name.
    values: Mapping[str, str] = field(default_factory=dict)

    def select(self, by: Sequence[str], *, is_stored: bool) -> str:
        sides = []
        for name in AGGREGATES:
            value = self.values.get(name, name)
            stored, computed = (value, "0") if is_stored else ("0", value)
            sides.append(f"{stored} AS {name}, {computed} AS {name}_computed")
        return f"SELECT {', '.join([*by, *sides])} FROM {self.table} WHERE {self.where}"  # noqa: S608


def records(where: str, *, error_tokens_where: str = "") -> Source:
    """`error_tokens_where` limits the rows whose error tokens are counted."""
    conditions = dict.fromkeys(ERROR_TOKENS, error_tokens_where)
    values = {name: aggregate.row_sql(conditions.get(name, "")) for name, aggregate in AGGREGATES.items()}
    return Source("usage_usagerecord", where, values)


def difference_sql(by: Sequence[str], *, stored: Source, computed: Sequence[Source]) -> str:
    """SQL that selects the columns `by`, then (stored, computed) for each aggregate, where any of these differ."""
    selects = [stored.select(by, is_stored=True), *(source.select(by, is_stored=False) for source in computed)]
    sums = ", ".join(f"SUM({name}), SUM({name}_computed)" for name in AGGREGATES)
    differing = " OR ".join(f"SUM({name}) <> SUM({name}_computed)" for name in AGGREGATES)
    columns = ", ".join(by)
    return (
        f"SELECT {columns}, {sums} FROM ({' UNION ALL '.join(selects)}) AS sides "  # noqa: S608
        f"GROUP BY {columns} HAVING {differing}"
    )
