"""Every figure is the sum of its period's usage records, in every time zone, for every viewer and closed quarter."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.http import QueryDict
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.keys import KeyTerms, create_key, edit_key
from accounts.models import ApiKey, User
from console.dashboard.dashboard import Dashboard
from console.periods import Period
from console.usage.log import UsageLog
from console.usage.sheet import usage_sheet
from core.ids import id_at
from core.money import NANOS_PER_USD
from core.origin import acting
from quotas.charging import Call, hold, settle
from quotas.members import MemberChanges, delete_member, edit_member
from quotas.models import Wallet
from quotas.reconcile import reconcile
from tenants.models import Space
from tests.factories import MemberFactory, charge
from usage.figures import QUARTER, Figures, floor
from usage.models import QuarterMark, SpaceQuarter, UsageRecord
from usage.quarters import MARGIN, MAX_QUARTERS_PER_TRANSACTION, NotClosedError, close_quarters, close_space, reopen

pytestmark = pytest.mark.django_db

USD = NANOS_PER_USD
CENT = USD // 100
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe"]
# Clocks go back in Berlin at 01:00 UTC of this day, and in New York a week later.
AUTUMN = datetime(2026, 10, 25, tzinfo=UTC)


def spend(user: User, *, at: datetime, cost: int = CENT, status: int = 200, **call: Any) -> None:
    fields: dict[str, Any] = {"model": "a", "status": status} | call
    # `acting` is set to the id's moment, since a hold whose id is older than MIN_KEPT_DAYS is refused.
    request_id, made = id_at(at), Call(**fields)
    assert user.space_id is not None
    with acting(moment=at):
        hold(request_id=request_id, user=user, amount_nanos=max(cost, 1), call=made)
        settle(space_id=user.space_id, request_id=request_id, cost_nanos=cost, call=made)


@pytest.fixture(autouse=True)
def zone_ends() -> Iterator[None]:
    yield
    timezone.deactivate()


def look_from(zone: str) -> None:
    timezone.activate(ZoneInfo(zone))


# -- Dashboard, log, CSV and wallets agree ------------------------------------------------------------------------

EXAMPLES = count(1)
SECONDS = 4 * 24 * 3600
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["spend", "spend", "spend", "fail", "rename", "rename key", "close", "delete"]),
        st.integers(0, 3),
        st.sampled_from(["a", "b"]),
        # Often at the edge of a quarter, where one source of figures.py ends and the next begins.
        st.integers(0, SECONDS - 1) | st.integers(0, SECONDS // 900 - 1).map(lambda quarter: quarter * 900),
        st.integers(0, 3 * CENT),
        st.integers(0, 5000),
    ),
    max_size=12,
)
QUERIES = st.fixed_dictionaries(
    {
        "user": st.sampled_from(["", "", "0", "1", "first"]),
        "token": st.sampled_from(["", "", "shared", "old", "new"]),
        "model": st.sampled_from(["", "a", "b", "none"]),
        "type": st.sampled_from(["", "consume", "error"]),
    }
)


class Traffic:
    """The manager and three members with a key each, and their deeds."""

    def __init__(self, space: Space, manager: User, start: datetime) -> None:
        number = next(EXAMPLES)
        self.start = start
        self.manager = manager
        self.names = [f"p{number}.{place}" for place in range(3)]
        members = [MemberFactory.create(space=space, username=name, usd=1) for name in self.names]
        self.people = [manager, *members]
        self.keys = [create_key(owner=user, terms=KeyTerms(name=self.key("shared")))[0] for user in self.people]

    def key(self, name: str) -> str:
        """A name that no other example has."""
        return f"{name}-{self.names[0]}"

    def happen(self, deed: str, who: int, model: str, second: int, cost: int, tokens: int) -> None:
        user, key = self.people[who], self.keys[who]
        at = self.start + timedelta(seconds=second)
        if deed == "close":
            close_quarters(now=at + MARGIN)
        elif deed == "rename" and not user.is_manager and not User.everyone.get(pk=user.pk).deleted_at:
            user = User.objects.select_related("space", "wallet").get(pk=user.pk)
            edit_member(member=user, changes=MemberChanges(username=f"{user.username}x"[:60]), actor=self.manager)
        elif deed == "rename key" and ApiKey.objects.filter(pk=key.pk).exists():
            name = "old" if tokens % 2 else "new"
            self.keys[who] = edit_key(key=key, terms=KeyTerms(name=self.key(name)), actor=user)
        elif deed == "delete" and who == 3 and User.objects.filter(pk=user.pk).exists():
            member = User.objects.select_related("space", "wallet").get(pk=user.pk)
            delete_member(member=member, actor=self.manager)
        elif User.objects.filter(pk=user.pk).exists():
            known = {"key_id": self.keys[who].pk, "key_name": self.keys[who].name, "model": model}
            failed = deed == "fail"
            spend(user, at=at, cost=0 if failed else cost, status=502 if failed else 200, input_tokens=tokens,
                  output_tokens=tokens // 3, **known)  # fmt: skip


def summed(rows: list[UsageRecord]) -> Figures:
    """The sum in Python, to compare with the sums in SQL."""
    return Figures(
        sum(row.cost for row in rows),
        len(rows),
        sum(row.kind == "error" for row in rows),
        sum(row.input_tokens for row in rows),
        sum(row.output_tokens for row in rows),
    )


def listed(user: User, query: dict[str, str]) -> list[UsageRecord]:
    """All rows of all pages."""
    rows: list[UsageRecord] = []
    url = "?" + "&".join(f"{name}={value}" for name, value in query.items())
    while url:
        page = UsageLog(user, QueryDict(url.partition("?")[2])).page
        rows += page.records
        url = page.older_url
    return rows


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS, first=st.integers(-1, 4), days=st.integers(1, 4), asked=QUERIES, data=st.data())
def test_dashboard_log_rows_and_wallets_agree(
    space: Space,
    manager: User,
    events: list[Any],
    first: int,
    days: int,
    asked: dict[str, str],
    data: Any,
) -> None:
    start = AUTUMN - timedelta(days=2) + timedelta(days=20 * next(EXAMPLES))
    traffic = Traffic(space, manager, start)
    before = Wallet.objects.get(space=space, kind="pool").spent
    for event in events:
        traffic.happen(*event)

    look_from(data.draw(st.sampled_from(ZONES)))
    begin = (start + timedelta(days=first)).date()
    period = {"from": begin.isoformat(), "to": (begin + timedelta(days=days - 1)).isoformat()}
    users = {"0": traffic.names[0], "1": f"{traffic.names[1]}x", "first": "mira", "": ""}
    query = {**asked, "user": users[asked["user"]], "token": asked["token"] and traffic.key(asked["token"]), **period}

    viewers = [manager.pk, traffic.people[data.draw(st.integers(1, 2))].pk]
    for viewer in User.objects.filter(pk__in=viewers).select_related("space"):
        rows = listed(viewer, query)
        assert len({row.pk for row in rows}) == len(rows)
        log = UsageLog(viewer, QueryDict("&".join(f"{name}={value}" for name, value in query.items())))
        assert summed(rows) == summed(list(log.records)) == log.totals, query
        assert exported(log, now=start + timedelta(days=30)) == (len(rows), Decimal(log.totals.cost_nanos) / USD)
        plain = "&".join(f"{name}={value}" for name, value in period.items())
        assert_shows(Dashboard(viewer, QueryDict(plain)), listed(viewer, period))
        own = listed(viewer, {**period, "user": viewer.username})
        assert_shows(Dashboard(viewer, QueryDict(f"{plain}&scope=me")), own)
    for user in traffic.people[1:]:
        spent = UsageRecord.objects.filter(user_id=user.pk)
        assert Wallet.objects.get(user=user.pk).spent == summed(list(spent)).cost_nanos
    pool = summed(list(UsageRecord.objects.filter(user_id=manager.pk, key_id=traffic.keys[0].pk))).cost_nanos
    assert Wallet.objects.get(space=space, kind="pool").spent - before == pool
    assert reconcile(space) == []


def exported(log: UsageLog, *, now: datetime) -> tuple[int, Decimal]:
    """The number of rows of the CSV, and the sum in its last line."""
    with acting(moment=now):
        lines = list(csv.DictReader(io.StringIO("".join(usage_sheet(log)), newline="")))
    return len(lines) - 1, Decimal(lines[-1]["Cost (USD)"])


def assert_shows(dashboard: Dashboard, rows: list[UsageRecord]) -> None:
    assert dashboard.figures == summed(rows)
    assert Figures.sum_of([Figures(), *(share.figures for share in dashboard.shares)]) == dashboard.figures
    if not dashboard.figures.cost_nanos:
        return
    bars = {bar.column.label: bar.column.cost_nanos for bar in dashboard.chart.bars if bar.column.cost_nanos}
    assert bars == by_hand(rows, dashboard)
    if dashboard.is_whole_space:
        spent: dict[int, int] = {}
        for row in rows:
            spent[row.user_id] = spent.get(row.user_id, 0) + row.cost
        assert [one.cost_nanos for one in dashboard.top] == sorted(filter(None, spent.values()), reverse=True)


def by_hand(rows: list[UsageRecord], dashboard: Dashboard) -> dict[str, int]:
    """The expected cost of each bar, from each record's local time in the viewer's time zone."""
    costs: dict[str, int] = {}
    for row in rows:
        local = row.at.astimezone(dashboard.zone)
        label = f"{local:%a} {local.day} {local:%b}"
        if dashboard.unit.name == "hour":
            hour = max(row.at.replace(minute=0, second=0, microsecond=0), dashboard.moments[0])
            local = hour.astimezone(dashboard.zone)
            label = f"{local.day} {local:%b %H:%M} {local:%Z}"
        costs[label] = costs.get(label, 0) + row.cost
    return {label: cost for label, cost in costs.items() if cost}


# -- Zones --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("UTC", date(2026, 10, 25), 24),
        ("Europe/Berlin", date(2026, 10, 25), 25),
        ("Europe/Berlin", date(2026, 3, 29), 23),
        ("Asia/Kolkata", date(2026, 10, 25), 24),
        ("Australia/Lord_Howe", date(2026, 4, 5), 24.5),
        # Clock changes at midnight: one skips it, one repeats it.
        ("America/Asuncion", date(2024, 10, 6), 23),
        ("Atlantic/Azores", date(2026, 10, 25), 25),
    ],
)
def test_a_day_has_its_length_in_the_viewers_time_zone(zone: str, day: date, hours: float) -> None:
    first, after = Period(day, day).moments(ZoneInfo(zone))

    assert after - first == timedelta(hours=hours)
    assert [moment.astimezone(ZoneInfo(zone)).date() for moment in (first, after)] == [day, day + timedelta(days=1)]


def test_today_is_the_date_in_the_viewers_time_zone(manager: User) -> None:
    now = datetime(2026, 5, 13, 20, 0, tzinfo=UTC)

    seen = []
    for zone in ("America/Los_Angeles", "Asia/Kathmandu"):
        look_from(zone)
        seen.append(
            (Dashboard(manager, QueryDict("period=today"), now=now).period, UsageLog(manager, QueryDict(), now=now))
        )

    assert (
        [period.end.day for period, _log in seen] == [log.filters.period.end.day for _period, log in seen] == [13, 14]
    )


@pytest.mark.parametrize(("zone", "bars"), [("Europe/Berlin", 25), ("Asia/Kolkata", 25), ("UTC", 24)])
def test_a_day_has_a_bar_for_each_hour_and_partial_ones_at_its_ends(manager: User, zone: str, bars: int) -> None:
    look_from(zone)
    spend(manager, at=AUTUMN + timedelta(hours=2))

    chart = Dashboard(manager, QueryDict("from=2026-10-25&to=2026-10-25")).chart

    assert len(chart.bars) == bars and len({bar.column.label for bar in chart.bars}) == bars


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "America/New_York"])
def test_weeks_begin_on_the_viewers_monday(manager: User, zone: str) -> None:
    look_from(zone)
    monday = datetime(2026, 5, 11, tzinfo=ZoneInfo(zone))
    spend(manager, at=monday - timedelta(microseconds=1), cost=2 * CENT)
    spend(manager, at=monday, cost=CENT)

    chart = Dashboard(manager, QueryDict("from=2026-01-01&to=2026-12-31")).chart

    assert [(bar.column.label, bar.column.cost_nanos) for bar in chart.bars] == [
        ("4 May 2026", 2 * CENT),
        ("11 May 2026", CENT),
    ]


# -- Quarters -----------------------------------------------------------------------------------------------------


def test_a_closed_quarter_has_the_sums_of_its_rows(manager: User, member: User) -> None:
    for minute, user in ((0, manager), (14, member), (15, member)):
        spend(user, at=AUTUMN + timedelta(minutes=minute), input_tokens=10, output_tokens=3)
    spend(member, at=AUTUMN + timedelta(minutes=1), cost=0, status=502, input_tokens=7, output_tokens=1)

    closed = close_quarters(now=AUTUMN + timedelta(minutes=29) + MARGIN)

    assert closed == 1 and QuarterMark.objects.get(space=manager.space_id).through == AUTUMN + timedelta(minutes=15)
    names = ("quarter", "requests", "errors", "input_tokens", "error_input_tokens", "output_tokens", "cost")
    assert list(SpaceQuarter.objects.values_list(*names)) == [(AUTUMN, 3, 1, 27, 7, 7, 2 * CENT)]


def test_closing_again_changes_nothing(manager: User) -> None:
    spend(manager, at=AUTUMN)
    now = AUTUMN + timedelta(hours=3)

    counts = [close_quarters(now=now), close_quarters(now=now), close_quarters(now=now - timedelta(minutes=10))]

    assert counts == [1, 0, 0] and SpaceQuarter.objects.get().cost == CENT
    assert QuarterMark.objects.get(space=manager.space_id).through > AUTUMN + timedelta(hours=2)


def test_many_quarters_are_closed_in_several_transactions(manager: User) -> None:
    for number in range(MAX_QUARTERS_PER_TRANSACTION + 2):
        spend(manager, at=AUTUMN + timedelta(minutes=15 * number))

    assert close_quarters(now=AUTUMN + timedelta(days=2)) == MAX_QUARTERS_PER_TRANSACTION + 2
    assert SpaceQuarter.objects.count() == MAX_QUARTERS_PER_TRANSACTION + 2


def test_a_backdated_charge_is_counted_while_its_quarter_is_reopened_and_after(manager: User) -> None:
    query = QueryDict("from=2026-10-24&to=2026-10-26")
    spend(manager, at=AUTUMN + timedelta(hours=5))
    close_quarters(now=AUTUMN + timedelta(days=1))

    spend(manager, at=AUTUMN + timedelta(hours=1), cost=2 * CENT)
    seen = [UsageLog(manager, query).totals.cost_nanos]
    close_quarters(now=AUTUMN + timedelta(days=1))
    seen.append(UsageLog(manager, query).totals.cost_nanos)

    assert seen == [3 * CENT, 3 * CENT] and SpaceQuarter.objects.count() == 2


@pytest.mark.parametrize("ahead", [timedelta(minutes=16), timedelta(days=40)])
def test_a_worker_whose_clock_runs_ahead_closes_no_quarter_early(space: Space, manager: User, ahead: timedelta) -> None:
    with acting(moment=timezone.now() + ahead):
        close_quarters()

    charge(manager, cost_usd=0.01)

    assert QuarterMark.objects.get(space=space).through <= timezone.now() - MARGIN
    assert UsageLog(manager, QueryDict()).totals.cost_nanos == CENT and reconcile(space) == []


def test_a_worker_whose_clock_runs_ahead_makes_no_query_for_a_closed_space(space: Space, stranger: User) -> None:
    close_quarters()

    with acting(moment=timezone.now() + timedelta(days=40)), CaptureQueriesContext(connection) as queries:
        close_quarters()

    assert len(queries) == 1


def test_a_worker_whose_clock_lags_leaves_the_mark(space: Space, manager: User) -> None:
    charge(manager, cost_usd=0.01)
    close_quarters()
    through = QuarterMark.objects.get(space=space).through

    with acting(moment=timezone.now() - timedelta(days=40)):
        close_quarters()

    assert QuarterMark.objects.get(space=space).through == through


def test_a_mark_ahead_of_the_databases_clock_is_moved_back(space: Space, manager: User) -> None:
    # Before the seven days that the log shows.
    long_ago = floor(timezone.now() - timedelta(days=30), QUARTER)
    spend(manager, at=long_ago)
    close_space(space.pk, floor(timezone.now() + timedelta(days=1), QUARTER))
    charge(manager, cost_usd=0.01)
    assert [difference.figure for difference in reconcile(space)] != []

    close_quarters()

    assert QuarterMark.objects.get(space=space).through <= timezone.now() - MARGIN
    assert UsageLog(manager, QueryDict()).totals.cost_nanos == CENT and reconcile(space) == []
    assert list(SpaceQuarter.objects.values_list("quarter", flat=True)) == [long_ago]


def test_an_error_in_one_space_does_not_keep_others_from_being_closed(
    space: Space, manager: User, stranger: User
) -> None:
    long_ago = floor(timezone.now() - timedelta(days=30), QUARTER)
    for user in (manager, stranger):
        spend(user, at=long_ago)
    # A quarter beyond the mark, which the product never leaves: the unique constraint refuses the real one.
    SpaceQuarter.objects.create(space=space, model="a", quarter=long_ago)

    with pytest.raises(NotClosedError) as error:
        close_quarters()

    assert error.value.space_ids == [space.pk] and space.pk < (stranger.space_id or 0)
    assert SpaceQuarter.objects.get(space=stranger.space_id).cost == CENT
    assert not QuarterMark.objects.filter(space=space).exists()


def test_another_space_is_not_in_a_quarter(manager: User, stranger: User) -> None:
    spend(stranger, at=AUTUMN, cost=5 * CENT)
    spend(manager, at=AUTUMN)
    close_quarters(now=AUTUMN + timedelta(days=1))

    assert UsageLog(manager, QueryDict("from=2026-10-25&to=2026-10-25")).totals.cost_nanos == CENT
    reopen(space_id=manager.space_id or 0, at=AUTUMN)
    assert [quarter.space_id for quarter in SpaceQuarter.objects.all()] == [stranger.space_id]


def test_reconcile_names_a_quarter_that_is_wrong(space: Space, manager: User) -> None:
    spend(manager, at=AUTUMN)
    spend(manager, at=AUTUMN + timedelta(hours=1))
    close_quarters(now=AUTUMN + timedelta(days=1))
    assert reconcile(space) == []
    SpaceQuarter.objects.filter(quarter=AUTUMN).update(cost=CENT + 1)

    assert [str(difference) for difference in reconcile(space)] == [
        f"closed usage of a: cost is {2 * CENT + 1}, the records come to {2 * CENT}"
    ]


@pytest.fixture
def spent_by_a_late_clock(space: Space, manager: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cent in a quarter that is closed, then four cents in it from a process whose clock is a day behind."""
    spend(manager, at=AUTUMN)
    close_quarters(now=AUTUMN + timedelta(days=1))
    late = AUTUMN + timedelta(minutes=5)
    with monkeypatch.context() as patched:
        patched.setattr("core.origin.timezone.now", lambda: late)
        call = Call(model="a")
        request_id = id_at(late)
        hold(request_id=request_id, user=manager, amount_nanos=4 * CENT, call=call)
        settle(space_id=space.pk, request_id=request_id, cost_nanos=4 * CENT, call=call)


@pytest.mark.usefixtures("spent_by_a_late_clock")
def test_charges_dated_into_closed_quarters_are_counted_once_these_are_reopened(space: Space, manager: User) -> None:
    assert UsageLog(manager, QueryDict("from=2026-10-25&to=2026-10-25")).totals.cost_nanos == CENT
    assert reconcile(space) != []

    assert (
        reopened("--space", space.name.upper(), "--since", f"{AUTUMN:%Y-%m-%d}") == f"{space.name}: the books balance."
    )

    assert UsageLog(manager, QueryDict("from=2026-10-25&to=2026-10-25")).totals.cost_nanos == 5 * CENT
    close_quarters(now=AUTUMN + timedelta(days=1))
    assert SpaceQuarter.objects.get().cost == 5 * CENT and reconcile(space) == []


@pytest.mark.usefixtures("spent_by_a_late_clock")
def test_reopening_too_few_quarters_reports_what_still_differs(space: Space) -> None:
    with pytest.raises(CommandError, match=f"closed usage of a: cost is {CENT}, the records come to {5 * CENT}"):
        reopened("--space", space.name, "--since", f"{AUTUMN + timedelta(hours=12):%Y-%m-%dT%H:%M+00:00}")


@pytest.mark.parametrize("since", ["yesterday", "2026-13-45", "2026-02-30T10:00", "0001-01-01T00:00+14:00", ""])
def test_reopening_names_the_argument_that_is_wrong(space: Space, since: str) -> None:
    with pytest.raises(CommandError, match="--since"):
        reopened("--space", space.name, "--since", since)
    with pytest.raises(CommandError, match="there is no space “nowhere”"):
        reopened("--space", "nowhere", "--since", "2026-11-27")


def reopened(*arguments: str) -> str:
    output = io.StringIO()
    call_command("reopen_quarters", *arguments, stdout=output)
    return output.getvalue().strip()


def test_a_closed_space_is_summed_without_reading_its_rows(manager: User) -> None:
    spend(manager, at=AUTUMN + timedelta(hours=1))
    close_quarters(now=AUTUMN + timedelta(days=3))

    for zone in ZONES:
        look_from(zone)
        with CaptureQueriesContext(connection) as queries:
            assert UsageLog(manager, QueryDict("from=2026-10-24&to=2026-10-26")).totals.requests == 1
        assert not [query for query in queries if "usagerecord" in query["sql"] or "hourlyusage" in query["sql"]], zone


# -- Key names that several keys share ---------------------------------------------------------------------------------


def laptops(*owners: User) -> list[ApiKey]:
    return [create_key(owner=owner, terms=KeyTerms(name="laptop"))[0] for owner in owners]


def use(key: ApiKey, *, at: datetime, **call: Any) -> None:
    spend(key.user, at=at, key_id=key.pk, key_name=key.name, **call)


def seen(viewer: User, asked: str = "token=laptop") -> list[int]:
    """The costs of three days' rows in cents. Asserts that the totals are their sum."""
    query = QueryDict(f"from=2026-10-24&to=2026-10-26&{asked}")
    log = UsageLog(viewer, query)
    rows = listed(viewer, query.dict())
    assert summed(list(log.records)) == log.totals == summed(rows)
    return [row.cost // CENT for row in rows]


def test_a_renamed_key_is_found_by_its_old_and_new_name(space: Space, manager: User, member: User) -> None:
    ours, theirs = laptops(manager, member)
    other = create_key(owner=member, terms=KeyTerms(name="server"))[0]
    for number, key in enumerate((ours, theirs, other)):
        use(key, at=AUTUMN + timedelta(minutes=number), cost=10**number * CENT)
    close_quarters(now=AUTUMN + timedelta(days=3))
    assert seen(manager) == [10, 1] and seen(manager, f"token={theirs.pk}") == [10]

    edit_key(key=other, terms=KeyTerms(name="laptop"), actor=member)
    edit_key(key=theirs, terms=KeyTerms(name="server"), actor=member)

    assert seen(manager) == [100, 10, 1] and seen(manager, "token=server") == [100, 10]
    assert seen(manager, f"token=laptop&user={member.username}") == seen(member) == [100, 10]
    assert seen(manager, f"token={theirs.pk}") == seen(member, f"token={theirs.pk}") == [10]


def test_a_name_of_too_many_keys_finds_the_newest_and_the_page_says_so(
    monkeypatch: pytest.MonkeyPatch, client: Client, manager: User, member: User, stranger: User
) -> None:
    monkeypatch.setattr("console.token_filter.MAX_KEYS_OF_A_NAME", 1)
    for number, key in enumerate(laptops(manager, member, stranger)):
        use(key, at=AUTUMN + timedelta(minutes=number), cost=10**number * CENT)
    client.force_login(manager)

    assert seen(manager) == [10] and seen(manager, "token=laptop&user=mira") == [1]
    page = client.get("/console/usage/", {"token": "laptop"}).content.decode()
    file = "".join(usage_sheet(UsageLog(manager, QueryDict("token=laptop"))))
    tasks = client.get("/console/tasks/", {"token": "laptop"}).content.decode()
    note = "More than 1 tokens are called “laptop”: these are requests of the newest 1."
    assert note in page and note in file and note in tasks
    assert note not in client.get("/console/usage/", {"token": "laptop", "user": "mira"}).content.decode()


# -- Top spenders -------------------------------------------------------------------------------------------------


def test_top_spenders_are_right_when_others_spent_more_before_the_period(space: Space, manager: User) -> None:
    people = [MemberFactory.create(space=space, usd=9) for _ in range(12)]
    for place, user in enumerate(people):
        spend(user, at=AUTUMN - timedelta(days=40), cost=(12 - place) * 10 * CENT)
        spend(user, at=AUTUMN, cost=(place + 1) * CENT)

    top = Dashboard(manager, QueryDict("from=2026-10-25&to=2026-10-25")).top

    assert [one.cost_nanos // CENT for one in top] == [12, 11, 10, 9, 8, 7, 6]
