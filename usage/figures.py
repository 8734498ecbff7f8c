"""What requests came to in a stretch of time: the one place that adds up usage, so that no two screens can differ.

Of a whole space, what is over comes from closed quarters of an hour; all else from the hours of its keys, and what an
edge cuts off an hour from the rows: a sum reads about as much for ten million rows as for a hundred thousand.
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
# No UUIDv7 is older.
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
    """Whose requests, by which keys, of which model and type; None and "" are for all of them.

    Who names keys names their owners as well, since that is what rows and hours are found by.
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
        """Of rows and hours alike; the type is no column of an hour."""
        found = Q(space=self.space_id)
        if self.user_ids is not None:
            found &= Q(user_id__in=self.user_ids)
        if self.key_ids is not None:
            found &= Q(key_id__in=self.key_ids)
        return found & Q(model=self.model) if self.model else found

    def but(self, **changes: Any) -> Scope:
        return replace(self, **changes)


def total(scope: Scope, first: datetime, after: datetime) -> Figures:
    return totals(scope, [first, after])[0]


def totals(scope: Scope, cuts: Sequence[datetime]) -> list[Figures]:
    """Of each stretch between two cuts; these are in order."""
    found = [[Figures()] for _ in cuts[1:]]
    for place, _name, figures in table(scope, cuts):
        found[place].append(figures)
    return [Figures.sum_of(several) for several in found]


def table(scope: Scope, cuts: Sequence[datetime], *, by: str = "") -> list[tuple[int, str, Figures]]:
    """(place among the stretches between cuts, model or "", figures) where there was anything; one of a kind."""
    plan = _plan(scope, cuts)
    sums: dict[tuple[int, str], list[Figures]] = {}
    for place, name, figures in _found(scope, cuts, plan, by):
        if figures.requests:
            sums.setdefault((place, name), []).append(figures)
    return [(place, name, Figures.sum_of(several)) for (place, name), several in sums.items()]


def counted(rows: QuerySet[UsageRecord]) -> Figures:
    """Of these rows, read one by one."""
    found = rows.order_by().aggregate(**_COUNTED)
    return _whole(*(found[name] for name in _COUNTED))


def of_users(scope: Scope, first: datetime, after: datetime) -> dict[int, Figures]:
    """Of each user of the scope. It reads every hour of theirs in the period, unlike all else here."""
    found: dict[int, list[Figures]] = {}
    for _place, user, sums in _found(scope, [first, after], _plan(scope, [first, after], may_close=False), "user_id"):
        found.setdefault(int(user), []).append(sums)
    return {user: Figures.sum_of(several) for user, several in found.items()}


def busy(scope: Scope, first: datetime, after: datetime, *, count: int, is_newest: bool) -> list[Span]:
    """Where the newest rows of a scope are, or the oldest: at least so many, or all that there are.

    So a page of what is rare is found without reading through what is not.
    """
    plan, calls = _plan(scope, [first, after]), _CALLS.get(scope.kind, F("requests"))
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
    # What an edge cut off is not counted: it is among what is looked at, unless enough is nearer.
    first = min(spans)[0] if spans and is_newest and missing <= 0 else first
    after = max(spans)[1] if spans and not is_newest and missing <= 0 else after
    return _joined(sorted([*spans, *(span for span in plan.rows if span[1] > first and span[0] < after)]))


def first_id(moment: datetime) -> UUID:
    """The least id of that moment."""
    return UUID(int=id_at(max(moment, EPOCH)).int >> 62 << 62)


def within(column: str, spans: Sequence[tuple[Any, Any]]) -> Q:
    """In one of the spans; the outer bounds stand apart, for the planner."""
    if not spans:
        return Q(**{f"{column}__in": []})
    bounds = [*spans, (min(start for start, _end in spans), max(end for _start, end in spans))]
    *each, outer = (Q(**{f"{column}__gte": start, f"{column}__lt": end}) for start, end in bounds)
    return outer if len(each) == 1 else outer & reduce(or_, each)


def ids_within(spans: Sequence[Span]) -> Q:
    """Rows of these spans."""
    return within("id", [(first_id(start), first_id(end)) for start, end in spans])


def floor(moment: datetime, step: timedelta) -> datetime:
    """The last whole hour, or quarter of one, before or at that moment."""
    return EPOCH + (moment - EPOCH) // step * step


# -- Where each part of a stretch is read from ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    quarters: list[Span]
    hours: list[Span]
    rows: list[Span]


def _plan(scope: Scope, cuts: Sequence[datetime], *, may_close: bool = True) -> _Plan:
    first, after = cuts[0], cuts[-1]
    closed = first
    if scope.is_whole_space and may_close:
        through = QuarterMark.objects.filter(space=scope.space_id).values_list("through", flat=True).first()
        closed = min(max(through or first, first), after)
    quarters, odd = _parted(first, closed, cuts, QUARTER)
    hours, edges = _parted(closed, after, cuts, HOUR)
    return _Plan(quarters, hours, [*odd, *edges])


def _parted(
    first: datetime, after: datetime, cuts: Sequence[datetime], step: timedelta
) -> tuple[list[Span], list[Span]]:
    """The whole steps from first to after, and those that it or a cut divides, or as much of them as is asked for."""
    if first >= after:
        return [], []
    inner = [cut for cut in cuts if first < cut < after]
    divided = sorted({floor(cut, step) for cut in [first, *inner, after] if cut != floor(cut, step)})
    rows = [(max(start, first), min(start + step, after)) for start in divided]
    whole, at = [], first
    for start, end in [*rows, (after, after)]:
        if at < start:
            whole.append((at, start))
        at = end
    return whole, _joined(rows)


def _joined(spans: list[Span]) -> list[Span]:
    joined: list[Span] = []
    for start, end in spans:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


# -- Reading ----------------------------------------------------------------------------------------------------------


def _found(scope: Scope, cuts: Sequence[datetime], plan: _Plan, by: str) -> Iterable[tuple[int, Any, Figures]]:
    if plan.quarters:
        yield from _read(_quarters(scope, plan), place_among("quarter", cuts), _rolled_up(scope.kind), by)
    if plan.hours:
        yield from _read(_hours(scope, plan), place_among("hour", cuts), _rolled_up(scope.kind), by)
    yield from _read_rows(scope, cuts, plan.rows, by)


def _quarters(scope: Scope, plan: _Plan) -> QuerySet[SpaceQuarter]:
    condition = Q(space=scope.space_id, **({"model": scope.model} if scope.model else {}))
    return SpaceQuarter.objects.filter(condition & within("quarter", plan.quarters))


def _hours(scope: Scope, plan: _Plan) -> QuerySet[HourlyUsage]:
    return HourlyUsage.objects.filter(scope.condition & within("hour", plan.hours))


def _read_rows(
    scope: Scope, cuts: Sequence[datetime], spans: list[Span], by: str
) -> Iterable[tuple[int, Any, Figures]]:
    if not spans:
        return
    condition = scope.condition & ids_within(spans)
    rows = UsageRecord.objects.filter(condition, **({"kind": scope.kind} if scope.kind else {}))
    yield from _read(rows, place_among("id", [first_id(cut) for cut in cuts]), _COUNTED, by)


def _read(rows: QuerySet[Any], place: Expression, sums: dict[str, Any], by: str) -> Iterable[tuple[int, Any, Figures]]:
    names = ["place", by] if by else ["place"]
    found = rows.order_by().annotate(place=place).values(*names).annotate(**sums)
    for number, *name, cost, requests, errors, read, written in found.values_list(*names, *sums):
        yield number, name[0] if name else "", _whole(cost, requests, errors, read, written)


def place_among(column: str, cuts: Sequence[Any], before: int = 0) -> Expression:
    """The place of the stretch that a column of time falls in, found by halves."""
    if len(cuts) <= 2:
        return Value(before)
    half = (len(cuts) - 1) // 2
    earlier, later = place_among(column, cuts[: half + 1], before), place_among(column, cuts[half:], before + half)
    return Case(When(**{f"{column}__lt": cuts[half]}, then=earlier), default=later, output_field=IntegerField())


def _whole(*sums: int) -> Figures:
    """PostgreSQL adds up BIGINT as numeric."""
    return Figures(*map(int, sums))


def _sum(value: Any) -> Coalesce:
    return Coalesce(Sum(value), 0)


def _rolled_up(kind: str) -> dict[str, Any]:
    """An Error costs nothing: what has a cost is of type Consume (quotas/charging.py)."""
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


# How many of a roll-up's requests are of a kind.
_CALLS: dict[str, Any] = {
    UsageRecord.Kind.CONSUME: F("requests") - F("errors"),
    UsageRecord.Kind.ERROR: F("errors"),
}
_COUNTED: dict[str, Any] = {
    "spend": AGGREGATES["cost"].of_rows(),
    "calls": AGGREGATES["requests"].of_rows(),
    "failed": AGGREGATES["errors"].of_rows(),
    "read": AGGREGATES["input_tokens"].of_rows(),
    "written": AGGREGATES["output_tokens"].of_rows(),
}
