from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from django.db import connection
from django.http import QueryDict
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.html import escape
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.models import User
from console.dashboard.chart import BASE_PX, TOP_PX, ChartColumn, Series, stacked
from console.dashboard.dashboard import Dashboard
from console.usage.log import UsageLog
from core.ids import id_at, new_id
from core.money import NANOS_PER_USD
from core.origin import acting
from quotas.charging import Call, hold, release, settle
from quotas.members import delete_member
from quotas.models import Wallet
from quotas.services import set_remaining
from tenants.models import Space
from tests.factories import MemberFactory

pytestmark = pytest.mark.django_db

USD = NANOS_PER_USD
CENT = USD // 100
# A Wednesday, so that weeks begin before and end after it.
NOW = datetime(2026, 5, 13, 15, 30, tzinfo=UTC)
ALL = "from=2026-01-01&to=2026-12-31"


def spend(user: User, *, cost: int = CENT, at: datetime | None = None, model: str = "gpt-4o-mini", **call: Any) -> None:
    moment = at or datetime.now(UTC)
    # hold() refuses an id whose timestamp is older than MIN_KEPT_DAYS, so the id gets the time of the request.
    request_id, made = id_at(moment), Call(model=model, **call)
    assert user.space_id is not None
    with acting(moment=moment):
        hold(request_id=request_id, user=user, amount_nanos=max(cost, 1), call=made)
        settle(space_id=user.space_id, request_id=request_id, cost_nanos=cost, call=made)


def fail(user: User, *, at: datetime) -> None:
    request_id, call = id_at(at), Call(model="gpt-4o-mini", status=502, code="upstream_error")
    assert user.space_id is not None
    with acting(moment=at):
        hold(request_id=request_id, user=user, amount_nanos=1000, call=call)
        release(space_id=user.space_id, request_id=request_id, call=call)


def shown(user: User, query: str = "", *, now: datetime = NOW) -> Dashboard:
    return Dashboard(User.objects.select_related("space").get(pk=user.pk), QueryDict(query), now=now)


def page(client: Client, user: User, query: str = "", **headers: str) -> tuple[Any, str]:
    client.force_login(user, backend="accounts.backends.LivingUserBackend")
    response = client.get(f"/console/{query}", headers=headers)
    return response, " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def look_at_members(client: Client, user: User, query: str = "") -> tuple[Any, str]:
    """Request the piece with figures per member, which the dashboard loads lazily."""
    return page(client, user, f"members/{query}", **{"HX-Request": "true", "HX-Target": "attention"})


# -- Agreement with the log and the wallets -----------------------------------------------------------------------

# All Hypothesis examples of a test share one database, so each uses days of its own.
EXAMPLES = count(1)
TRAFFIC = st.lists(
    st.tuples(
        st.sampled_from(["mira", "amara", "jun"]),
        st.sampled_from(["gpt-4o-mini", "claude", "gemini", "llama", "qwen", "mistral"]),
        # Often the seconds around midnight, where an error in the boundary of a day shows.
        st.integers(0, 3 * 24 * 3600 - 1) | st.integers(24 * 3600 - 2, 24 * 3600 + 2),
        st.integers(0, 3 * CENT),
        st.integers(0, 5000),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(traffic=TRAFFIC, first=st.integers(0, 2), days=st.integers(1, 3))
def test_dashboard_and_log_and_wallets_agree(
    space: Space, manager: User, admin_member: User, member: User, traffic: list[Any], first: int, days: int
) -> None:
    people = {user.username: user for user in (manager, admin_member, member)}
    set_remaining(member=member, remaining_nanos=50 * USD, actor=manager)
    before = {name: wallet_of(user).spent for name, user in people.items()}
    start = datetime(2026, 5, 11, tzinfo=UTC) + timedelta(days=100 * next(EXAMPLES))
    for name, model, second, cost, tokens in traffic:
        moment = start + timedelta(seconds=second)
        spend(people[name], cost=cost, at=moment, model=model, input_tokens=tokens, output_tokens=tokens // 3)

    query = f"from={start + timedelta(days=first):%Y-%m-%d}&to={start + timedelta(days=first + days - 1):%Y-%m-%d}"
    for user in people.values():
        assert_agrees(shown(user, query), UsageLog(user, QueryDict(query), now=NOW))
        own = UsageLog(user, QueryDict(f"{query}&user={user.username}"), now=NOW)
        assert_agrees(shown(user, f"{query}&scope=me"), own)
        whole = shown(user, f"from={start:%Y-%m-%d}&to={start + timedelta(days=2):%Y-%m-%d}&scope=me")
        assert whole.figures.cost_nanos == wallet_of(user).spent - before[user.username]


def wallet_of(user: User) -> Wallet:
    if user.is_manager:
        return Wallet.objects.get(space=user.space_id, kind="pool")
    return Wallet.objects.get(user=user)


def assert_agrees(dashboard: Dashboard, log: UsageLog) -> None:
    figures, totals = dashboard.figures, log.totals
    assert (figures.requests, figures.input_tokens, figures.output_tokens, figures.cost_nanos) == (
        totals.requests,
        totals.input_tokens,
        totals.output_tokens,
        totals.cost_nanos,
    )
    assert sum(share.figures.cost_nanos for share in dashboard.shares) == totals.cost_nanos
    if totals.cost_nanos:
        assert sum(bar.column.cost_nanos for bar in dashboard.chart.bars) == totals.cost_nanos
        assert sum(series.cost_nanos for series in dashboard.chart.series) == totals.cost_nanos
        assert sum(one.cost_nanos for one in dashboard.top) + dashboard.others_nanos == totals.cost_nanos


# -- Who sees what ------------------------------------------------------------------------------------------------


def test_managers_and_admins_choose_between_the_space_and_themselves(
    manager: User, admin_member: User, member: User, stranger: User
) -> None:
    for cents, user in enumerate((manager, admin_member, member, stranger), start=1):
        spend(user, cost=cents * CENT, at=NOW)

    assert [shown(user).figures.cost_nanos for user in (manager, admin_member)] == [6 * CENT, 6 * CENT]
    assert [shown(user, "scope=me").figures.cost_nanos for user in (manager, admin_member)] == [CENT, 2 * CENT]


@pytest.mark.parametrize("query", ["", "?scope=space", "?scope=me", "?scope="])
def test_a_normal_user_sees_their_own_alone(client: Client, manager: User, member: User, query: str) -> None:
    spend(manager, cost=7 * CENT, model="managers-model")
    spend(member, cost=2 * CENT)

    response, text = page(client, member, query)

    assert response.context["dashboard"].figures.cost_nanos == 2 * CENT
    assert "managers-model" not in text and "mira" not in text
    assert "Top members" not in text and "Needs your attention" not in text and "The space" not in text
    assert "Remaining $4.98 of $5.00 total" in text


def test_a_manager_sees_the_pool_and_who_spends(client: Client, manager: User, member: User) -> None:
    spend(member, cost=25 * CENT, model="<b>x</b>")

    response, text = page(client, manager)

    assert "Available $495.00 of $500.00 total" in text and "Spent today $0.25 $0.25 this month" in text
    assert "Top members" in text and 'hx-get="/console/members/"' in response.content.decode()
    assert "&lt;b&gt;x" in response.content.decode() and "<b>x</b>" not in response.content.decode()
    assert 'aria-current="page"' in response.content.decode()


def test_deleted_members_stay_among_the_top(manager: User, member: User, admin_member: User) -> None:
    spend(member, cost=3 * CENT, at=NOW)
    spend(admin_member, cost=CENT, at=NOW)
    delete_member(member=member, actor=manager)

    assert [(one.user.username, one.cost_nanos) for one in shown(manager).top] == [
        ("jun", 3 * CENT),
        ("amara", CENT),
    ]


def test_members_beyond_the_top_are_summed_up(space: Space, manager: User) -> None:
    for cents in range(1, 10):
        spend(MemberFactory.create(space=space, usd=1), cost=cents * CENT, at=NOW)

    dashboard = shown(manager)

    assert [one.cost_nanos // CENT for one in dashboard.top] == [9, 8, 7, 6, 5, 4, 3]
    assert dashboard.others_nanos == 3 * CENT


# -- Periods ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ("", date(2026, 5, 7), date(2026, 5, 13)),
        ("period=today", date(2026, 5, 13), date(2026, 5, 13)),
        ("period=30d", date(2026, 4, 14), date(2026, 5, 13)),
        ("period=month", date(2026, 5, 1), date(2026, 5, 13)),
        ("period=year", date(2026, 5, 7), date(2026, 5, 13)),
        ("period=today&from=2026-01-02&to=2026-01-05", date(2026, 1, 2), date(2026, 1, 5)),
        ("from=nonsense", date(2026, 5, 7), date(2026, 5, 13)),
    ],
)
def test_the_address_names_the_period(manager: User, query: str, start: date, end: date) -> None:
    dashboard = shown(manager, query)

    assert dashboard.period == (start, end)
    assert shown(manager, dashboard.shown_url.partition("?")[2]).period == (start, end)


@pytest.mark.parametrize("query", ["from=9999-12-31", "from=1970-01-01&to=9999-12-31", "to=1970-01-01"])
def test_a_period_at_the_ends_of_the_calendar_is_answered(client: Client, manager: User, query: str) -> None:
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")

    assert client.get(f"/console/?{query}").status_code == 200


def test_links_change_one_thing_and_keep_the_rest(manager: User, member: User) -> None:
    dashboard = shown(manager, "scope=me&period=30d")

    assert [link.url for link in dashboard.periods] == [
        "/console/?scope=me&period=today",
        "/console/?scope=me",
        "/console/?scope=me&period=30d",
        "/console/?scope=me&period=month",
    ]
    assert [(link.url, link.is_current) for link in dashboard.scopes] == [
        ("/console/?period=30d", False),
        ("/console/?scope=me&period=30d", True),
    ]
    assert dashboard.log_url == "/console/usage/?from=2026-04-14&to=2026-05-13&user=mira"
    assert shown(member, "scope=me").shown_url == "/console/" and shown(member).scopes == []


@pytest.mark.parametrize(
    ("query", "bars", "title"),
    [
        ("period=today", 24, "Spend per hour"),
        ("", 7, "Spend per day"),
        ("period=30d", 30, "Spend per day"),
        ("from=2026-02-01&to=2026-05-13", 3, "Spend per week"),
        ("from=1970-01-01&to=9999-12-30", 3, "Spend per week"),
    ],
)
def test_bars_are_hours_days_or_weeks(manager: User, query: str, bars: int, title: str) -> None:
    spend(manager, at=NOW)
    spend(manager, at=NOW - timedelta(days=14))

    dashboard = shown(manager, query)

    assert (len(dashboard.chart.bars), dashboard.unit.title) == (bars, title)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/New_York"])
def test_a_bar_links_to_its_period_in_smaller_bars(manager: User, zone: str) -> None:
    """A week links to its days and a day to its hours, with the same scope, zone and cost."""
    for hours in (0, 5, 30, 40 * 24):
        spend(manager, cost=(hours + 1) * CENT, at=NOW - timedelta(hours=hours))

    with timezone.override(zone):
        for query, unit in (("scope=me&from=2026-02-01&to=2026-05-13", "day"), ("scope=me&period=30d", "hour")):
            bars = [bar.column for bar in shown(manager, query).chart.bars]
            for column in bars:
                closer = shown(manager, column.url.partition("?")[2])
                assert (closer.unit.name, closer.figures.cost_nanos) == (unit, column.cost_nanos)
                assert not closer.is_whole_space
            assert any(column.cost_nanos for column in bars)
        assert not any(bar.column.url for bar in shown(manager, "period=today").chart.bars)


def test_the_table_of_the_chart_links_to_the_period_of_each_bar(client: Client, manager: User) -> None:
    spend(manager, at=NOW)
    weeks = [bar.column.url for bar in shown(manager, "from=2026-02-01&to=2026-05-13").chart.bars]

    response, _text = page(client, manager, "?from=2026-02-01&to=2026-05-13")

    assert weeks and all(f'href="{escape(url)}"' in response.content.decode() for url in weeks)


def test_today_and_this_month_do_not_depend_on_the_period(manager: User) -> None:
    spend(manager, cost=CENT, at=NOW)
    spend(manager, cost=2 * CENT, at=datetime(2026, 5, 1, tzinfo=UTC))
    spend(manager, cost=4 * CENT, at=datetime(2026, 4, 30, 23, 59, 59, tzinfo=UTC))

    dashboard = shown(manager, "from=2026-04-30&to=2026-04-30")

    assert dashboard.figures.cost_nanos == 4 * CENT
    assert dashboard.recent == (CENT, 3 * CENT, CENT)


@pytest.mark.parametrize(
    ("before", "now", "percent"),
    [
        (0, 5, ""),
        (4, 5, "+25.0%"),
        (5, 4, "\N{MINUS SIGN}20.0%"),
        (5, 5, "+0.0%"),
        (1, 25, "25\N{MULTIPLICATION SIGN}"),
    ],
)
def test_spend_is_compared_with_the_preceding_period_of_equal_length(
    manager: User, before: int, now: int, percent: str
) -> None:
    if now:
        spend(manager, cost=now * CENT, at=NOW)
    if before:
        spend(manager, cost=before * CENT, at=NOW - timedelta(days=7, minutes=1))
    # Outside of the comparison: a week ago at a later time of day than now, and before the preceding period.
    spend(manager, cost=CENT, at=NOW - timedelta(days=7) + timedelta(minutes=1))
    spend(manager, cost=CENT, at=NOW.replace(hour=0, minute=0) - timedelta(days=13, microseconds=1))

    assert shown(manager).change == (percent, 7)


def test_averages_count_only_the_minutes_that_have_passed(manager: User) -> None:
    spend(manager, at=NOW, input_tokens=20_000, output_tokens=3250)

    dashboard = shown(manager, "period=today")

    assert (dashboard.requests_per_minute, dashboard.tokens_per_minute) == ("<\N{NO-BREAK SPACE}0.01", "25")


def test_the_success_rate_counts_failures(manager: User) -> None:
    for _ in range(3):
        spend(manager, at=NOW)
    fail(manager, at=NOW)

    assert shown(manager).succeeded_percent == "75.0%"


# -- Chart --------------------------------------------------------------------------------------------------------


def test_requests_without_a_model_are_listed_as_unknown_model(client: Client, manager: User) -> None:
    spend(manager)
    spend(manager, cost=0, model="")

    text = page(client, manager)[1]

    assert text.count("Unknown model") == 4


def test_four_models_have_colours_and_the_rest_share_one(manager: User) -> None:
    for cents in range(1, 7):
        spend(manager, cost=cents * CENT, at=NOW, model=f"m{cents}")

    dashboard = shown(manager)

    assert [(one.name, one.cost_nanos // CENT, one.look) for one in dashboard.chart.series] == [
        ("m6", 6, 1),
        ("m5", 5, 2),
        ("m4", 4, 3),
        ("m3", 3, 4),
        ("Other", 3, 5),
    ]
    assert [share.percent for share in dashboard.shares] == ["28.6%", "23.8%", "19.0%", "14.3%", "9.5%", "4.8%"]


@given(costs=st.lists(st.integers(0, 10**18), min_size=1, max_size=40).filter(any))
def test_no_bar_is_higher_than_the_axis(costs: list[int]) -> None:
    chart = stacked([Series("m", sum(costs), "100%", 1)], [ChartColumn("", "", [cost]) for cost in costs])

    assert all(TOP_PX <= float(block.y) <= BASE_PX for bar in chart.bars for block in bar.blocks)
    assert [float(line.y) for line in chart.lines] == [22, 72, 122, 172, 222]
    assert sum(bar.tick is not None for bar in chart.bars) <= 6


@pytest.mark.parametrize(
    ("highest", "labels"),
    [
        (748 * CENT, ["$8", "$6", "$4", "$2", "$0"]),
        (CENT, ["$0.01", "$0.0075", "$0.005", "$0.0025", "$0"]),
        (4_100 * USD, ["$8,000", "$6,000", "$4,000", "$2,000", "$0"]),
    ],
)
def test_the_axis_has_round_figures(highest: int, labels: list[str]) -> None:
    chart = stacked([Series("m", highest, "100%", 1)], [ChartColumn("", "", [highest])])

    assert [line.label for line in chart.lines] == labels


def test_a_space_without_usage_says_so(client: Client, manager: User) -> None:
    text = page(client, manager)[1]

    assert "Nothing was spent in this period" in text and "Show as a table" not in text
    assert "Spend $0.00 Nothing in the 7 days before" in text
    _, members = look_at_members(client, manager)
    assert (
        "Nothing spent lately" in members
        and "Nothing was spent in the last 7 days, so there is no estimate." in members
    )
    assert "Top members" not in members and "Needs your attention" not in members


# -- Runway and alerts --------------------------------------------------------------------------------------------


def test_the_runway_is_what_is_left_divided_by_the_pace_of_seven_days(manager: User, member: User) -> None:
    spend(member, cost=70 * CENT, at=NOW - timedelta(days=7) + timedelta(hours=1))
    spend(member, cost=70 * CENT, at=NOW - timedelta(days=8))

    whole, own = shown(manager).runway, shown(member).runway

    assert (whole.left_nanos, whole.per_day_nanos, whole.days) == (49_860 * CENT, 10 * CENT, 4986)
    assert (own.left_nanos, own.per_day_nanos, own.days) == (360 * CENT, 10 * CENT, 36)
    assert shown(manager, "scope=me").runway.days is None


@pytest.mark.parametrize(
    ("cents", "words"),
    [
        (500, "Nothing left"),
        (490, "Lasts less than a day"),
        (430, "Lasts about 1 day "),
        (100, "Lasts about 28 days"),
        (1, "Lasts over a year"),
    ],
)
def test_the_runway_is_shown_in_words(client: Client, member: User, cents: int, words: str) -> None:
    spend(member, cost=cents * CENT, at=datetime.now(UTC))

    text = page(client, member)[1]

    assert f"of $5.00 total {words}" in text and "a day, the average of the last 7 days" in text


def test_members_who_are_nearly_out_are_named(
    client: Client, space: Space, manager: User, admin_member: User, member: User
) -> None:
    fine = MemberFactory.create(space=space, username="fine", usd=5)
    spend(fine, cost=4 * USD)
    spend(member, cost=4 * USD + 1)
    off = MemberFactory.create(space=space, username="off", usd=1)
    spend(off, cost=USD)
    User.objects.filter(pk=off.pk).update(is_active=False)
    MemberFactory.create(space=space, username="new")
    spend(admin_member, cost=80 * USD)
    set_remaining(member=admin_member, remaining_nanos=0, actor=manager)

    response, text = look_at_members(client, manager)

    nearly_out = response.context["dashboard"].nearly_out
    assert [one.wallet.user.username for one in nearly_out] == ["amara", "jun"]
    assert "Used up amara has $0.00 of $80.00 left" in text
    assert "Low jun has $0.99 of $5.00 left Lasts about 1 day" in text
    assert f'href="/space/users/{member.number}/edit/"' in response.content.decode()
    assert "members/" not in page(client, manager, "?scope=me")[0].content.decode()


def test_more_errors_than_usual_raise_an_alert(client: Client, manager: User) -> None:
    now = datetime.now(UTC)
    for _ in range(80):
        spend(manager, at=now - timedelta(days=2))
    for _ in range(19):
        fail(manager, at=now)
    assert "failed" not in look_at_members(client, manager)[1]
    fail(manager, at=now)

    response, text = look_at_members(client, manager)

    today = now.date().isoformat()
    assert "Errors 100% of today’s requests failed (20 of 20), far more than in the last 7 days" in text
    assert f"/console/usage/?from={today}&amp;to={today}&amp;type=error" in response.content.decode()


def test_as_many_errors_as_usual_raise_no_alert(manager: User) -> None:
    for days in range(3):
        for _ in range(20):
            fail(manager, at=NOW - timedelta(days=days))

    assert shown(manager).failures is None


# -- Queries and htmx ---------------------------------------------------------------------------------------------


def test_the_number_of_queries_does_not_depend_on_the_data(client: Client, space: Space, manager: User) -> None:
    counts = []
    for rows in (1, 2, 20):
        for _ in range(rows):
            spend(MemberFactory.create(space=space, usd=1), cost=90 * CENT, model=f"model-{new_id()}")
        client.force_login(manager, backend="accounts.backends.LivingUserBackend")
        client.get("/console/tasks/")
        with CaptureQueriesContext(connection) as queries:
            assert client.get("/console/").status_code == 200
        counts.append(len(queries))

    assert counts[0] == counts[1] == counts[2] <= 16


def test_htmx_gets_only_the_figures_and_the_url(client: Client, manager: User) -> None:
    spend(manager)

    headers = {"HX-Request": "true", "HX-Target": "dashboard"}
    response, _ = page(client, manager, "?from=&to=2026-05-01&scope=space", **headers)

    text = response.content.decode()
    assert response["HX-Push-Url"] == "/console/?from=2026-04-25&to=2026-05-01"
    assert "<html" not in text and 'id="dashboard-choices" hx-swap-oob="true"' in text
    assert "no-store" in response["Cache-Control"]
