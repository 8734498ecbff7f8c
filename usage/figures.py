"""Sums of usage over a period. The only module that adds usage up, so that no two screens can differ.

Three sources: closed quarters of an hour for a whole space; hourly roll-ups of keys for everything else; and the usage
records themselves for the part of an hour that an edge of the period divides. So the cost of a sum hardly grows with
the number of records. Every interval is half-open: from `first` on, before `after`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any, NamedTuple, Self
from uuid import UUID

from django.db.models import Case, Expression, F, IntegerField, Q, QuerySet, Sum, Value, When
from django.db.models.functions import Coalesce

from core.ids import id_at
from usage.aggregates import AGGREGATES
from usage.models import HourlyUsage, QuarterMark, SpaceQuarter, UsageRecord

HOUR = timedelta(hours=1)
QUARTER = timedelta(minutes=15)
# No UUIDv7 has an earlier time.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Span = tuple[datetime, datetime]


class Figures(NamedTuple):
    cost_nanos: int = 0
    requests: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @classmethod
    def sum_of(cls, several: Iterable[Figures]) -> Self:
        return cls(*map(sum, zip(*several, strict=True)))

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Filters on usage; None and "" mean no filter.

    With `key_ids`, give the `user_ids` of their owners as well: the indexes of records and hours begin with space and
    user.
    """

    space_id: int
    user_ids: frozenset[int] | None = None
    key_ids: frozenset[UUID] | None = None
    model: str = ""
    kind: str = ""

    @property
    def is_whole_space(self) -> bool:
        return self.user_ids is None and self.key_ids is None

    @property
    def condition(self) -> Q:
        # For records and hours alike, so without `kind`, which hours do not have.
        found = Q(space=self.space_id)
        if self.user_ids is not None:
            found &= Q(user_id__in=self.user_ids)
        if self.key_ids is not None:
            found &= Q(key_id__in=self.key_ids)
        return found & Q(model=self.model) if self.model else found

    def replace(self, **changes: Any) -> Scope:
        return replace(self, **changes)


def total(scope: Scope, first: datetime, after: datetime) -> Figures:
    return totals(scope, [first, after])[0]


def totals(scope: Scope, cuts: Sequence[datetime]) -> list[Figures]:
    """One sum for each interval between two neighbours of `cuts`, which ascend."""
    found = [[Figures()] for _ in cuts[1:]]
    for index, _name, figures in totals_by(scope, cuts):
        found[index].append(figures)
    return [Figures.sum_of(several) for several in found]


def totals_by(scope: Scope, cuts: Sequence[datetime], *, by: str = "") -> list[tuple[int, str, Figures]]:
    """(index of the interval between cuts, value of the column `by` or "", sum). Sums without requests are left out."""
    plan = _plan(scope, cuts)
    sums: dict[tuple[int, str], list[Figures]] = {}
    for index, name, figures in _read_plan(scope, cuts, plan, by):
        if figures.requests:
            sums.setdefault((index, name), []).append(figures)
    return [(index, name, Figures.sum_of(several)) for (index, name), several in sums.items()]


def sum_records(rows: QuerySet[UsageRecord]) -> Figures:
    """Sum usage records themselves, without roll-ups: the cost grows with their number."""
    found = rows.order_by().aggregate(**_RECORD_SUMS)
    return _figures(*(found[name] for name in _RECORD_SUMS))


def totals_by_user(scope: Scope, first: datetime, after: datetime) -> dict[int, Figures]:
    # Reads every hourly roll-up of the period: quarters do not know users.
    found: dict[int, list[Figures]] = {}
    plan = _plan(scope, [first, after], use_quarters=False)
    for _index, user, sums in _read_plan(scope, [first, after], plan, "user_id"):
        found.setdefault(int(user), []).append(sums)
    return {user: Figures.sum_of(several) for user, several in found.items()}


def spans_with_records(scope: Scope, first: datetime, after: datetime, *, count: int, is_newest: bool) -> list[Span]:
    """Spans that hold the newest (or oldest) `count` records of a scope, or all where there are fewer.

    Looked up in roll-ups, so that a page of rare records is found without a scan of all others.
    """
    plan, calls = _plan(scope, [first, after]), _REQUESTS_OF_KIND.get(scope.kind, F("requests"))
    sources = [(_hours(scope, plan), "hour", HOUR), (_quarters(scope, plan), "quarter", QUARTER)]
    spans: list[Span] = []
    missing = count
    for rows, column, step in sources if is_newest else reversed(sources):
        used = rows.alias(found=calls).filter(found__gt=0).values(column).annotate(calls=Sum(calls))
        used = used.order_by(f"-{column}" if is_newest else column)
        for start, several in used.values_list(column, "calls")[:count] if missing > 0 else []:
            if missing > 0:
                spans.append((start, start + step))
                missing -= several
    # Roll-ups do not count the divided hours at the edges (plan.records), so those are searched as well, except beyond
    # the spans where roll-ups found enough.
    first = min(spans)[0] if spans and is_newest and missing <= 0 else first
    after = max(spans)[1] if spans and not is_newest and missing <= 0 else after
    edges = (span for span in plan.records if span[1] > first and span[0] < after)
    return _merge_adjacent(sorted([*spans, *edges]))


def first_id(moment: datetime) -> UUID:
    """The smallest UUIDv7 of that moment: its random bits are zero. For range conditions on ids."""
    return UUID(int=id_at(max(moment, EPOCH)).int >> 62 << 62)


def in_spans(column: str, spans: Sequence[tuple[Any, Any]]) -> Q:
    if not spans:
        return Q(**{f"{column}__in": []})
    # The outer bounds are a separate condition, since an OR of ranges is no index range scan.
    bounds = [*spans, (min(start for start, _end in spans), max(end for _start, end in spans))]
    *each, outer = (Q(**{f"{column}__gte": start, f"{column}__lt": end}) for start, end in bounds)
    return outer if len(each) == 1 else outer & reduce(or_, each)


def ids_in_spans(spans: Sequence[Span]) -> Q:
    return in_spans("id", [(first_id(start), first_id(end)) for start, end in spans])


def floor(moment: datetime, step: timedelta) -> datetime:
    return EPOCH + (moment - EPOCH) // step * step


# -- Which source each part of a period is read from ------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    quarters: list[Span]
    hours: list[Span]
    records: list[Span]


def _plan(scope: Scope, cuts: Sequence[datetime], *, use_quarters: bool = True) -> _Plan:
    first, after = cuts[0], cuts[-1]
    closed = first
    if scope.is_whole_space and use_quarters:
        through = QuarterMark.objects.filter(space=scope.space_id).values_list("through", flat=True).first()
        closed = min(max(through or first, first), after)
    quarters, divided_quarters = _split(first, closed, cuts, QUARTER)
    hours, divided_hours = _split(closed, after, cuts, HOUR)
    return _Plan(quarters, hours, [*divided_quarters, *divided_hours])


def _split(
    first: datetime, after: datetime, cuts: Sequence[datetime], step: timedelta
) -> tuple[list[Span], list[Span]]:
    """Split a period into spans of whole steps, and the parts of steps that an edge or a cut divides."""
    if first >= after:
        return [], []
    inner = [cut for cut in cuts if first < cut < after]
    divided = sorted({floor(cut, step) for cut in [first, *inner, after] if cut != floor(cut, step)})
    parts = [(max(start, first), min(start + step, after)) for start in divided]
    whole_steps, at = [], first
    for start, end in [*parts, (after, after)]:
        if at < start:
            whole_steps.append((at, start))
        at = end
    return whole_steps, _merge_adjacent(parts)


def _merge_adjacent(spans: list[Span]) -> list[Span]:
    joined: list[Span] = []
    for start, end in spans:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


# -- Reading ----------------------------------------------------------------------------------------------------------


def _read_plan(scope: Scope, cuts: Sequence[datetime], plan: _Plan, by: str) -> Iterable[tuple[int, Any, Figures]]:
    if plan.quarters:
        yield from _read(_quarters(scope, plan), interval_index("quarter", cuts), _roll_up_sums(scope.kind), by)
    if plan.hours:
        yield from _read(_hours(scope, plan), interval_index("hour", cuts), _roll_up_sums(scope.kind), by)
    yield from _read_records(scope, cuts, plan.records, by)


def _quarters(scope: Scope, plan: _Plan) -> QuerySet[SpaceQuarter]:
    condition = Q(space=scope.space_id, **({"model": scope.model} if scope.model else {}))
    return SpaceQuarter.objects.filter(condition & in_spans("quarter", plan.quarters))


def _hours(scope: Scope, plan: _Plan) -> QuerySet[HourlyUsage]:
    return HourlyUsage.objects.filter(scope.condition & in_spans("hour", plan.hours))


def _read_records(
    scope: Scope, cuts: Sequence[datetime], spans: list[Span], by: str
) -> Iterable[tuple[int, Any, Figures]]:
    if not spans:
        return
    condition = scope.condition & ids_in_spans(spans)
    rows = UsageRecord.objects.filter(condition, **({"kind": scope.kind} if scope.kind else {}))
    yield from _read(rows, interval_index("id", [first_id(cut) for cut in cuts]), _RECORD_SUMS, by)


def _read(rows: QuerySet[Any], place: Expression, sums: dict[str, Any], by: str) -> Iterable[tuple[int, Any, Figures]]:
    names = ["place", by] if by else ["place"]
    found = rows.order_by().annotate(place=place).values(*names).annotate(**sums)
    for index, *name, cost, requests, errors, input_tokens, output_tokens in found.values_list(*names, *sums):
        yield index, name[0] if name else "", _figures(cost, requests, errors, input_tokens, output_tokens)


def interval_index(column: str, cuts: Sequence[Any], before: int = 0) -> Expression:
    """SQL for the index of the interval between cuts that the column falls in: a binary search of nested CASEs."""
    if len(cuts) <= 2:
        return Value(before)
    half = (len(cuts) - 1) // 2
    earlier = interval_index(column, cuts[: half + 1], before)
    later = interval_index(column, cuts[half:], before + half)
    return Case(When(**{f"{column}__lt": cuts[half]}, then=earlier), default=later, output_field=IntegerField())


def _figures(*sums: int) -> Figures:
    # PostgreSQL's SUM of BIGINT is NUMERIC, which arrives as Decimal.
    return Figures(*map(int, sums))


def _sum(value: Any) -> Coalesce:
    return Coalesce(Sum(value), 0)


def _roll_up_sums(kind: str) -> dict[str, Any]:
    # Records of kind ERROR have no cost (quotas/charging.py), so a roll-up's cost is all of kind CONSUME.
    if kind == UsageRecord.Kind.ERROR:
        names = {"spend": None, "calls": "errors", "failed": "errors"}
        names |= {"read": "error_input_tokens", "written": "error_output_tokens"}
        return {name: _sum(column) if column else Value(0) for name, column in names.items()}
    if kind == UsageRecord.Kind.CONSUME:
        return {
            "spend": _sum("cost"),
            "calls": _sum(F("requests") - F("errors")),
            "failed": Value(0),
            "read": _sum(F("input_tokens") - F("error_input_tokens")),
            "written": _sum(F("output_tokens") - F("error_output_tokens")),
        }
    columns = {"spend": "cost", "calls": "requests", "failed": "errors", "read": "input_tokens"}
    return {name: _sum(column) for name, column in (columns | {"written": "output_tokens"}).items()}


_REQUESTS_OF_KIND: dict[str, Any] = {
    UsageRecord.Kind.CONSUME: F("requests") - F("errors"),
    UsageRecord.Kind.ERROR: F("errors"),
}
_RECORD_SUMS: dict[str, Any] = {
    "spend": AGGREGATES["cost"].of_rows(),
    "calls": AGGREGATES["requests"].of_rows(),
    "failed": AGGREGATES["errors"].of_rows(),
    "read": AGGREGATES["input_tokens"].of_rows(),
    "written": AGGREGATES["output_tokens"].of_rows(),
}
