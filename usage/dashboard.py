"""The dashboard: what a space or one person spent in a period, on what, and how long the rest will last.

Every figure is a sum of whole UTC hours, which is what days in UTC are made of: the totals are those of the usage log.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import NamedTuple, Self
from urllib.parse import urlencode

from django.db.models import F, Q, QuerySet, Sum
from django.db.models.functions import TruncDay, TruncHour, TruncWeek
from django.http import QueryDict
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from accounts.models import User
from quotas.models import Wallet
from quotas.pool import members_share, pool_of
from quotas.templatetags.quota import LOW_PERCENT
from tenants.models import Space
from usage.chart import Chart, Column, Series, stacked
from usage.log import Link, Period, UsageLog, sees_whole_space
from usage.models import HourlyUsage

ADDRESS = "/console/"
USUAL = "7d"
# Four models have colours that nobody confuses; all others share one.
COLOURED = 4
OTHERS_LOOK = 5
TOP = 7
NEARLY_OUT = 5
PACE_DAYS = 7
HOURS_UP_TO_DAYS, DAYS_UP_TO_DAYS = 2, 62


class Slice(NamedTuple):
    """One model in one hour, day or week."""

    at: datetime
    model: str
    cost_nanos: int
    requests: int
    errors: int
    input_tokens: int
    output_tokens: int


class Figures(NamedTuple):
    cost_nanos: int = 0
    requests: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @classmethod
    def of(cls, slices: Iterable[Slice]) -> Self:
        return cls(*map(sum, zip(*(one[2:] for one in slices), strict=True)))

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def succeeded_percent(self) -> str:
        """Rounded down: what failed once never shows 100%."""
        permille = (self.requests - self.errors) * 1000 // self.requests if self.requests else 0
        return f"{permille // 10}.{permille % 10}%"


class Recent(NamedTuple):
    """What was spent lately, whatever the period that is shown."""

    today_nanos: int
    month_nanos: int
    pace_nanos: int


class Purse(NamedTuple):
    """What can be spent or handed out now, what it was of, and what all spending that is shown can still draw on."""

    label: str
    now_nanos: int
    total_nanos: int
    left_nanos: int


class Runway(NamedTuple):
    left_nanos: int
    pace_nanos: int

    @property
    def per_day_nanos(self) -> int:
        return -(-self.pace_nanos // PACE_DAYS)

    @property
    def days(self) -> int | None:
        """None where nothing was spent, so that nobody can say."""
        return max(0, self.left_nanos) * PACE_DAYS // self.pace_nanos if self.pace_nanos else None


class Share(NamedTuple):
    model: str
    figures: Figures
    look: int
    percent: str


class Top(NamedTuple):
    user: User
    cost_nanos: int
    requests: int
    percent: str


class Unit(NamedTuple):
    """What one bar stands for."""

    truncate: type[TruncHour | TruncDay | TruncWeek]
    length: timedelta
    title: str
    head: str
    label: str
    tick: str

    @classmethod
    def of(cls, period: Period) -> Self:
        days = (period.end - period.start).days + 1
        if days <= HOURS_UP_TO_DAYS:
            return cls(TruncHour, timedelta(hours=1), _("Spend per hour"), _("Hour"), "j M H:i", "H:i")
        if days <= DAYS_UP_TO_DAYS:
            return cls(TruncDay, timedelta(days=1), _("Spend per day"), _("Day"), "D j M", "j M")
        return cls(TruncWeek, timedelta(weeks=1), _("Spend per week"), _("Week from"), "j M Y", "j M")


@dataclass(frozen=True)
class Asked:
    """What the address asks for. What there is not is as if it were not there; a date goes before a named period."""

    scope: str
    name: str
    period: Period

    @classmethod
    def of(cls, query: QueryDict, user: User, periods: dict[str, Period]) -> Self:
        scope = "space" if sees_whole_space(user) and query.get("scope") != "me" else "me"
        start, end = query.get("from") or "", query.get("to") or ""
        if start or end:
            return cls(scope, "", Period.of(start, end, today=periods["today"].end))
        name = query.get("period") or ""
        name = name if name in periods else USUAL
        return cls(scope, name, periods[name])


class Dashboard:
    """What one user sees under one address."""

    def __init__(self, user: User, query: QueryDict, *, now: datetime | None = None) -> None:
        assert user.space is not None
        self._user = user
        self._space: Space = user.space
        self._now = now or datetime.now(UTC)
        self._today = self._now.date()
        self._periods = {
            "today": Period.latest(1, today=self._today),
            "7d": Period.latest(7, today=self._today),
            "30d": Period.latest(30, today=self._today),
            "month": Period(self._today.replace(day=1), self._today),
        }
        self.asked = Asked.of(query, user, self._periods)

    # -- What is asked for ------------------------------------------------------------------------------------------

    @property
    def period(self) -> Period:
        return self.asked.period

    @property
    def is_whole_space(self) -> bool:
        return self.asked.scope == "space"

    @property
    def periods(self) -> list[Link]:
        labels = {"today": _("Today"), "7d": _("7 days"), "30d": _("30 days"), "month": _("This month")}
        return [Link(label, self.url(name=name), name == self.asked.name) for name, label in labels.items()]

    @property
    def scopes(self) -> list[Link]:
        """None for those who see but themselves."""
        if not sees_whole_space(self._user):
            return []
        labels = {"space": _("The space"), "me": _("Me")}
        return [Link(label, self.url(scope=scope), scope == self.asked.scope) for scope, label in labels.items()]

    @property
    def shown_url(self) -> str:
        return self.url()

    @property
    def log_url(self) -> str:
        """The rows behind the figures."""
        said = {"from": self.period.start.isoformat(), "to": self.period.end.isoformat()}
        if sees_whole_space(self._user) and not self.is_whole_space:
            said["user"] = self._user.username
        return f"{UsageLog.address}?{urlencode(said)}"

    def url(self, *, scope: str = "", name: str = "") -> str:
        """This view with some of it changed; what is as usual is left out."""
        scope, name = scope or self.asked.scope, name or self.asked.name
        said = {"scope": "me"} if scope == "me" and sees_whole_space(self._user) else {}
        if not name:
            said |= {"from": self.period.start.isoformat(), "to": self.period.end.isoformat()}
        elif name != USUAL:
            said["period"] = name
        return f"{ADDRESS}?{urlencode(said)}" if said else ADDRESS

    # -- Cards ------------------------------------------------------------------------------------------------------

    @cached_property
    def figures(self) -> Figures:
        return Figures.of(self._slices)

    @cached_property
    def recent(self) -> Recent:
        today, month = (self._periods[name].moments[0] for name in ("today", "month"))
        pace = self._now.replace(minute=0, second=0, microsecond=0) - timedelta(days=PACE_DAYS) + timedelta(hours=1)
        hours = self._hours.filter(hour__gte=min(month, pace), hour__lte=self._now)
        sums = hours.aggregate(
            today=Sum("cost", filter=Q(hour__gte=today), default=0),
            month=Sum("cost", filter=Q(hour__gte=month), default=0),
            pace=Sum("cost", filter=Q(hour__gte=pace), default=0),
        )
        return Recent(sums["today"], sums["month"], sums["pace"])

    @cached_property
    def purse(self) -> Purse:
        if self.is_whole_space:
            pool = pool_of(self._space)
            left = pool.total - pool.spent - members_share(self._space).used
            return Purse(_("Available"), pool.available, pool.total, left)
        if self._user.is_manager:
            pool = pool_of(self._space)
            return Purse(_("Available"), pool.available, pool.total, pool.available)
        wallet = Wallet.objects.get(space=self._space, user=self._user)
        return Purse(_("Remaining"), wallet.remaining, wallet.total, wallet.remaining)

    @property
    def runway(self) -> Runway:
        return Runway(self.purse.left_nanos, self.recent.pace_nanos)

    @property
    def requests_per_minute(self) -> str:
        return _rate(self.figures.requests, self._minutes)

    @property
    def tokens_per_minute(self) -> str:
        return _rate(self.figures.tokens, self._minutes)

    # -- Charts -----------------------------------------------------------------------------------------------------

    @cached_property
    def unit(self) -> Unit:
        return Unit.of(self.period)

    @cached_property
    def shares(self) -> list[Share]:
        """Every model of the period, the dearest first."""
        by_model: dict[str, list[Slice]] = defaultdict(list)
        for one in self._slices:
            by_model[one.model].append(one)
        found = [(model, Figures.of(slices)) for model, slices in by_model.items()]
        found.sort(key=lambda pair: (-pair[1].cost_nanos, -pair[1].requests, pair[0]))
        whole = self.figures.cost_nanos
        return [
            Share(model, figures, min(place, OTHERS_LOOK), _percent(figures.cost_nanos, whole))
            for place, (model, figures) in enumerate(found, start=1)
        ]

    @cached_property
    def chart(self) -> Chart:
        return stacked(self._series, [self._column(at) for at in self._moments])

    @cached_property
    def top(self) -> list[Top]:
        """Who spent most, the deleted among them."""
        found = self._shown_hours.values("user_id").annotate(spend=Sum("cost"), calls=Sum("requests"))
        rows = list(found.filter(spend__gt=0).order_by("-spend", "user_id")[:TOP])
        people = User.everyone.filter(space=self._space).in_bulk([row["user_id"] for row in rows])
        most = max((row["spend"] for row in rows), default=0)
        return [Top(people[row["user_id"]], row["spend"], row["calls"], _percent(row["spend"], most)) for row in rows]

    @property
    def others_nanos(self) -> int:
        return self.figures.cost_nanos - sum(one.cost_nanos for one in self.top)

    @cached_property
    def nearly_out(self) -> list[Wallet]:
        """Members who can sign in and have less than a fifth of what they were given, the emptiest first."""
        wallets = Wallet.objects.filter(
            space=self._space, kind=Wallet.Kind.MEMBER, is_closed=False, total__gt=0, user__is_active=True
        )
        # A share of 20% is a fifth: five times the highest amount still fits a BIGINT.
        parts = 100 // LOW_PERCENT
        low = wallets.alias(low=F("total") - (F("total") - F("spent")) * parts).filter(low__gt=0)
        return list(low.select_related("user").order_by(F("total") - F("spent"), "user__number")[:NEARLY_OUT])

    # -- Sums -------------------------------------------------------------------------------------------------------

    @property
    def _hours(self) -> QuerySet[HourlyUsage]:
        """The hours that this user may know of, and asked for."""
        hours = HourlyUsage.objects.filter(space=self._space)
        return hours if self.is_whole_space else hours.filter(user_id=self._user.pk)

    @property
    def _shown_hours(self) -> QuerySet[HourlyUsage]:
        first, after = self.period.moments
        return self._hours.filter(hour__gte=first, hour__lt=after)

    @cached_property
    def _slices(self) -> list[Slice]:
        columns = {"spend": "cost", "calls": "requests", "failed": "errors", "read": "input_tokens"}
        sums = {name: Sum(column) for name, column in (columns | {"written": "output_tokens"}).items()}
        at = self.unit.truncate("hour", tzinfo=UTC)
        found = self._shown_hours.annotate(at=at).values("at", "model").annotate(**sums).order_by("at")
        return [Slice(*row) for row in found.values_list("at", "model", *sums)]

    @property
    def _minutes(self) -> int:
        """How long the period has lasted so far."""
        first, after = self.period.moments
        return max(1, int((min(self._now, after) - first).total_seconds()) // 60)

    @cached_property
    def _series(self) -> list[Series]:
        shares, others = self.shares[:COLOURED], self.shares[COLOURED:]
        series = [Series(one.model, one.figures.cost_nanos, one.percent, one.look) for one in shares]
        rest = sum(one.figures.cost_nanos for one in others)
        percent = _percent(rest, self.figures.cost_nanos)
        return [*series, Series(_("Other"), rest, percent, OTHERS_LOOK)] if others else series

    @cached_property
    def _costs_nanos(self) -> dict[datetime, list[int]]:
        """What each series came to in each hour, day or week in which there was any."""
        places = {one.model: one.look - 1 for one in self.shares}
        costs: dict[datetime, list[int]] = defaultdict(lambda: [0] * len(self._series))
        for one in self._slices:
            costs[one.at][places[one.model]] += one.cost_nanos
        return costs

    @property
    def _moments(self) -> Iterator[datetime]:
        """Every hour and day of the period; of a long one, the weeks from the first that was used to the last."""
        first, after = self.period.moments
        if self.unit.truncate is TruncWeek:
            first, after = min(self._costs_nanos), max(self._costs_nanos) + self.unit.length
        return (first + self.unit.length * n for n in range((after - first) // self.unit.length))

    def _column(self, at: datetime) -> Column:
        costs = self._costs_nanos.get(at) or [0] * len(self._series)
        return Column(date_format(at, self.unit.label), date_format(at, self.unit.tick), costs)


def _rate(count: int, minutes: int) -> str:
    """Per minute; a little is not shown as nothing."""
    rate = count / minutes
    if 0 < rate < 0.01:
        return "<\N{NO-BREAK SPACE}0.01"
    return f"{rate:,.2f}" if rate < 10 else f"{rate:,.0f}"


def _percent(part: int, whole: int) -> str:
    return f"{part * 100 / whole:.1f}%" if whole else "0.0%"
