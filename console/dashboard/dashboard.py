"""The dashboard: what a space or one person spent in a period, on what, and how long the rest will last.

Every sum is of usage/figures.py, as the totals of the usage log are. Days and hours are those of whoever looks.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cached_property
from typing import NamedTuple, Self
from urllib.parse import urlencode

from django.db.models import Case, F, QuerySet, Subquery, When
from django.http import QueryDict
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from accounts.models import User
from console.choices import Link
from console.dashboard.chart import Chart, ChartColumn, Series, stacked
from console.logs import sees_whole_space
from console.periods import FIRST_DAY, Period, first_moment
from console.templatetags.quota import LOW_PERCENT
from console.usage.log import ID_RESOLUTION, UsageLog
from quotas.models import Wallet
from quotas.pool import members_share, pool_of
from tenants.models import Space
from usage import figures
from usage.figures import HOUR, Figures, Scope, floor
from usage.models import HourlyUsage

DASHBOARD_URL = "/console/"
MEMBERS_URL = "/console/members/"
DEFAULT_PERIOD = "7d"
# Four models have colours that nobody confuses; all others share one.
MAX_COLOURED_MODELS = 4
OTHERS_LOOK = 5
MAX_TOP_MEMBERS = 7
MAX_NEARLY_OUT = 5
# How many wallets are looked at for the top before all are.
TOP_CANDIDATES = (200, 2000)
PACE_DAYS = 7
# Fewer failed requests a day are nobody's alarm.
MIN_FAILURES = 20
MAX_DAYS_IN_HOURS, MAX_DAYS_IN_DAYS = 2, 62


class RecentSpend(NamedTuple):
    """What was spent lately, whatever the period that is shown."""

    today_nanos: int
    month_nanos: int
    pace_nanos: int


class Budget(NamedTuple):
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


class NearlyOut(NamedTuple):
    wallet: Wallet
    runway: Runway


class ModelShare(NamedTuple):
    model: str
    figures: Figures
    look: int
    percent: str

    @property
    def name(self) -> str:
        """A request may be refused before it named a model."""
        return self.model or _("Unknown model")


class Failures(NamedTuple):
    errors: int
    requests: int

    @property
    def percent(self) -> str:
        return f"{self.errors * 100 // self.requests}%"


class TopMember(NamedTuple):
    user: User
    cost_nanos: int
    requests: int
    percent: str


class SpendChange(NamedTuple):
    """Against as long a time before; `percent` is empty where nothing was spent then."""

    percent: str
    days: int


class BarUnit(NamedTuple):
    """What one bar stands for."""

    name: str
    title: str
    head: str
    label: str
    tick: str

    @classmethod
    def of(cls, period: Period) -> Self:
        days = (period.end - period.start).days + 1
        if days <= MAX_DAYS_IN_HOURS:
            return cls("hour", _("Spend per hour"), _("Hour"), _("j M H:i"), _("H:i"))
        if days <= MAX_DAYS_IN_DAYS:
            return cls("day", _("Spend per day"), _("Day"), _("D j M"), _("j M"))
        return cls("week", _("Spend per week"), _("Week from"), _("j M Y"), _("j M"))

    def cuts(self, first: datetime, after: datetime, zone: tzinfo) -> list[datetime]:
        """Where bars begin between these moments, and where the last one ends.

        Hours are UTC's: where the zone is half an hour off them, the first bar and the last are of half an hour.
        """
        if self.name == "hour":
            hours = (after - first) // HOUR + 1
            starts = [floor(first, HOUR) + HOUR * n for n in range(1, hours + 1)]
        else:
            day = first.astimezone(zone).date()
            step = timedelta(days=1 if self.name == "day" else 7)
            day -= timedelta(days=0 if self.name == "day" else day.weekday())
            last = after.astimezone(zone).date()
            starts = [first_moment(day + step * n, zone) for n in range(1, (last - day) // step + 1)]
        return [first, *sorted({start for start in starts if first < start < after}), after]


@dataclass(frozen=True)
class DashboardFilters:
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
        name = name if name in periods else DEFAULT_PERIOD
        return cls(scope, name, periods[name])


class Dashboard:
    """What one user sees under one address."""

    def __init__(self, user: User, query: QueryDict, *, now: datetime | None = None) -> None:
        assert user.space is not None
        self._user = user
        self._space: Space = user.space
        self._now = now or datetime.now(UTC)
        self.zone = timezone.get_current_timezone()
        self._today = self._now.astimezone(self.zone).date()
        self._periods = {
            "today": Period.latest(1, today=self._today),
            "7d": Period.latest(7, today=self._today),
            "30d": Period.latest(30, today=self._today),
            "month": Period(self._today.replace(day=1), self._today),
        }
        self.filters = DashboardFilters.of(query, user, self._periods)

    # -- What is asked for ------------------------------------------------------------------------------------------

    @property
    def period(self) -> Period:
        return self.filters.period

    @property
    def is_whole_space(self) -> bool:
        return self.filters.scope == "space"

    @property
    def periods(self) -> list[Link]:
        labels = {"today": _("Today"), "7d": _("7 days"), "30d": _("30 days"), "month": _("This month")}
        return [Link(label, self.url(name=name), name == self.filters.name) for name, label in labels.items()]

    @property
    def scopes(self) -> list[Link]:
        """None for those who see but themselves."""
        if not sees_whole_space(self._user):
            return []
        labels = {"space": _("The space"), "me": _("Me")}
        return [Link(label, self.url(scope=scope), scope == self.filters.scope) for scope, label in labels.items()]

    @property
    def shown_url(self) -> str:
        return self.url()

    @property
    def log_url(self) -> str:
        """The rows behind the figures."""
        query = {"from": self.period.start.isoformat(), "to": self.period.end.isoformat()}
        if sees_whole_space(self._user) and not self.is_whole_space:
            query["user"] = self._user.username
        return f"{UsageLog.address}?{urlencode(query)}"

    @property
    def members_url(self) -> str:
        """Of what is added up apart, since it reads what each member did."""
        return MEMBERS_URL + self.url().removeprefix(DASHBOARD_URL)

    @property
    def failures_url(self) -> str:
        today = self._today.isoformat()
        return f"{UsageLog.address}?{urlencode({'from': today, 'to': today, 'type': 'error'})}"

    def url(self, *, scope: str = "", name: str = "", period: Period | None = None) -> str:
        """This view with some of it changed; what is as usual is left out. A period goes before a name."""
        scope, name = scope or self.filters.scope, name or self.filters.name
        query = {"scope": "me"} if scope == "me" and sees_whole_space(self._user) else {}
        if period or not name:
            shown = period or self.period
            query |= {"from": shown.start.isoformat(), "to": shown.end.isoformat()}
        elif name != DEFAULT_PERIOD:
            query["period"] = name
        return f"{DASHBOARD_URL}?{urlencode(query)}" if query else DASHBOARD_URL

    # -- Cards ------------------------------------------------------------------------------------------------------

    @cached_property
    def figures(self) -> Figures:
        return Figures.sum_of([*(figures for _place, _model, figures in self._table), Figures()])

    @property
    def succeeded_percent(self) -> str:
        """Rounded down: what failed once never shows 100%."""
        requests, errors = self.figures.requests, self.figures.errors
        permille = (requests - errors) * 1000 // requests if requests else 0
        return f"{permille // 10}.{permille % 10}%"

    @cached_property
    def change(self) -> SpendChange:
        """Of what was spent, against the same days and hours of the period before."""
        days = (self.period.end - self.period.start).days + 1
        first, after = self.moments
        start = first_moment(max(FIRST_DAY, self.period.start - timedelta(days=days)), self.zone)
        length = min(max(self._now, first), after) - first
        before = figures.total(self._scope, start, max(start, min(start + length, first))).cost_nanos
        return SpendChange(_change_percent(self.figures.cost_nanos, before), days)

    @cached_property
    def recent(self) -> RecentSpend:
        today, month, pace = (self._spent_since(first).cost_nanos for first in self._recent_starts)
        return RecentSpend(today, month, pace)

    @cached_property
    def budget(self) -> Budget:
        if self.is_whole_space:
            pool = pool_of(self._space)
            left = pool.total - pool.spent - members_share(self._space).used
            return Budget(_("Available"), pool.available, pool.total, left)
        if self._user.is_manager:
            pool = pool_of(self._space)
            return Budget(_("Available"), pool.available, pool.total, pool.available)
        wallet = Wallet.objects.get(space=self._space, user=self._user)
        return Budget(_("Remaining"), wallet.remaining, wallet.total, wallet.remaining)

    @property
    def runway(self) -> Runway:
        return Runway(self.budget.left_nanos, self.recent.pace_nanos)

    @property
    def requests_per_minute(self) -> str:
        return _rate(self.figures.requests, self._minutes)

    @property
    def tokens_per_minute(self) -> str:
        return _rate(self.figures.tokens, self._minutes)

    # -- Charts -----------------------------------------------------------------------------------------------------

    @cached_property
    def unit(self) -> BarUnit:
        return BarUnit.of(self.period)

    @cached_property
    def shares(self) -> list[ModelShare]:
        """Every model of the period, the top_spenders first."""
        by_model: dict[str, list[Figures]] = defaultdict(list)
        for _place, model, spent in self._table:
            by_model[model].append(spent)
        found = [(model, Figures.sum_of(several)) for model, several in by_model.items()]
        found.sort(key=lambda pair: (-pair[1].cost_nanos, -pair[1].requests, pair[0]))
        whole = self.figures.cost_nanos
        return [
            ModelShare(model, spent, min(place, OTHERS_LOOK), _percent(spent.cost_nanos, whole))
            for place, (model, spent) in enumerate(found, start=1)
        ]

    @cached_property
    def chart(self) -> Chart:
        places = [place for place, _model, spent in self._table if spent.cost_nanos]
        # Of a long period, the weeks from the first that was used to the last.
        shown = range(min(places), max(places) + 1) if self.unit.name == "week" else range(len(self._cuts) - 1)
        return stacked(self._series, [self._column(place) for place in shown])

    @cached_property
    def top(self) -> list[TopMember]:
        """Who spent most, the deleted among them."""
        rows = top_spenders(self._scope, *self.moments, most=MAX_TOP_MEMBERS)
        people = User.everyone.filter(space=self._space).in_bulk([user for user, _spent in rows])
        most = max((spent.cost_nanos for _user, spent in rows), default=0)
        return [
            TopMember(people[user], spent.cost_nanos, spent.requests, _percent(spent.cost_nanos, most))
            for user, spent in rows
        ]

    @property
    def others_nanos(self) -> int:
        return figures.total(self._scope, *self.moments).cost_nanos - sum(one.cost_nanos for one in self.top)

    # -- What is wrong ------------------------------------------------------------------------------------------------

    @cached_property
    def failures(self) -> Failures | None:
        """Where far more of today's requests failed than of those in the last days."""
        today, lately = self._spent_since(self._recent_starts[0]), self._spent_since(self._recent_starts[2])
        few = today.errors < MIN_FAILURES or today.errors * lately.requests < lately.errors * today.requests * 2
        many = today.errors * 10 >= today.requests
        return Failures(today.errors, today.requests) if many and not few else None

    @cached_property
    def nearly_out(self) -> list[NearlyOut]:
        """Members who can sign in and have less than a fifth of what they were given, the emptiest first."""
        wallets = Wallet.objects.filter(
            space=self._space, kind=Wallet.Kind.MEMBER, is_closed=False, total__gt=0, user__is_active=True
        )
        # A share of 20% is a fifth: five times the highest amount still fits a BIGINT.
        parts = 100 // LOW_PERCENT
        low = wallets.alias(low=F("total") - (F("total") - F("spent")) * parts).filter(low__gt=0)
        found = list(low.select_related("user").order_by(F("total") - F("spent"), "user__number")[:MAX_NEARLY_OUT])
        people = frozenset(wallet.user_id for wallet in found if wallet.user_id is not None)
        hour = floor(self._now, HOUR) + HOUR
        paces = figures.of_users(self._scope.but(user_ids=people), self._recent_starts[2], hour) if people else {}
        return [
            NearlyOut(wallet, Runway(wallet.remaining, paces.get(wallet.user_id or 0, Figures()).cost_nanos))
            for wallet in found
        ]

    # -- Sums -------------------------------------------------------------------------------------------------------

    @property
    def moments(self) -> tuple[datetime, datetime]:
        return self.period.moments(self.zone)

    @property
    def _scope(self) -> Scope:
        """What this user may know of, and asked for."""
        return Scope(space_id=self._space.pk, user_ids=None if self.is_whole_space else frozenset({self._user.pk}))

    @cached_property
    def _cuts(self) -> list[datetime]:
        """Where bars begin; of a long period those alone in which the space was used."""
        first, after = self.moments
        if self.unit.name == "week" and first < after:
            hours = HourlyUsage.objects.filter(space=self._space)
            ends = [hours.order_by(order).values_list("hour", flat=True).first() for order in ("hour", "-hour")]
            if ends[0] is None or ends[1] is None:
                return [first, after]
            # A week more on either side, so that it begins and ends within.
            week = timedelta(days=8)
            near, far = max(first, ends[0] - week), min(after, ends[1] + week)
            first, after = (near, far) if near < far else (first, after)
        return self.unit.cuts(first, after, self.zone)

    @cached_property
    def _table(self) -> list[tuple[int, str, Figures]]:
        """(place of the bar, model, figures)"""
        return figures.table(self._scope, self._cuts, by="model") if self._cuts[0] < self._cuts[-1] else []

    @cached_property
    def _recent_starts(self) -> tuple[datetime, datetime, datetime]:
        """Of today, of this month, and of the days that tell the pace, up to the end of the hour that runs."""
        pace = floor(self._now, HOUR) - timedelta(days=PACE_DAYS) + HOUR
        today, month = (self._periods[name].moments(self.zone)[0] for name in ("today", "month"))
        return today, month, pace

    def _spent_since(self, first: datetime) -> Figures:
        return Figures.sum_of([spent for start, spent in self._spent_by_start if start >= first])

    @cached_property
    def _spent_by_start(self) -> list[tuple[datetime, Figures]]:
        """(from when, what came of it until the next) of these beginnings, until the hour that runs is over."""
        cuts = [*sorted(set(self._recent_starts)), floor(self._now, HOUR) + HOUR]
        return list(zip(cuts[:-1], figures.totals(self._scope, cuts), strict=True))

    @property
    def _minutes(self) -> int:
        """How long the period has lasted so far."""
        first, after = self.moments
        return max(1, int((min(self._now, after) - first).total_seconds()) // 60)

    @cached_property
    def _series(self) -> list[Series]:
        shares, others = self.shares[:MAX_COLOURED_MODELS], self.shares[MAX_COLOURED_MODELS:]
        series = [Series(one.name, one.figures.cost_nanos, one.percent, one.look) for one in shares]
        rest = sum(one.figures.cost_nanos for one in others)
        percent = _percent(rest, self.figures.cost_nanos)
        return [*series, Series(_("Other"), rest, percent, OTHERS_LOOK)] if others else series

    @cached_property
    def _costs_nanos(self) -> dict[int, list[int]]:
        """What each series came to in each bar in which there was any."""
        places = {one.model: one.look - 1 for one in self.shares}
        costs: dict[int, list[int]] = defaultdict(lambda: [0] * len(self._series))
        for place, model, spent in self._table:
            costs[place][places[model]] += spent.cost_nanos
        return costs

    def _column(self, place: int) -> ChartColumn:
        costs = self._costs_nanos.get(place) or [0] * len(self._series)
        at = self._cuts[place].astimezone(self.zone)
        label = date_format(at, self.unit.label)
        if self.unit.name == "hour":
            # An hour comes twice when clocks go back; Django's own format says nothing of it then.
            label = f"{label} {at.tzname()}"
        return ChartColumn(label, date_format(at, self.unit.tick), costs, self._zoomed_url(place))

    def _zoomed_url(self, place: int) -> str:
        """A day by its hours, a week by its days."""
        if self.unit.name == "hour":
            return ""
        first, after = (cut.astimezone(self.zone) for cut in self._cuts[place : place + 2])
        return self.url(period=Period(first.date(), (after - ID_RESOLUTION).date()))


def top_spenders(scope: Scope, first: datetime, after: datetime, *, most: int) -> list[tuple[int, Figures]]:
    """Who spent most in the period, and what.

    Nobody spent more in it than their wallet ever did, so the few whose wallets did are looked at first: once they are
    ahead of what anybody else could have spent, the rest need not be added up.
    """
    wallets = Wallet.objects.filter(space=scope.space_id, spent__gt=0).order_by("-spent", "pk")
    owner = Case(When(kind=Wallet.Kind.POOL, then=Subquery(_manager_ids(scope.space_id))), default=F("user_id"))
    for count in TOP_CANDIDATES:
        spenders = list(wallets.annotate(owner=owner).values_list("owner", "spent")[: count + 1])
        looked = frozenset(user for user, _spent in spenders[:count])
        ranked = _ranked(figures.of_users(scope.but(user_ids=looked), first, after))[:most]
        rest = spenders[count][1] if len(spenders) > count else 0
        if not rest or (len(ranked) == most and ranked[-1][1].cost_nanos > rest):
            return ranked
    return _ranked(figures.of_users(scope, first, after))[:most]


def _manager_ids(space_id: int) -> QuerySet[User, int]:
    return User.everyone.filter(space=space_id, number=1).values_list("pk", flat=True)


def _ranked(spent: dict[int, Figures]) -> list[tuple[int, Figures]]:
    return sorted(
        ((user, sums) for user, sums in spent.items() if sums.cost_nanos),
        key=lambda pair: (-pair[1].cost_nanos, pair[0]),
    )


def _change_percent(now: int, before: int) -> str:
    """`+12.4%` or `−3.0%`; a multiple where it is more than ten times."""
    if not before:
        return ""
    if now >= 10 * before:
        return f"{now // before:,}\N{MULTIPLICATION SIGN}"
    permille = abs(now - before) * 1000 // before
    sign = "+" if now >= before else "\N{MINUS SIGN}"
    return f"{sign}{permille // 10}.{permille % 10}%"


def _rate(count: int, minutes: int) -> str:
    """Per minute; a little is not shown as nothing."""
    rate = count / minutes
    if 0 < rate < 0.01:
        return "<\N{NO-BREAK SPACE}0.01"
    return f"{rate:,.2f}" if rate < 10 else f"{rate:,.0f}"


def _percent(part: int, whole: int) -> str:
    return f"{part * 100 / whole:.1f}%" if whole else "0.0%"
