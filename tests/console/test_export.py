"""CSV exports: exactly the filtered rows, complete or recognisably incomplete, and safe from CSV injection."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import translation
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import User
from console import export
from console.export import (
    BOM,
    MAX_CONCURRENT_EXPORTS,
    PIECE_CHARS,
    CsvColumn,
    ExportSlot,
    batches,
    safe_text,
    sheet,
    text,
    text_cell,
)
from core.bulk import write_rows
from core.ids import id_at, new_id
from core.money import NANOS_PER_USD as USD
from core.origin import acting
from quotas.charging import Call, hold, settle
from quotas.members import MemberChanges, delete_member, edit_member
from quotas.services import set_remaining
from tests.usage.videos import fail, submit, succeed, take
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db

PATHS = ["/console/usage.csv", "/console/tasks.csv", "/me/credits.csv"]
NAME: CsvColumn[str] = text("Name", str)
MONEY = {"/console/usage.csv": "Cost (USD)", "/console/tasks.csv": "Cost (USD)", "/me/credits.csv": "Amount (USD)"}


def spend(user: User, *, cost: int = USD // 100, ago: timedelta = timedelta(), **call: Any) -> UsageRecord:
    request_id, made = new_id(), Call(**{"model": "gpt-4o-mini"} | call)
    assert user.space_id is not None
    with acting(moment=datetime.now(UTC) - ago):
        hold(request_id=request_id, user=user, amount_nanos=2 * cost, call=made)
        return settle(space_id=user.space_id, request_id=request_id, cost_nanos=cost, call=made)


def fetch(client: Client, user: User, path: str, query: dict[str, str] | None = None) -> Any:
    client.force_login(user, backend="accounts.backends.LivingUserBackend")
    return client.get(path, query or {})


def body(response: Any) -> str:
    assert response.status_code == 200 and response.streaming
    return b"".join(response.streaming_content).decode()


def name_of(response: Any) -> str:
    """Return the file name. Reads the body first, which releases the export slot; close() would end the test's database
    connection as well.
    """
    body(response)
    return str(response["Content-Disposition"])


def table(client: Client, user: User, path: str, query: dict[str, str] | None = None) -> list[dict[str, str]]:
    """Return the lines below the header; the last one has the sums."""
    return list(csv.DictReader(io.StringIO(body(fetch(client, user, path, query)), newline="")))


@pytest.fixture
def busy(manager: User, admin_member: User, member: User, stranger: User) -> None:
    """Requests, tasks and transfers of all roles, and of a user of another space."""
    ago = timedelta(minutes=5)
    for user, nanos in ((manager, 7), (admin_member, 1_234_567_891), (member, 425_000), (stranger, 11)):
        spend(user, cost=nanos)
        succeed(take(submit(user, ago=ago)))
    fail(take(submit(member, ago=ago)))
    submit(manager, ago=ago)


# -- Contents -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("who", ["mira", "amara", "jun"])
def test_the_last_line_is_the_sum_of_the_lines_and_of_the_page(client: Client, busy: None, path: str, who: str) -> None:
    user = User.objects.get(username=who)

    *lines, last = table(client, user, path)
    totals = client.get(path.replace(".csv", "/")).context["log"].totals

    summed = sum(Decimal(line[MONEY[path]] or 0) for line in lines)
    shown = totals.in_nanos - totals.out_nanos if path == "/me/credits.csv" else totals.cost_nanos
    assert lines and next(iter(last.values())) == "Total"
    assert Decimal(last[MONEY[path]]) == summed == Decimal(shown) / USD


def test_money_is_exact_and_time_has_an_offset(client: Client, member: User) -> None:
    record = spend(member, cost=1)
    User.objects.filter(pk=member.pk).update(time_zone="Asia/Kolkata")
    line, last = table(client, member, "/console/usage.csv")

    at = datetime.fromisoformat(line["Time"])
    assert (line["Cost (USD)"], line["Held (USD)"], last["Cost (USD)"]) == ("0.000000001", "0.000000002", "0.000000001")
    assert at.utcoffset() == timedelta(hours=5, minutes=30) and abs(at - record.at) < timedelta(milliseconds=1)
    assert line["Request ID"] == str(record.request_id)


def test_a_file_is_named_by_space_what_and_period(client: Client, manager: User, member: User) -> None:
    query = {"from": "2026-10-01", "to": "2026-10-31"}

    names = [name_of(fetch(client, manager, path, query)) for path in PATHS]
    bare = name_of(fetch(client, manager, "/me/credits.csv"))

    period = '-2026-10-01-to-2026-10-31.csv"'
    stem = 'attachment; filename="halcyon-labs-'
    assert names == [f"{stem}{what}{period}" for what in ("usage", "tasks", "credits")]
    assert bare == f'{stem}credits.csv"'


def test_a_file_name_may_have_a_space_name_in_another_script(client: Client, manager: User) -> None:
    manager.space.name = '星 "x"\r\n/..'
    manager.space.save(update_fields=["name"])

    disposition = name_of(fetch(client, manager, "/console/usage.csv"))

    assert disposition.startswith("attachment; filename*=utf-8''%E6%98%9F-x-usage-")


def test_a_byte_order_mark_is_written_on_request_only(client: Client, member: User) -> None:
    assert body(fetch(client, member, "/console/usage.csv", {"bom": "1"})).startswith("\ufeffTime (UTC),")
    assert body(fetch(client, member, "/console/usage.csv")).startswith("Time,")


def test_tasks_have_their_hold_and_their_cost(client: Client, member: User) -> None:
    succeed(take(submit(member, seconds=2, ago=timedelta(minutes=5))))
    submit(member, seconds=3)

    running, done, last = table(client, member, "/console/tasks.csv")

    assert (running["Status"], running["Held (USD)"], running["Cost (USD)"]) == ("Queued", "0.03", "")
    assert (done["Status"], done["Held (USD)"], done["Cost (USD)"]) == ("Success", "0.00", "0.02")
    assert last["Cost (USD)"] == "0.02" and done["Task ID"].startswith("video_")


def test_transfers_are_signed_from_the_viewers_side(client: Client, manager: User, member: User) -> None:
    set_remaining(member=member, remaining_nanos=2 * USD, actor=manager)

    newest = table(client, manager, "/me/credits.csv")[0]
    own = table(client, member, "/me/credits.csv")[0]

    assert (newest["Change"], newest["User"], newest["Amount (USD)"]) == ("Reclaimed", "jun", "3.00")
    assert (newest["Available after (USD)"], newest["By"]) == ("498.00", "mira")
    assert (own["Change"], own["Amount (USD)"], own["Remaining after (USD)"]) == ("Reclaimed", "-3.00", "2.00")
    assert "User" not in own


# -- Filters and visibility ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        {"user": "jun"},
        {"model": "claude"},
        {"type": "error"},
        {"token": "laptop"},
        {"from": "2026-01-01", "to": "2026-01-02"},
        {"size": "20"},
        {"user": "nobody"},
        {"cursor": "-" + "f" * 32},
    ],
)
def test_a_file_has_the_rows_of_its_page(
    client: Client, manager: User, member: User, busy: None, query: dict[str, str]
) -> None:
    spend(member, model="claude", key_name="laptop")

    *lines, _last = table(client, manager, "/console/usage.csv", query)
    page = client.get("/console/usage/", query | {"size": "100"} | {"cursor": ""})

    shown = [str(receipt.record.request_id) for receipt in page.context["receipts"]]
    assert [line["Request ID"] for line in lines] == shown


def test_a_page_links_to_the_file_of_its_filter(client: Client, manager: User, member: User) -> None:
    spend(member, model="a&b")
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")
    query = {"model": "a&b", "size": "50", "cursor": str(new_id())}

    for path, said in (("/console/usage/", "model=a%26b"), ("/console/tasks/", "model=a%26b"), ("/me/credits/", "")):
        log = client.get(path, query).context["log"]
        file = path.removesuffix("/") + ".csv"
        assert log.csv_url == (f"{file}?{said}" if said else file)
        assert log.csv_bom_url == f"{file}?{said + '&' if said else ''}bom=1"


@pytest.mark.parametrize("path", PATHS)
def test_a_normal_user_gets_their_own_rows_alone(client: Client, busy: None, member: User, path: str) -> None:
    for query in ({}, {"user": "mira"}, {"user": "stranger"}, {"user": "amara", "cursor": "0" * 32}):
        written = body(fetch(client, member, path, query))
        assert not {"mira", "amara", "stranger", "Operator"} & set(written.replace("\r\n", ",").split(",")) - {"mira"}
        assert "User," not in written
    assert len(table(client, member, "/console/usage.csv", {"user": "mira"})) == 1


@pytest.mark.parametrize("path", PATHS)
def test_nothing_of_another_space_is_exported(
    client: Client, busy: None, manager: User, stranger: User, path: str
) -> None:
    theirs = UsageRecord.objects.filter(space=stranger.space_id).latest("id")

    for query in ({}, {"user": "stranger"}, {"cursor": str(theirs.pk)}, {"request_id": str(theirs.request_id)}):
        written = body(fetch(client, manager, path, query))
        assert "stranger" not in written and "boss" not in written and str(theirs.request_id) not in written


def test_deleted_members_are_exported_under_the_name_they_had(client: Client, manager: User, member: User) -> None:
    spend(member)
    renamed = edit_member(member=member, changes=MemberChanges(username="junko"), actor=manager).member
    delete_member(member=renamed, actor=manager)

    for name in ("jun", "junko"):
        lines = table(client, manager, "/console/usage.csv", {"user": name})
        moves = table(client, manager, "/me/credits.csv", {"user": name})
        assert [line["User"] for line in lines[:-1]] == ["jun"]
        assert [move["Change"] for move in moves[:-1]] == ["Returned", "Allocated"]


# -- Spreadsheet programs -----------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_no_text_is_evaluated_as_a_formula(written: str) -> None:
    cell = safe_text(written)

    assert not cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert cell in (written, f"'{written}")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), min_size=1, max_size=9))
def test_a_csv_parser_reads_back_what_was_written(values: list[str]) -> None:
    written = "".join(sheet([NAME, NAME], [values]))

    lines = list(csv.reader(io.StringIO(written, newline="")))

    assert lines == [["Name", "Name"], *([safe_text(value)] * 2 for value in values), ["Total", ""]]


def test_names_in_the_log_are_not_evaluated_as_formulas(client: Client, member: User) -> None:
    spend(member, key_name='=HYPERLINK("http://x","y")', model="@SUM(1)\r\n+1")

    line, _last = table(client, member, "/console/usage.csv")

    assert (line["Token"], line["Model"]) == ('\'=HYPERLINK("http://x","y")', "'@SUM(1)\r\n+1")


TAKEN_FOR_MORE = [
    "007",
    "1e5",
    "1,000",
    "$5",
    "50%",
    "(3)",
    "3/4",
    "2026-10-01",
    "12:30",
    "12:30 pm",
    "Oct 1",
    "1 march",
]
TAKEN_FOR_MORE += ["10月1日", "１２", "TRUE", "false", "#N/A", "#REF!", "12345678901234567890"]


@pytest.mark.parametrize("name", TAKEN_FOR_MORE)
@pytest.mark.any_database
def test_a_name_is_not_converted_to_a_number_date_or_boolean(name: str) -> None:
    assert text_cell(name) == f"'{name}"


@pytest.mark.parametrize(
    "name",
    ["gpt-4o", "4o-mini", "May", "marcus", "a1", "密钥 1", "#1 key", "–", "", "01a21cb8-b23e-7fb6-8c91-5ab90ed7f495"],
)
@pytest.mark.any_database
def test_a_name_that_cannot_be_converted_gets_no_apostrophe(name: str) -> None:
    assert text_cell(name) == name


def test_for_a_spreadsheet_program_times_are_dates_and_names_stay_names(client: Client, member: User) -> None:
    record = spend(member, key_name="007", model="1e5")
    User.objects.filter(pk=member.pk).update(time_zone="Asia/Kolkata")
    exact = table(client, member, "/console/usage.csv")[0]

    written = body(fetch(client, member, "/console/usage.csv", {"bom": "1"})).removeprefix(BOM)
    line = next(csv.DictReader(io.StringIO(written, newline="")))

    at = record.at.astimezone(ZoneInfo("Asia/Kolkata"))
    assert (line["Time (Asia/Kolkata)"], line["Token"], line["Model"]) == (f"{at:%Y-%m-%d %H:%M:%S}", "'007", "'1e5")
    assert (line["Cost (USD)"], line["Request ID"]) == ("0.01", str(record.request_id))
    assert (exact["Token"], exact["Model"]) == ("007", "1e5")


# -- Streaming ----------------------------------------------------------------------------------------------------


def many(user: User, count: int) -> None:
    """Write `count` copies of a row within the last hour, in bulk because 30,000 model instances take seconds."""
    first = spend(user, cost=1)
    start = datetime.now(UTC) - timedelta(hours=1)
    identifier, *values = [_for_bulk(getattr(first, field.attname)) for field in UsageRecord._meta.concrete_fields]
    assert identifier == first.pk.hex
    ids = (id_at(start + timedelta(microseconds=100 * number)).hex for number in range(count - 1))
    write_rows(UsageRecord, ((each, *values) for each in ids))


def _for_bulk(value: Any) -> Any:
    return value.hex if isinstance(value, UUID) else json.dumps(value) if isinstance(value, dict) else value


def test_memory_does_not_grow_with_the_rows(client: Client, member: User) -> None:
    many(member, 30_000)
    response = fetch(client, member, "/console/usage.csv")
    pieces = response.streaming_content
    tracemalloc.start()
    try:
        written = sum(len(piece) for piece in pieces)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert written > 5_000_000 and peak < 8_000_000, (written, peak)


def test_chunks_are_large_and_the_first_one_needs_no_query(client: Client, member: User) -> None:
    many(member, 3000)
    pieces = iter(fetch(client, member, "/console/usage.csv").streaming_content)

    with CaptureQueriesContext(connection) as before:
        first = next(pieces)
    with CaptureQueriesContext(connection) as queries:
        rest = list(pieces)

    assert first.startswith(b"Time,") and len(before) == 0
    assert all(len(piece) >= PIECE_CHARS for piece in rest[:-1]) and len(rest) > 5
    # Two batches, and the check that no row was pruned during the export.
    assert len(queries) == 3


def test_batches_have_no_gap_and_no_duplicate(member: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "BATCH_ROWS", 3)
    for cost in range(1, 10):
        spend(member, cost=cost)

    read = [record for batch in batches(UsageRecord.objects.all()) for record in batch]

    assert [record.cost for record in read] == list(range(9, 0, -1))
    assert all(newer.pk > older.pk for newer, older in pairwise(read))


def test_requests_settled_during_the_export_are_left_out(
    client: Client, member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "BATCH_ROWS", 1)
    spend(member, cost=1)
    spend(member, cost=2)
    groups = batches(UsageRecord.objects.all())
    read = [next(groups)]
    spend(member, cost=4)

    read += groups

    assert [record.cost for batch in read for record in batch] == [2, 1]


def test_an_interrupted_export_has_no_line_of_sums() -> None:
    def groups() -> Iterator[list[str]]:
        yield ["one"]
        raise ConnectionError

    pieces = sheet([NAME], groups())

    got = [next(pieces)]
    with pytest.raises(ConnectionError):
        got += pieces
    assert "Total" not in "".join(got)


def test_the_language_is_that_of_the_request(member: User) -> None:
    with translation.override("en"):
        pieces = sheet([NAME], [["one"]])
    with translation.override("de"):
        written = "".join(pieces)

    assert written.endswith("Total\r\n")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("junk", ["\0", "x" * 3000, "-", "٣", "2026-02-30", "\ud7ff", "=1", "9" * 40])
def test_invalid_parameters_are_answered(client: Client, manager: User, member: User, path: str, junk: str) -> None:
    for user in (manager, member):
        for name in ("from", "to", "user", "token", "model", "kind", "status", "request_id", "cursor", "bom", "size"):
            body(fetch(client, user, path, {name: junk}))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["head", "post", "delete"])
@pytest.mark.any_database
def test_an_export_answers_get_only(client: Client, manager: User, path: str, method: str) -> None:
    client.force_login(manager, backend="accounts.backends.LivingUserBackend")

    assert getattr(client, method)(path).status_code == 405


def test_concurrent_exports_are_limited_to_leave_threads_for_pages(client: Client, member: User) -> None:
    spend(member)
    client.force_login(member, backend="accounts.backends.LivingUserBackend")
    fetched = [ExportSlot.take(iter(())) for _ in range(MAX_CONCURRENT_EXPORTS)]

    refused = client.get("/console/usage.csv")
    for slot in fetched:
        slot.close()

    assert (refused.status_code, refused["Retry-After"]) == (429, "60")
    assert client.get("/console/usage.csv").getvalue()
