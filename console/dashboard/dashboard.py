"""The dashboard: spending of a space or a member in a period, by model and member, and the runway.

All sums come from usage/figures.py, like the totals of the usage log, so that both agree. Days and hours are in the
viewer's time zone.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Self
from urllib.parse import urlencode

from django.db.models import F
from django.http import QueryDict
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from accounts.models import User
from console.choices import Link
from console.dashboard.bars import BarUnit
from console.dashboard.cards import (
    PACE_DAYS,
    Failures,
    ModelShare,
    NearlyOut,
    RecentSpend,
    Runway,
    SpendChange,
    WalletCard,
)
from console.dashboard.chart import Chart, ChartColumn, Series, stacked
from console.dashboard.spenders import TopMember, top_spenders
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
# Four colours can be told apart with colour vision deficiency; all other models share a fifth, “Other”.
MAX_COLOURED_MODELS = 4
OTHERS_LOOK = 5
MAX_TOP_MEMBERS = 7
MAX_NEARLY_OUT = 5
# Fewer failed requests a day never raise the alert.
MIN_FAILURES = 20


@dataclass(frozen=True)
class DashboardFilters:
    """The query string. Invalid values are ignored; `from` and `to` take precedence over `period`."""

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

    # -- Selection and links ------------------------------------------------------------------------------------------

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
        if not sees_whole_space(self._user):
            return []
        labels = {"space": _("The space"), "me": _("Me")}
        return [Link(label, self.url(scope=scope), scope == self.filters.scope) for scope, label in labels.items()]

    @property
    def shown_url(self) -> str:
        return self.url()

    @property
    def log_url(self) -> str:
        query = {"from": self.period.start.isoformat(), "to": self.period.end.isoformat()}
        if sees_whole_space(self._user) and not self.is_whole_space:
            query["user"] = self._user.username
        return f"{UsageLog.address}?{urlencode(query)}"

    @property
    def members_url(self) -> str:
        # The figures per member are fetched after the page, because they are slower to compute.
        return MEMBERS_URL + self.url().removeprefix(DASHBOARD_URL)

    @property
    def failures_url(self) -> str:
        today = self._today.isoformat()
        return f"{UsageLog.address}?{urlencode({'from': today, 'to': today, 'type': 'error'})}"

    def url(self, *, scope: str = "", name: str = "", period: Period | None = None) -> str:
        """Return the URL with some parameters changed, without defaults; `period` takes precedence over `name`."""
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
        # Rounded down, so that a period with a failed request never shows 100%.
        requests, errors = self.figures.requests, self.figures.errors
        permille = (requests - errors) * 1000 // requests if requests else 0
        return f"{permille // 10}.{permille % 10}%"

    @cached_property
    def change(self) -> SpendChange:
        """Spending compared with the period before. A period that is still running is compared up to the same time."""
        days = max((self.period.end - self.period.start).days + 1, 0)
        first, after = self.moments
        # Bounded before the subtraction, because no date is earlier than year 1.
        days_before = min(days, (self.period.start - FIRST_DAY).days)
        start = first_moment(self.period.start - timedelta(days=days_before), self.zone)
        length = min(max(self._now, first), after) - first
        before = figures.total(self._scope, start, max(start, min(start + length, first))).cost_nanos
        return SpendChange(_change_percent(self.figures.cost_nanos, before), days)

    @cached_property
    def recent(self) -> RecentSpend:
        today, month, pace = (self._spent_since(first).cost_nanos for first in self._recent_starts)
        return RecentSpend(today, month, pace)

    @cached_property
    def wallet_card(self) -> WalletCard:
        if self.is_whole_space:
            pool = pool_of(self._space)
            left = pool.total - pool.spent - members_share(self._space).used
            return WalletCard(_("Available"), pool.available, pool.total, left)
        if self._user.is_manager:
            pool = pool_of(self._space)
            return WalletCard(_("Available"), pool.available, pool.total, pool.available)
        wallet = Wallet.objects.get(space=self._space, user=self._user)
        return WalletCard(_("Remaining"), wallet.remaining, wallet.total, wallet.remaining)

    @property
    def runway(self) -> Runway:
        return Runway(self.wallet_card.left_nanos, self.recent.pace_nanos)

    @property
    def requests_per_minute(self) -> str:
        return _per_minute(self.figures.requests, self._minutes)

    @property
    def tokens_per_minute(self) -> str:
        return _per_minute(self.figures.tokens, self._minutes)

    # -- Charts -----------------------------------------------------------------------------------------------------

    @cached_property
    def unit(self) -> BarUnit:
        return BarUnit.of(self.period)

    @cached_property
    def shares(self) -> list[ModelShare]:
        by_model: dict[str, list[Figures]] = defaultdict(list)
        for _place, model, spent in self._table:
            by_model[model].append(spent)
        found = [(model, Figures.sum_of(several)) for model, several in by_model.items()]
        found.sort(key=lambda pair: (-pair[1].cost_nanos, -pair[1].requests, pair[0]))
        whole = self.figures.cost_nanos
        return [
            ModelShare(model, spent, min(place, OTHERS_LOOK), _percent_text(spent.cost_nanos, whole))
            for place, (model, spent) in enumerate(found, start=1)
        ]

    @cached_property
    def chart(self) -> Chart:
        places = [place for place, _model, spent in self._table if spent.cost_nanos]
        # Weeks before the first and after the last usage are left out; hours and days are all drawn.
        shown = range(min(places), max(places) + 1) if self.unit.name == "week" else range(len(self._cuts) - 1)
        return stacked(self._series, [self._column(place) for place in shown])

    @cached_property
    def top(self) -> list[TopMember]:
        rows = top_spenders(self._scope, *self.moments, limit=MAX_TOP_MEMBERS)
        people = User.everyone.filter(space=self._space).in_bulk([user for user, _spent in rows])
        most = max((spent.cost_nanos for _user, spent in rows), default=0)
        return [
            TopMember(people[user], spent.cost_nanos, spent.requests, _percent_text(spent.cost_nanos, most))
            for user, spent in rows
        ]

    @property
    def others_nanos(self) -> int:
        return figures.total(self._scope, *self.moments).cost_nanos - sum(one.cost_nanos for one in self.top)

    # -- Alerts ------------------------------------------------------------------------------------------------

    @cached_property
    def failures(self) -> Failures | None:
        """Today's failures if they deserve an alert, else None.

        At least MIN_FAILURES, a tenth of today's requests, and twice the error rate of the last PACE_DAYS days.
        """
        today, lately = self._spent_since(self._recent_starts[0]), self._spent_since(self._recent_starts[2])
        few = today.errors < MIN_FAILURES or today.errors * lately.requests < lately.errors * today.requests * 2
        many = today.errors * 10 >= today.requests
        return Failures(today.errors, today.requests) if many and not few else None

    @cached_property
    def nearly_out(self) -> list[NearlyOut]:
        wallets = Wallet.objects.filter(
            space=self._space, kind=Wallet.Kind.MEMBER, is_closed=False, total__gt=0, user__is_active=True
        )
        # remaining < 20% of total, written as 5 × remaining < total, because 100 × remaining could overflow a BIGINT.
        parts = 100 // LOW_PERCENT
        low = wallets.alias(low=F("total") - (F("total") - F("spent")) * parts).filter(low__gt=0)
        found = list(low.select_related("user").order_by(F("total") - F("spent"), "user__number")[:MAX_NEARLY_OUT])
        people = frozenset(wallet.user_id for wallet in found if wallet.user_id is not None)
        hour = floor(self._now, HOUR) + HOUR
        paces = (
            figures.totals_by_user(self._scope.replace(user_ids=people), self._recent_starts[2], hour) if people else {}
        )
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
        return Scope(space_id=self._space.pk, user_ids=None if self.is_whole_space else frozenset({self._user.pk}))

    @cached_property
    def _cuts(self) -> list[datetime]:
        # A period shown in weeks is clipped to the weeks with usage: it may span millennia.
        first, after = self.moments
        if self.unit.name == "week" and first < after:
            hours = HourlyUsage.objects.filter(space=self._space)
            ends = [hours.order_by(order).values_list("hour", flat=True).first() for order in ("hour", "-hour")]
            if ends[0] is None or ends[1] is None:
                return [first, after]
            # More than a week of margin, so that clipping cannot cut the first or last week with usage in two.
            week = timedelta(days=8)
            near, far = max(first, ends[0] - week), min(after, ends[1] + week)
            first, after = (near, far) if near < far else (first, after)
        return self.unit.cuts(first, after, self.zone)

    @cached_property
    def _table(self) -> list[tuple[int, str, Figures]]:
        """Return rows of (index of the bar, model, figures)."""
        return figures.totals_by(self._scope, self._cuts, by="model") if self._cuts[0] < self._cuts[-1] else []

    @cached_property
    def _recent_starts(self) -> tuple[datetime, datetime, datetime]:
        # The last PACE_DAYS days end with the current hour.
        pace = floor(self._now, HOUR) - timedelta(days=PACE_DAYS) + HOUR
        today, month = (self._periods[name].moments(self.zone)[0] for name in ("today", "month"))
        return today, month, pace

    def _spent_since(self, first: datetime) -> Figures:
        return Figures.sum_of([spent for start, spent in self._spent_by_start if start >= first])

    @cached_property
    def _spent_by_start(self) -> list[tuple[datetime, Figures]]:
        """Return rows of (start, figures up to the next start); the last row ends with the current hour."""
        cuts = [*sorted(set(self._recent_starts)), floor(self._now, HOUR) + HOUR]
        return list(zip(cuts[:-1], figures.totals(self._scope, cuts), strict=True))

    @property
    def _minutes(self) -> int:
        first, after = self.moments
        return max(1, int((min(self._now, after) - first).total_seconds()) // 60)

    @cached_property
    def _series(self) -> list[Series]:
        shares, others = self.shares[:MAX_COLOURED_MODELS], self.shares[MAX_COLOURED_MODELS:]
        series = [Series(one.name, one.figures.cost_nanos, one.percent, one.look) for one in shares]
        rest = sum(one.figures.cost_nanos for one in others)
        percent = _percent_text(rest, self.figures.cost_nanos)
        return [*series, Series(_("Other"), rest, percent, OTHERS_LOOK)] if others else series

    @cached_property
    def _costs_nanos(self) -> dict[int, list[int]]:
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
            # A clock change (DST) repeats an hour; the zone's abbreviation tells both apart. Django's date formats
            # leave it empty for exactly these ambiguous times.
            label = f"{label} {at.tzname()}"
        return ChartColumn(label, date_format(at, self.unit.tick), costs, self._zoomed_url(place))

    def _zoomed_url(self, place: int) -> str:
        if self.unit.name == "hour":
            return ""
        first, after = (cut.astimezone(self.zone) for cut in self._cuts[place : place + 2])
        return self.url(period=Period(first.date(), (after - ID_RESOLUTION).date()))


def _change_percent(now: int, before: int) -> str:
    """Return `+12.4%` or `−3.0%`, or a factor like `12×` from tenfold on."""
    if not before:
        return ""
    if now >= 10 * before:
        return f"{now // before:,}\N{MULTIPLICATION SIGN}"
    permille = abs(now - before) * 1000 // before
    sign = "+" if now >= before else "\N{MINUS SIGN}"
    return f"{sign}{permille // 10}.{permille % 10}%"


def _per_minute(count: int, minutes: int) -> str:
    rate = count / minutes
    if 0 < rate < 0.01:
        return "<\N{NO-BREAK SPACE}0.01"
    return f"{rate:,.2f}" if rate < 10 else f"{rate:,.0f}"


def _percent_text(part: int, whole: int) -> str:
    return f"{part * 100 / whole:.1f}%" if whole else "0.0%"
