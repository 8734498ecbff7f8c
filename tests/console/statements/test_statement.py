"""Monthly statements: their balances equal the replayed rows, for random traffic and in several time zones."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.keys import KeyTerms, create_key
from accounts.models import User
from console.statements.sheet import MemberSheet
from core.errors import QuotaError
from core.ids import id_at, new_id
from core.money import NANOS_PER_USD as USD
from core.origin import acting
from quotas.charging import Call, expire_holds, hold, renew, settle
from quotas.members import delete_member
from quotas.models import Hold, Transfer
from quotas.services import grant, revoke, set_remaining
from quotas.statement import MAX_LISTED_TRANSFERS, Balance, member_lines, member_statement, space_statement
from quotas.statement_reader import StatementMonth, charge_cutoff, snapshot
from tenants.models import Space
from tests.factories import MemberFactory, SpaceFactory, charge, manager_of
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db

Kind = Transfer.Kind
ZONES = ["UTC", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "Pacific/Kiritimati", "Europe/Berlin"]
OCTOBER, NOVEMBER = ("2026-10", "2026-11")


def page(client: Client, user: User, path: str = "/me/statement/", **query: str) -> tuple[Any, str]:
    client.force_login(user, backend="accounts.backends.LivingUserBackend")
    response = client.get(path, query)
    return response, " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def table(client: Client, user: User, path: str, **query: str) -> list[dict[str, str]]:
    client.force_login(user, backend="accounts.backends.LivingUserBackend")
    response: Any = client.get(path, query)
    written = b"".join(response.streaming_content).decode()
    return list(csv.DictReader(io.StringIO(written, newline="")))


def cells(client: Client, user: User, path: str) -> list[dict[str, str]]:
    """Return the lines of the CSV variant for spreadsheet programs."""
    client.force_login(user, backend="accounts.backends.LivingUserBackend")
    written = client.get(path, {"bom": "1"}).getvalue().decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(written, newline="")))


def spend(user: User, at: datetime, cost: int, **call: Any) -> None:
    request_id, made = id_at(at), Call(**{"model": "gpt-4o-mini"} | call)
    assert user.space_id is not None
    with acting(moment=at):
        hold(request_id=request_id, user=user, amount_nanos=cost, call=made)
        settle(space_id=user.space_id, request_id=request_id, cost_nanos=cost, call=made)


def founded(at: datetime, usd: int = 100) -> tuple[Space, User]:
    with acting(moment=at):
        space = SpaceFactory.create(grant_usd=usd)
    User.everyone.filter(space=space).update(created_at=at)
    return space, manager_of(space)


def joined(space: Space, at: datetime, nanos: int = 0) -> User:
    member = MemberFactory.create(space=space)
    User.everyone.filter(pk=member.pk).update(created_at=at)
    if nanos:
        with acting(moment=at):
            set_remaining(member=member, remaining_nanos=nanos, actor=manager_of(space))
    return User.objects.select_related("space").get(pk=member.pk)


# -- Random traffic -----------------------------------------------------------------------------------------------

# Times around the start of October, November and December in every time zone.
EDGES = [datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)]
MOMENTS = st.builds(
    lambda edge, minutes: edge + timedelta(minutes=minutes), st.sampled_from(EDGES), st.integers(-16 * 60, 16 * 60)
)
DEEDS = st.sampled_from(
    ["grant", "revoke", "set", "set", "spend", "spend", "spend", "hold", "sweep", "late", "delete", "delete_in_flight"]
)
STORIES = st.lists(st.tuples(MOMENTS, DEEDS, st.integers(0, 3), st.integers(1, 10**12)), min_size=5, max_size=20)


class Story:
    """A space in which random deeds are done in chronological order."""

    def __init__(self) -> None:
        self.space, self.manager = founded(EDGES[0] - timedelta(days=40))
        self.members = [joined(self.space, EDGES[0] - timedelta(days=40), USD * n) for n in (1, 5, 7)]
        self.requests: list[Any] = []

    def live(self, deeds: list[tuple[datetime, str, int, int]]) -> None:
        for at, deed, which, amount in sorted(deeds, key=lambda one: one[0]):
            with acting(moment=at):
                try:
                    with transaction.atomic():
                        getattr(self, f"_{deed}")(which, amount, at)
                except QuotaError:
                    continue

    def _grant(self, _which: int, amount: int, _at: datetime) -> None:
        grant(space=self.space, amount_nanos=amount, reason="", actor=None)

    def _revoke(self, _which: int, amount: int, _at: datetime) -> None:
        revoke(space=self.space, amount_nanos=amount % USD + 1, reason="", actor=None)

    def _set(self, which: int, amount: int, _at: datetime) -> None:
        if self.members:
            member = self.members[which % len(self.members)]
            set_remaining(member=member, remaining_nanos=amount % (9 * USD), actor=self.manager)

    def _spend(self, which: int, amount: int, at: datetime) -> None:
        request_id = self._held(which, amount)
        settle(space_id=self.space.pk, request_id=request_id, cost_nanos=amount % USD, call=Call(model="m"))

    def _hold(self, which: int, amount: int, _at: datetime) -> None:
        request_id = self._held(which, amount)
        renew(space_id=self.space.pk, request_id=request_id, delivered_bytes=0, accrued_nanos=amount % USD // 3)
        self.requests.append(request_id)

    def _held(self, which: int, amount: int) -> Any:
        people = [self.manager, *self.members]
        request_id = new_id()
        user = people[which % len(people)]
        hold(request_id=request_id, user=user, amount_nanos=amount % USD + 1, call=Call(model=f"m{which}"))
        return request_id

    def _sweep(self, _which: int, _amount: int, at: datetime) -> None:
        expire_holds(now=at)

    def _late(self, which: int, amount: int, _at: datetime) -> None:
        if self.requests:
            request_id = self.requests[which % len(self.requests)]
            settle(space_id=self.space.pk, request_id=request_id, cost_nanos=amount % USD, call=Call(model="m"))

    def _delete(self, which: int, _amount: int, at: datetime) -> None:
        if len(self.members) > 1:
            member = self.members.pop(which % len(self.members))
            delete_member(member=member, actor=self.manager)
            User.everyone.filter(pk=member.pk).update(deleted_at=at)

    def _delete_in_flight(self, which: int, amount: int, at: datetime) -> None:
        if len(self.members) > 1:
            self._hold(1 + which % len(self.members), amount, at)
            self._delete(which % len(self.members), amount, at)


def replayed(space: Space, person: User | None, at: datetime) -> int:
    """Return what the wallet of `person`, or the pool for None, had left at a time, by summing every earlier row."""
    left = 0
    for move in Transfer.objects.filter(space=space):
        if move.at >= at:
            continue
        if person is None:
            left += move.amount if move.kind in (Kind.GRANT, Kind.RECLAIM, Kind.RETURN) else -move.amount
        elif move.member_number == person.number:
            left += move.amount if move.kind == Kind.ALLOCATE else -move.amount
    user_id = person.pk if person else manager_of(space).pk
    return left - sum(row.cost for row in UsageRecord.objects.filter(space=space, user_id=user_id) if row.at < at)


def check_month(space: Space, month: StatementMonth) -> None:
    statement = space_statement(space, month, max_members=None)
    assert statement.pool.opening_nanos == replayed(space, None, month.start)
    assert statement.pool.closing_nanos == replayed(space, None, month.end)
    told = {line.member.pk: line.balance for line in statement.lines}
    for person in User.everyone.filter(space=space, number__gt=1):
        expected = (replayed(space, person, month.start), replayed(space, person, month.end))
        balance = told.get(person.pk, Balance())
        assert (balance.opening_nanos, balance.closing_nanos) == expected
    rows = [row for row in UsageRecord.objects.filter(space=space) if month.start <= row.at < month.end]
    assert statement.combined.spent_nanos == sum(row.cost for row in rows)
    assert sum(requests for _model, requests, _cost in statement.by_model) == len(rows)
    assert statement.opening.total_nanos == total_in_the_journal(space, month.start)
    assert statement.closing.total_nanos == total_in_the_journal(space, month.end)


def total_in_the_journal(space: Space, at: datetime) -> int:
    """Return grants minus take-backs of operators before a time."""
    signs = {Kind.GRANT: 1, Kind.REVOKE: -1}
    return sum(
        signs.get(Kind(move.kind), 0) * move.amount for move in Transfer.objects.filter(space=space) if move.at < at
    )


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(deeds=STORIES, zone=st.sampled_from(ZONES))
def test_every_balance_equals_the_replayed_rows(db: None, deeds: list[Any], zone: str) -> None:
    with transaction.atomic(), timezone.override(ZoneInfo(zone)):
        story = Story()
        story.live(deeds)
        months = [StatementMonth.of(name) for name in ("2026-09", OCTOBER, NOVEMBER, "2026-12")]
        for month in months:
            check_month(story.space, month)
        statements = [space_statement(story.space, month) for month in months]
        for earlier, later in pairwise(statements):
            assert earlier.combined.closing_nanos == later.combined.opening_nanos
            assert earlier.closing == later.opening
        transaction.set_rollback(True)


# -- Months and zones ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "start", "end"),
    [
        ("UTC", "2026-10-01T00:00+00:00", "2026-11-01T00:00+00:00"),
        ("Asia/Kolkata", "2026-09-30T18:30+00:00", "2026-10-31T18:30+00:00"),
        ("Europe/Berlin", "2026-09-30T22:00+00:00", "2026-10-31T23:00+00:00"),
    ],
)
def test_a_month_is_in_the_viewers_time_zone(zone: str, start: str, end: str) -> None:
    with timezone.override(ZoneInfo(zone)):
        month = StatementMonth.of(OCTOBER)

    assert (month.start, month.end) == (datetime.fromisoformat(start), datetime.fromisoformat(end))
    assert (str(month.previous), str(month.next)) == ("2026-09", NOVEMBER)
    assert (
        str(StatementMonth.of("2026-12").next) == "2027-01" and str(StatementMonth.of("2026-01").previous) == "2025-12"
    )


def test_a_month_that_starts_within_an_hour_is_split_by_rows(db: None) -> None:
    space, _manager = founded(datetime(2026, 9, 1, tzinfo=UTC))
    member = joined(space, datetime(2026, 9, 2, tzinfo=UTC), 10 * USD)
    for minute, cost in ((29, 1), (30, 20), (59, 300)):
        spend(member, datetime(2026, 9, 30, 18, minute, tzinfo=UTC), cost)

    with timezone.override(ZoneInfo("Asia/Kolkata")):
        september = member_lines(space, [member], StatementMonth.of("2026-09"))[0].balance
        october = member_lines(space, [member], StatementMonth.of(OCTOBER))[0].balance

    assert (september.spent_nanos, october.spent_nanos) == (1, 320)
    assert september.closing_nanos == october.opening_nanos == 10 * USD - 1


@pytest.mark.parametrize("text", ["", "2026-13", "0001-01", "9999-12", "x", "٢٠٢٦-10", "2026-10-01", "\0"])
def test_an_invalid_month_shows_the_current_one(client: Client, manager: User, member: User, text: str) -> None:
    now = datetime.now(UTC)
    for user in (manager, member):
        response, _ = page(client, user, month=text)
        assert str(response.context["month"]) == f"{now:%Y-%m}"


# -- Pages and files ----------------------------------------------------------------------------------------------


def test_a_members_statement_shows_each_step(client: Client, manager: User, member: User) -> None:
    key = create_key(owner=member, terms=KeyTerms(name="laptop"))[0]
    spend(member, datetime.now(UTC), 425_000, key_id=key.pk, key_name=key.name)
    charge(member, cost_usd=1.25)
    set_remaining(member=member, remaining_nanos=2 * USD, actor=manager)

    text = page(client, member)[1]

    assert "Opening balance $0.000000 Received $5.000000" in text
    assert "Reclaimed −$1.749575 Returned to the pool $0.000000 Charges −$1.250425 Closing balance $2.000000" in text
    assert "gpt-4o-mini 2 $1.250425" in text
    assert "Without a token 1 $1.250000" in text and "laptop 1 $0.000425" in text
    assert "Received mira +$5.00" in text and "Reclaimed mira −$1.749575" in text
    assert "in flight" not in text


def test_holds_in_flight_are_shown_separately(client: Client, manager: User, member: User) -> None:
    hold(request_id=new_id(), user=member, amount_nanos=USD // 4, call=Call(model="m"))

    for user in (member, manager):
        text = page(client, user)[1]
        assert "Of this, $0.25 is in flight now" in text
    assert "in flight" not in page(client, member, month="2026-01")[1]


def test_a_spaces_statement_shows_pool_members_and_both(client: Client, manager: User, member: User) -> None:
    charge(member, cost_usd=1)
    charge(manager, cost_usd=2)
    delete_member(member=member, actor=manager)

    text = page(client, manager)[1]

    assert "Top-up $500.00 $0.00 $500.00" in text
    assert "Allocated to members −$5.00 $5.00 $0.00" in text
    assert "Returned of deleted users $4.00 −$4.00 $0.00" in text
    assert "Charges −$2.00 −$1.00 −$3.00 Closing balance $497.00 $0.00 $497.00" in text
    assert "jun Deleted $0.00 $5.00 −$4.00 −$1.00 $0.00" in text
    assert "Left in the pool $0.00 $497.00" in text


def test_a_page_of_members_links_to_the_next(client: Client, manager: User, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [MemberFactory.create(space=manager.space, usd=1) for _ in range(51)]

    response, _ = page(client, manager)
    after = response.context["of_space"].statement.next_after
    rest, _ = page(client, manager, after=str(after))

    assert [line.member for line in response.context["of_space"].statement.lines] == members[:50]
    assert [line.member for line in rest.context["of_space"].statement.lines] == members[50:]
    assert rest.context["of_space"].statement.next_after is None


@pytest.mark.parametrize("who", ["mira", "jun"])
def test_the_number_of_queries_does_not_depend_on_the_rows(
    client: Client, manager: User, member: User, who: str
) -> None:
    counts = []
    for more in (0, 12):
        for _ in range(more):
            charge(MemberFactory.create(space=manager.space, usd=2), cost_usd=1)
            charge(member, cost_usd=0.01)
        client.force_login(User.objects.get(username=who), backend="accounts.backends.LivingUserBackend")
        client.get("/me/statement/")
        with CaptureQueriesContext(connection) as queries:
            client.get("/me/statement/")
        counts.append(len(queries))
    assert counts[0] == counts[1], counts


def test_many_transfers_are_shown_as_sums(client: Client, manager: User, member: User) -> None:
    for cents in range(MAX_LISTED_TRANSFERS):
        set_remaining(member=member, remaining_nanos=6 * USD + cents, actor=manager)

    text = page(client, member)[1]
    lines = table(client, member, "/me/statement.csv")

    assert f"{MAX_LISTED_TRANSFERS + 1} transfers, included in the sums above" in text
    assert [line["Line"] for line in lines].count("Transfer") == MAX_LISTED_TRANSFERS + 1


def test_the_file_adds_up(client: Client, manager: User, member: User) -> None:
    charge(member, cost_usd=1.25)
    charge(manager, cost_usd=0.000425)
    delete_member(member=member, actor=manager)

    lines = table(client, manager, "/me/statement.csv", month=f"{datetime.now(UTC):%Y-%m}")

    figures = {line["Owner"]: [Decimal(text) for text in list(line.values())[3:]] for line in lines}
    assert list(figures) == ["Pool", "Deleted user", "All members", "Whole space"]
    for opening, *moved, closing in figures.values():
        assert opening + sum(moved) == closing
    assert figures["Whole space"][-1] == Decimal("500") - Decimal("1.250425")


def test_a_members_file_adds_up(client: Client, manager: User, member: User) -> None:
    charge(member, cost_usd=1.25)
    set_remaining(member=member, remaining_nanos=USD, actor=manager)

    for user, path in ((member, "/me/statement.csv"), (manager, f"/space/users/{member.number}/statement.csv")):
        first, *steps, last = table(client, user, path, bom="0")
        assert Decimal(first["Balance (USD)"]) + sum(Decimal(one["Amount (USD)"]) for one in steps) == Decimal("1")
        assert Decimal(last["Balance (USD)"]) == Decimal("1")


def test_statements_for_a_spreadsheet_program_have_dates_and_names(client: Client, manager: User) -> None:
    numeric = MemberFactory.create(space=manager.space, username="007", usd=3)
    spend(numeric, datetime.now(UTC), USD, model="1e5")
    User.objects.update(time_zone="Asia/Kolkata")

    first, _received, charged, _last = cells(client, numeric, "/me/statement.csv")
    of_space = cells(client, manager, "/me/statement.csv")

    begin = f"{datetime.now(ZoneInfo('Asia/Kolkata')):%Y-%m}-01 00:00:00"
    assert (first["Time (Asia/Kolkata)"], charged["Description"], charged["Amount (USD)"]) == (begin, "'1e5", "-1.00")
    assert "'007" in [line["User"] for line in of_space]


# -- Visibility and invariants ------------------------------------------------------------------------------------


def test_nobody_reads_anothers_statement(client: Client, manager: User, member: User, stranger: User) -> None:
    other = MemberFactory.create(space=manager.space, username="kai", usd=3)
    charge(stranger, cost_usd=1)

    for path in (f"/space/users/{other.number}/statement/", f"/space/users/{other.number}/statement.csv"):
        assert page(client, member, path)[0].status_code == 403
        assert page(client, stranger, path)[0].status_code == 403
    written = page(client, manager)[1]
    assert "stranger" not in written and "kai" in written and "kai" not in page(client, member)[1]


def test_a_balance_that_does_not_add_up_raises() -> None:
    with pytest.raises(AssertionError):
        Balance(opening_nanos=1, moved_nanos={Kind.GRANT: 2}, spent_nanos=1, closing_nanos=3)


def test_an_hour_whose_rows_are_pruned_is_not_split(db: None) -> None:
    """An hourly roll-up without its rows cannot be split, so it counts to the later month."""
    space, _manager = founded(datetime(2026, 9, 1, tzinfo=UTC))
    member = joined(space, datetime(2026, 9, 2, tzinfo=UTC), 10 * USD)
    half_past = datetime(2026, 9, 30, 18, 30, tzinfo=UTC)

    assert charge_cutoff(space, half_past) == datetime(2026, 9, 30, 18, tzinfo=UTC)
    spend(member, datetime(2026, 9, 30, 18, 10, tzinfo=UTC), 7)
    assert charge_cutoff(space, half_past) == half_past


@pytest.mark.django_db(transaction=True)
def test_a_snapshot_does_not_see_concurrent_charges(member: User) -> None:
    """It also writes nothing and restores the transaction mode of the connection."""
    mode = getattr(connection, "transaction_mode", None)
    with snapshot():
        assert member_statement(member, StatementMonth.of("")).balance.closing_nanos == 5 * USD
    charge(member, cost_usd=1)
    assert getattr(connection, "transaction_mode", None) == mode
    assert MemberSheet(member_statement(member, StatementMonth.of(""))).steps[-1].text == "$4.00"
    assert not Hold.objects.exists()
