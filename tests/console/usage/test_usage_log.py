from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.db.models import F, Sum
from django.http import QueryDict
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape

from accounts.keys import KeyTerms, create_key, delete_key, edit_key, parse_key
from accounts.models import ApiKey, User
from console.choices import Choice
from console.usage.log import UsageLog
from core.ids import id_at, new_id
from core.money import NANOS_PER_USD, PARTS_PER_NANO
from core.origin import acting
from quotas.charging import Call, expire_holds, hold, release, renew, settle
from quotas.members import MemberChanges, delete_member, edit_member
from quotas.models import Wallet
from quotas.sets import HoldOrder, write_one
from relay.pricing import COUNTS, PRICES, Rate, Usage, cost_nanos
from tenants.models import Space
from usage.models import HourlyUsage, UsageRecord

pytestmark = pytest.mark.django_db

USD = NANOS_PER_USD
PRICE = {"input": 3 * USD, "cached_input": 300_000_000, "output": 15 * USD, "per_request": 100_000}


def page(client: Client, user: User, query: str | dict[str, str] = "", **headers: str) -> tuple[Any, str]:
    client.force_login(user, backend="accounts.backends.LivingUserBackend")
    if isinstance(query, str):
        response = client.get(f"/console/usage/{query}", headers=headers)
    else:
        response = client.get("/console/usage/", query, headers=headers)
    return response, " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def rows(response: Any) -> list[UsageRecord]:
    return [receipt.record for receipt in response.context["receipts"]]


def costs(response: Any) -> list[int]:
    return [record.cost for record in rows(response)]


def spend(user: User, *, ago: timedelta = timedelta(), cost: int = USD // 100, **call: Any) -> UsageRecord:
    """Settle a request `ago` before now, with a hold of twice its cost."""
    request_id, made = new_id(), Call(**{"model": "gpt-4o-mini"} | call)
    assert user.space_id is not None
    with acting(moment=datetime.now(UTC) - ago):
        hold(request_id=request_id, user=user, amount_nanos=2 * cost, call=made)
        return settle(space_id=user.space_id, request_id=request_id, cost_nanos=cost, call=made)


def fail(user: User, code: str = "upstream_error") -> None:
    request_id, call = new_id(), Call(model="claude-sonnet-4", status=502, code=code, duration_ms=30_000)
    assert user.space_id is not None
    hold(request_id=request_id, user=user, amount_nanos=1000, call=call)
    release(space_id=user.space_id, request_id=request_id, call=call)


@pytest.fixture
def spent(manager: User, admin_member: User, member: User, stranger: User) -> None:
    """Requests in this order: mira 4 cents, amara 3, jun 2, jun 1, a stranger 9."""
    for user, cents in ((manager, 4), (admin_member, 3), (member, 2), (member, 1), (stranger, 9)):
        spend(user, cost=cents * USD // 100)


# -- Who sees what ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["mira", "amara"])
def test_managers_and_admins_see_the_whole_space(client: Client, spent: None, who: str) -> None:
    response, text = page(client, User.objects.get(username=who))

    assert [record.username for record in rows(response)] == ["jun", "jun", "amara", "mira"]
    assert response.context["log"].totals.cost_nanos == USD // 10
    assert "stranger" not in text and "yours and your members" in text


def test_a_normal_user_sees_their_own_alone(client: Client, spent: None, member: User) -> None:
    response, text = page(client, member)

    assert costs(response) == [USD // 100, USD // 50]
    assert response.context["log"].totals.cost_nanos == 3 * USD // 100
    assert "amara" not in text and "mira" not in text


@pytest.mark.parametrize("name", ["amara", "mira", "stranger", "nobody", "JUN"])
def test_a_normal_user_who_asks_for_another_sees_nothing_of_theirs(
    client: Client, spent: None, member: User, name: str
) -> None:
    response, _ = page(client, member, {"user": name})

    assert costs(response) == ([USD // 100, USD // 50] if name == "JUN" else [])
    assert response.context["log"].totals.cost_nanos == (3 * USD // 100 if name == "JUN" else 0)


def test_a_request_of_somebody_else_is_not_found_by_its_id(
    client: Client, spent: None, manager: User, member: User, stranger: User
) -> None:
    theirs = UsageRecord.objects.get(space=stranger.space_id)
    managers = UsageRecord.objects.get(user_id=manager.pk)

    for user, record in ((manager, theirs), (member, theirs), (member, managers), (stranger, managers)):
        response, text = page(client, user, {"request_id": str(record.request_id)})
        assert rows(response) == [] and response.context["log"].totals.requests == 0
        assert "No request matches these filters" in text


def test_a_request_of_somebody_else_is_not_found_by_its_key(
    client: Client, manager: User, member: User, stranger: User
) -> None:
    key = _key(manager, "payroll")
    spend(manager, key_id=key.pk, key_name=key.name)

    for user in (member, stranger):
        for token in (str(key.pk), "payroll"):
            assert rows(page(client, user, {"token": token})[0]) == []
        assert "payroll" not in page(client, user)[1]


def test_suggestions_come_from_visible_rows_only(
    client: Client, spent: None, manager: User, member: User, stranger: User
) -> None:
    spend(stranger, model="secret-model")
    spend(manager, model="managers-model")
    for user, name in ((stranger, "secret-key"), (manager, "managers-key"), (member, "own-key")):
        _key(user, name)

    whole = page(client, manager)[0].content.decode()
    own = page(client, member)[0].content.decode()

    assert "secret-" not in whole + own
    assert "managers-model" in whole and "managers-key" in whole and 'value="amara"' in whole
    assert "managers-" not in own and "own-key" in own and "amara" not in own


def choices(user: User, token: str = "") -> list[Choice]:
    return UsageLog(user, QueryDict(f"token={token}")).tokens


def test_the_token_filter_lists_only_visible_keys(client: Client, manager: User, member: User, stranger: User) -> None:
    own, managers, theirs = _key(member, "laptop"), _key(manager, "laptop"), _key(stranger, "laptop")
    spend(member, cost=1, key_id=own.pk, key_name=own.name)
    spend(manager, cost=2, key_id=managers.pk, key_name=managers.name)

    assert choices(member) == [("", "All tokens", True), (str(own.pk), f"laptop · …{own.last_four}", False)]
    assert choices(manager, str(own.pk)) == [
        ("", "All tokens", False),
        (str(own.pk), f"laptop · jun · …{own.last_four}", True),
        (str(managers.pk), f"laptop · mira · …{managers.last_four}", False),
    ]
    assert costs(page(client, manager, {"token": str(own.pk)})[0]) == [1]
    for spelling in (own.pk.hex, str(own.pk).upper()):
        assert choices(manager, spelling) == choices(manager, str(own.pk))
    for unseen in (managers, theirs):
        assert (str(unseen.pk), str(unseen.pk), True) in choices(member, str(unseen.pk))


def test_the_token_filter_keeps_a_name_or_deleted_key_from_an_old_link(
    client: Client, manager: User, member: User
) -> None:
    key, gone = _key(member, "laptop"), _key(member, "gone")
    spend(member, cost=1, key_id=gone.pk, key_name="gone")
    spend(member, cost=2, key_id=key.pk, key_name="laptop")
    delete_key(key=gone, actor=member)

    assert ("laptop", "laptop", True) in choices(manager, "laptop")
    assert (str(gone.pk), f"gone · jun · …{gone.last_four}", True) in choices(manager, str(gone.pk))
    assert costs(page(client, manager, {"token": "laptop"})[0]) == [2]
    assert costs(page(client, manager, {"token": str(gone.pk)})[0]) == [1]


def test_with_too_many_keys_for_a_list_the_token_filter_is_a_text_field(
    monkeypatch: pytest.MonkeyPatch, client: Client, manager: User, member: User
) -> None:
    monkeypatch.setattr("console.token_filter.MAX_SUGGESTIONS", 2)
    for name in ("laptop", "server"):
        _key(member, name)
    assert '<select id="filter-token"' in page(client, manager)[0].content.decode()
    _key(manager, "third")

    shown = page(client, manager, {"token": "laptop"})[0].content.decode()

    assert '<select id="filter-token"' not in shown and 'value="laptop"' in shown
    assert '<select id="filter-token"' in page(client, member)[0].content.decode()


# -- Columns ------------------------------------------------------------------------------------------------------


def heads(response: Any) -> list[str]:
    found = re.findall(r"<th\b.*?</th>", response.content.decode(), re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", head).split()) for head in found]


def test_the_columns_are_in_order_and_only_managers_and_admins_have_user(
    client: Client, manager: User, member: User
) -> None:
    spend(member)
    shared = ["Token", "Model", "Type", "Duration / first token", "Input", "Output", "Cost", "Details"]

    assert heads(page(client, manager)[0]) == ["Time", "User", *shared]
    assert heads(page(client, member)[0]) == ["Time", *shared]


def test_a_row_tells_what_happened(client: Client, member: User) -> None:
    spend(
        member,
        key_name="laptop",
        cost=425_000,
        input_tokens=12_408,
        output_tokens=1_862,
        duration_ms=8400,
        first_token_ms=420,
        is_estimated=True,
    )
    fail(member)

    text = page(client, member)[1]

    assert "laptop gpt-4o-mini Consume 8.4 s 420 ms 12,408 1,862 $0.000425" in text
    assert "How this was charged estimated" in text
    assert "claude-sonnet-4 Error 30.0 s 0 0 $0.00 How this was charged upstream_error" in text


def test_names_are_escaped(client: Client, member: User) -> None:
    key = _key(member, "<i>key</i>")
    spend(member, key_id=key.pk, key_name=key.name, model="<script>alert(1)</script>")

    found = page(client, member, {"token": "<i>key</i>"})[0].content.decode()
    none = page(client, member, {"token": '"><i>', "model": '"><i>', "request_id": '"><i>'})[0].content.decode()

    assert "&lt;i&gt;key" in found and "&lt;script&gt;alert" in found
    assert "<i>" not in found + none and "<script>alert" not in found + none


def test_members_do_not_see_a_shortfall_and_the_lines_still_add_up(
    client: Client, manager: User, admin_member: User, member: User
) -> None:
    request_id, call = new_id(), Call(model="gpt-4o-mini", output_tokens=7, price={"output": USD * 1_000_000})
    hold(request_id=request_id, user=member, amount_nanos=5 * USD, call=call)
    settle(space_id=member.space_id, request_id=request_id, cost_nanos=7 * USD, call=call)

    for viewer in (manager, admin_member, member):
        text = page(client, viewer)[1]
        assert "shortfall" not in text.lower()
        assert "per million $7.00 Limited to what was available −$2.00 Charged $5.00" in text


# -- Receipts -----------------------------------------------------------------------------------------------------


def receipt(client: Client, user: User) -> Any:
    return page(client, user)[0].context["receipts"][0]


def test_the_lines_of_an_opened_row_add_up_to_its_cost(client: Client, member: User) -> None:
    usage = Usage(input=4_407, cached=8_001, output=1_862)
    cost = cost_nanos(Rate.of(PRICE), usage)
    spend(member, cost=cost, input_tokens=12_408, cached_tokens=8_001, output_tokens=1_862, price=PRICE)

    shown = receipt(client, member)

    assert [(line.label, line.how, line.usd) for line in shown.lines] == [
        ("Input", "4,407 tokens × $3.00 per million", "$0.013221"),
        ("Cached input", "8,001 tokens × $0.30 per million", "$0.0024003"),
        ("Output", "1,862 tokens × $15.00 per million", "$0.02793"),
        ("Request", "1 × $0.0001", "$0.0001"),
    ]
    assert sum(line.parts for line in shown.lines) == cost * PARTS_PER_NANO
    assert (shown.charged_usd, shown.held_usd, shown.released_usd, shown.available_usd) == (
        "$0.0436513",
        "$0.0873026",
        "$0.0436513",
        "$4.9563487",
    )
    assert "$0.02793" in page(client, member)[1]


def test_every_kind_of_token_and_piece_is_a_line_by_its_own_name_and_tools_by_theirs(
    client: Client, member: User
) -> None:
    usage = Usage(
        **dict.fromkeys(COUNTS, 1),
        tools=(("image_generation", Usage(input=2, image_output=3)),),
    )
    rate, tool = Rate(**dict.fromkeys(PRICES, 10**6)), Rate(input=2 * 10**6, image_output=3 * 10**6)
    spend(
        member,
        cost=cost_nanos(rate, usage, {"image_generation": tool}),
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        images=1,
        seconds=1,
        price=rate.snapshot(),
        quantities=usage.quantities(),
        details={"tool_rates": {"image_generation": tool.snapshot()}},
    )

    lines = [(line.label, line.how, line.parts) for line in receipt(client, member).lines]

    assert [label for label, _how, _parts in lines] == [
        *("Input", "Cached input", "Input from an explicit cache"),
        *("Cache write, short", "Cache write, 1 hour", "Cache write, 12 hours"),
        *("Output", "Audio input", "Audio output", "Image input", "Image output", "Reasoning", "Citations"),
        *("Images", "Seconds", "Web searches", "Characters", "Minutes", "Request"),
        *("image_generation: Input", "image_generation: Image output"),
    ]
    assert lines[-1] == ("image_generation: Image output", "3 tokens × $0.003 per million", 9 * 10**6)


@pytest.mark.parametrize(
    ("details", "more", "notes"),
    [
        ({}, {}, []),
        (
            {"row": "from=5, service_tier=priority above=200000"},
            {},
            ["Prices of from 5 input tokens on, service_tier=priority, above 200,000 input tokens."],
        ),
        ({"client_left": True}, {}, ["The program left before the answer was complete."]),
        ({"cut": True}, {}, ["More was reported than can be; the charge stops at what was held."]),
        ({"answered_model": "m-2026"}, {}, ["Answered by m-2026."]),
        ({"answered_model": "m"}, {}, []),
        (
            {},
            {"is_estimated": True},
            ["Estimated from what was sent and delivered, because its usage was not reported in full."],
        ),
        (
            {"client_left": True},
            {"is_estimated": True},
            [
                "The program left before the answer was complete.",
                "Estimated from what was sent and delivered and how long it took: its usage was not reported in full.",
            ],
        ),
        (
            {"output_limit": 5000},
            {},
            ["The answer was limited to 5,000 output tokens, which is what the money covered."],
        ),
        ({"message": "Say <b>please</b>.", "available": 1}, {"status": 400}, ["Say <b>please</b>."]),
    ],
)
def test_a_receipt_says_in_words_what_its_figures_do_not(
    client: Client, member: User, details: dict[str, Any], more: dict[str, Any], notes: list[str]
) -> None:
    spend(member, cost=1, model="m", details=details, **more)

    assert receipt(client, member).notes == notes
    content = page(client, member)[0].content.decode()
    assert all(escape(note) in content for note in notes)


def test_a_request_refused_for_lack_of_money_says_what_it_needed_and_what_was_left(
    client: Client, member: User
) -> None:
    presented = parse_key(create_key(owner=member, terms=KeyTerms(name="laptop"))[1])
    assert presented is not None
    write_one(
        HoldOrder(
            request_id=new_id(), presented=presented, model="m", address=None, least_nanos=9 * USD, most_nanos=9 * USD
        )
    )

    assert receipt(client, member).notes == ["It could have cost $9.00; $5.00 was left."]


def test_members_see_neither_what_a_request_cost_the_operator_nor_its_upstream(
    client: Client, member: User, manager: User
) -> None:
    hidden = {"upstream": "east-7", "upstream_request_id": "up-7", "told_nanos": 777_000_777}
    spend(member, cost=1, details=hidden | {"client_request_id": "mine-1"}, upstream_cost=888_000_888)

    for viewer in (member, manager):
        shown = page(client, viewer)[0].content.decode()
        exported: Any = client.get("/console/usage.csv")
        sheet = b"".join(exported.streaming_content).decode()
        assert "mine-1" in shown and "mine-1" in sheet
        for text in ("east-7", "up-7", "0.777", "777000777", "0.888", "888000888"):
            assert text not in shown + sheet


def test_rounding_up_is_a_line_of_its_own(client: Client, member: User) -> None:
    spend(member, cost=1, input_tokens=3, price={"input": 37_500})

    lines = [(line.label, line.usd) for line in receipt(client, member).lines]

    assert lines == [("Input", "$0.0000000001125"), ("Rounded up to a whole nano-dollar", "$0.0000000008875")]


TWO: dict[str, Any] = {"price": {"input": USD}, "input_tokens": 2}
TWO_LINE = ("Input", "$0.000002")
TOLD = "Difference to the provider's own figure, which was charged"


@pytest.mark.parametrize(
    ("call", "cost", "expected"),
    [
        ({}, 500, [("Without a price on record", "$0.0000005")]),
        (
            {"code": "hold_expired", "status": 504},
            500,
            [("Sent and delivered before the request was cut off", "$0.0000005")],
        ),
        (
            {"price": {"output": 3 * USD}, "output_tokens": 2, "is_estimated": True},
            5000,
            [("Output", "$0.000006"), ("Limited to what was held", "−$0.000001")],
        ),
        (
            {
                "price": {"input": USD, "per_image": 500, "per_second": 100},
                "input_tokens": 1,
                "images": 1,
                "seconds": 2,
            },
            1700,
            [("Input", "$0.000001"), ("Images", "$0.0000005"), ("Seconds", "$0.0000002")],
        ),
        ({"price": {"input": USD}, "input_tokens": 5, "cached_tokens": 9}, 0, []),
        # Reasoning with a price of its own.
        (
            {"price": {"output": USD, "reasoning": 3 * USD}, "output_tokens": 3, "quantities": {"reasoning": 1}},
            5000,
            [("Output", "$0.000002"), ("Reasoning", "$0.000003")],
        ),
        # The provider's own figure: below the prices, above them, without prices, and the same.
        (TWO | {"details": {"told_nanos": 500}}, 500, [TWO_LINE, (TOLD, "−$0.0000015")]),
        (TWO | {"details": {"told_nanos": 4500}}, 4500, [TWO_LINE, (TOLD, "$0.0000025")]),
        ({"details": {"told_nanos": 4500}}, 4500, [("The provider's own figure", "$0.0000045")]),
        (TWO | {"details": {"told_nanos": 2000, "is_told": True}}, 2000, [TWO_LINE]),
        # It was told, but the prices were charged.
        (TWO | {"details": {"told_nanos": 500}}, 2000, [TWO_LINE]),
        # It cannot be, and is not named.
        (
            TWO | {"details": {"told_nanos": 9000, "is_told": True, "cut": True}},
            5000,
            [TWO_LINE, ("The provider's own figure, limited to what was held", "$0.000003")],
        ),
        (
            {"price": {"input": USD}, "input_tokens": 9, "details": {"cut": True}},
            5000,
            [("Input", "$0.000009"), ("Limited to what was held", "−$0.000004")],
        ),
        # Ceilings of what an estimate cannot count.
        (TWO | {"is_estimated": True}, 3000, [TWO_LINE, ("Pictures and sound, at their most", "$0.000001")]),
        (TWO, 1000, [TWO_LINE, ("Less than the prices on record", "−$0.000001")]),
    ],
)
def test_a_charge_that_is_not_price_times_tokens_says_why(
    client: Client, member: User, call: dict[str, Any], cost: int, expected: list[tuple[str, str]]
) -> None:
    request_id, made = new_id(), Call(**{"model": "m"} | call)
    hold(request_id=request_id, user=member, amount_nanos=5000, call=made)
    record = settle(space_id=member.space_id, request_id=request_id, cost_nanos=cost, call=made)

    shown = receipt(client, member)

    assert [(line.label, line.usd) for line in shown.lines] == expected
    assert sum(line.parts for line in shown.lines) == record.cost * PARTS_PER_NANO


EARLIER = "Charged by an earlier row"


@pytest.mark.parametrize(
    ("call", "cost", "expected"),
    [
        ({}, 2000, [TWO_LINE, (EARLIER, "−$0.0000007")]),
        ({}, 500, [TWO_LINE, (EARLIER, "−$0.000002")]),
        ({"is_estimated": True}, 1000, [TWO_LINE, (f"{EARLIER}, or beyond the hold", "−$0.0000017")]),
        (
            {"details": {"told_nanos": 4000, "is_told": True}},
            4000,
            [TWO_LINE, (TOLD, "$0.000002"), (EARLIER, "−$0.0000007")],
        ),
    ],
)
def test_what_the_sweep_had_charged_is_said_in_the_row_after_it(
    client: Client, member: User, call: dict[str, Any], cost: int, expected: list[tuple[str, str]]
) -> None:
    request_id, made = new_id(), Call(**{"model": "m"} | TWO | call)
    with acting(moment=datetime.now(UTC) - timedelta(hours=1)):
        hold(request_id=request_id, user=member, amount_nanos=5000, call=made)
    renew(space_id=member.space_id, request_id=request_id, delivered_bytes=1, accrued_nanos=700, lifetime_s=-1)
    expire_holds()
    settle(space_id=member.space_id, request_id=request_id, cost_nanos=cost, call=made)

    assert [(line.label, line.usd) for line in receipt(client, member).lines] == expected


def test_what_a_failed_request_was_due_is_at_its_prices(client: Client, member: User) -> None:
    request_id, made = new_id(), Call(**TWO | {"model": "m", "status": 502})
    Wallet.objects.filter(user=member).update(spent=F("total"))
    hold(request_id=request_id, user=member, amount_nanos=0, call=made)
    settle(space_id=member.space_id, request_id=request_id, cost_nanos=2000, call=made)

    lines = [(line.label, line.usd) for line in receipt(client, member).lines]
    assert lines == [TWO_LINE, ("Limited to what was available", "−$0.000002")]


def test_an_error_charges_nothing_and_releases_the_whole_hold(client: Client, member: User) -> None:
    fail(member)

    shown = receipt(client, member)

    assert shown.lines == []
    assert (shown.charged_usd, shown.held_usd, shown.released_usd) == ("$0.00", "$0.000001", "$0.000001")


# -- Filters ------------------------------------------------------------------------------------------------------


def _key(user: User, name: str) -> ApiKey:
    return create_key(owner=user, terms=KeyTerms(name=name))[0]


def _day(days_ago: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days_ago)).date().isoformat()


@pytest.fixture
def month(member: User) -> None:
    """One request on each of the last 40 days: of one nano-dollar today, of two yesterday, and so on."""
    noon = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    since_midnight = datetime.now(UTC) - noon
    for days in range(40):
        spend(member, ago=since_midnight + timedelta(days=days), cost=days + 1)


@pytest.mark.parametrize(
    ("start", "end", "newest", "oldest"),
    [
        ("", "", 1, 7),
        (3, 1, 2, 4),
        (2, 2, 3, 3),
        ("", 10, 11, 17),
        (9, "", 1, 10),
        (30, 12, 13, 31),
        ("nonsense", "2026-13-40", 1, 7),
        ("1066-10-14", 38, 39, 40),
    ],
)
def test_a_period_is_whole_days_and_defaults_to_seven(
    client: Client, member: User, month: None, start: str | int, end: str | int, newest: int, oldest: int
) -> None:
    days = {"from": start, "to": end}
    query = {name: _day(day) if isinstance(day, int) else day for name, day in days.items()}

    response, _ = page(client, member, query | {"size": "50"})

    assert costs(response) == list(range(newest, oldest + 1))
    assert response.context["log"].totals.cost_nanos == sum(range(newest, oldest + 1))


@pytest.mark.parametrize(("start", "end"), [(1, 3), ("9999-12-31", "9999-12-31"), ("0001-01-01", "0001-01-01")])
def test_an_impossible_period_has_no_result(
    client: Client, member: User, month: None, start: str | int, end: str | int
) -> None:
    query = {name: _day(day) if isinstance(day, int) else day for name, day in (("from", start), ("to", end))}

    response, text = page(client, member, query)

    assert rows(response) == [] and "No request matches these filters" in text


def test_a_day_includes_its_last_microsecond(member: User) -> None:
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    spend(member)
    UsageRecord.objects.bulk_create([_copy(midnight - timedelta(microseconds=1), 3), _copy(midnight, 4)])

    today = UsageLog(member, QueryDict(f"from={_day(0)}&to={_day(0)}")).records
    yesterday = UsageLog(member, QueryDict(f"from={_day(1)}&to={_day(1)}")).records

    assert {3, 4} & set(today.values_list("cost", flat=True)) == {4}
    assert {3, 4} & set(yesterday.values_list("cost", flat=True)) == {3}


def _copy(moment: datetime, cost: int) -> UsageRecord:
    record = UsageRecord.objects.latest("id")
    record.pk, record.cost = id_at(moment), cost
    return record


@pytest.mark.parametrize("name", ["jun", "JUN", "junko", "Junko"])
def test_a_person_is_found_by_present_and_former_names(
    client: Client, manager: User, admin_member: User, member: User, name: str
) -> None:
    spend(member, cost=1)
    member = edit_member(member=member, changes=MemberChanges(username="junko"), actor=manager).member
    spend(member, cost=2)
    spend(admin_member, cost=9)

    response, _ = page(client, manager, {"user": name})

    assert [(record.username, record.cost) for record in rows(response)] == [("junko", 2), ("jun", 1)]


def test_deleted_members_are_found_but_not_suggested(client: Client, manager: User, member: User) -> None:
    spend(member, cost=1)
    delete_member(member=member, actor=manager)

    assert costs(page(client, manager, {"user": "jun"})[0]) == [1]
    assert 'value="jun"' not in page(client, manager)[0].content.decode()


@pytest.mark.parametrize("name", ["ju", "%", "j_n", "jun ", "x" * 70_000, "\0", "\0jun", "jun\0", "é", "<b>"])
def test_a_name_is_matched_exactly_and_literally(client: Client, manager: User, member: User, name: str) -> None:
    spend(member)

    assert len(rows(page(client, manager, {"user": name})[0])) == (1 if name == "jun " else 0)


def test_a_key_is_found_by_id_and_by_its_names(client: Client, member: User, manager: User) -> None:
    key, other = _key(member, "laptop"), _key(member, "server")
    spend(member, cost=1, key_id=key.pk, key_name="laptop")
    spend(member, cost=2, key_id=other.pk, key_name="server")
    edit_key(key=key, terms=KeyTerms(name="notebook"), actor=member)
    spend(member, cost=3, key_id=key.pk, key_name="notebook")

    found = {text: costs(page(client, manager, {"token": text})[0]) for text in (str(key.pk), "laptop", "notebook")}

    assert found == {str(key.pk): [3, 1], "laptop": [1], "notebook": [3, 1]}
    for text, costs_found in found.items():
        assert UsageLog(manager, QueryDict(f"token={text}")).totals.cost_nanos == sum(costs_found)
    assert costs(page(client, manager, {"token": "Server"})[0]) == []


def test_model_and_type_filter(client: Client, member: User) -> None:
    spend(member, cost=1)
    spend(member, cost=2, model="claude-sonnet-4")
    fail(member)

    def found(**query: str) -> list[int]:
        return costs(page(client, member, query)[0])

    assert found(model="claude-sonnet-4") == [0, 2]
    assert found(model="claude-sonnet-4", type="consume") == [2]
    assert found(type="error") == [0]
    assert found(type="nonsense") == [0, 2, 1]
    assert found(model="claude") == []


def test_a_request_id_is_found_outside_of_the_period(client: Client, member: User) -> None:
    record = spend(member, ago=timedelta(days=300), cost=7)
    spend(member)

    assert costs(page(client, member)[0]) == [USD // 100]
    for text in (str(record.request_id), record.request_id.hex.upper(), f" {record.request_id} "):
        response, _ = page(client, member, {"request_id": text})
        assert (
            costs(response) == costs(page(client, member, {"request_id": str(record.pk)})[0]) == [7]
            and response.context["log"].totals.cost_nanos == 7
        )
    assert rows(page(client, member, {"request_id": "no-uuid"})[0]) == []


def test_every_other_query_is_restricted_to_the_period(member: User, manager: User) -> None:
    _key(member, "x")
    for query in ("", "user=jun", "token=x", "model=x", "type=error", "from=2026-01-01", "cursor=" + str(new_id())):
        statement = str(UsageLog(manager, QueryDict(query)).records.query)
        assert '"id" >=' in statement and '"id" <' in statement, query


# -- Totals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "user=jun", "model=b", "type=error", "user=amara&model=a"])
def test_totals_are_the_sum_of_the_rows(
    client: Client, manager: User, admin_member: User, member: User, query: str
) -> None:
    for count, user in enumerate([member, admin_member, manager] * 9):
        call = {"model": "ab"[count % 2], "input_tokens": 1000 + count, "output_tokens": 7 * count}
        spend(user, ago=timedelta(hours=count), cost=123_457 * (count + 1), **call)
    fail(member)

    response, _ = page(client, manager, f"?size=100&{query}")
    found, totals = rows(response), response.context["log"].totals

    assert totals.requests == len(found) > 0
    assert totals.cost_nanos == sum(record.cost for record in found)
    assert totals.input_tokens == sum(record.input_tokens for record in found)
    assert totals.output_tokens == sum(record.output_tokens for record in found)


def test_totals_equal_the_hourly_roll_ups(member: User, manager: User) -> None:
    for count in range(30):
        spend(member, ago=timedelta(hours=5 * count), cost=count + 1, input_tokens=count, output_tokens=2 * count)
    fail(member)

    for user in (member, manager):
        log = UsageLog(user, QueryDict())
        first, after = log.moments
        hours = HourlyUsage.objects.filter(space=user.space_id, hour__gte=first, hour__lt=after)
        sums = hours.aggregate(Sum("requests"), Sum("cost"), Sum("input_tokens"), Sum("output_tokens"))
        totals = log.totals
        assert list(sums.values()) == [
            totals.requests,
            totals.cost_nanos,
            totals.input_tokens,
            totals.output_tokens,
        ]


def test_totals_are_of_the_whole_filter_and_not_of_the_page(client: Client, member: User) -> None:
    for _ in range(25):
        spend(member, cost=400_000)

    first, text = page(client, member)

    assert len(rows(first)) == 20 and "Spend $0.01 Requests 25" in text
    assert first.context["log"].totals.cost_nanos == 10_000_000


# -- Pages --------------------------------------------------------------------------------------------------------


def walk(client: Client, user: User, url: str, side: str) -> list[list[int]]:
    """Return the costs on each page from this URL on, in one direction."""
    pages = []
    while url:
        response, _ = page(client, user, url.removeprefix("/console/usage/"))
        pages.append(costs(response))
        last = response.context["log"].page
        url = last.older_url if side == "older" else last.newer_url
    return pages


@pytest.mark.parametrize("count", [1, 20, 21, 40, 45])
def test_paging_either_way_shows_each_row_once(client: Client, member: User, count: int) -> None:
    for cost in range(1, count + 1):
        spend(member, cost=cost)
    everything = list(range(count, 0, -1))

    down = walk(client, member, "/console/usage/?model=gpt-4o-mini", "older")
    assert list(chain.from_iterable(down)) == everything
    assert [len(costs) for costs in down[:-1]] == [20] * (len(down) - 1)

    last_cursor = f"?cursor=-{UsageRecord.objects.earliest('id').pk}"
    up = [[1], *walk(client, member, last_cursor, "newer")] if count > 1 else [[1]]
    assert list(chain.from_iterable(reversed(up))) == everything


def test_a_charged_request_is_found_behind_many_failed_ones(client: Client, member: User) -> None:
    spend(member, ago=timedelta(hours=3))
    for _ in range(25):
        fail(member)

    client.force_login(member, backend="accounts.backends.LivingUserBackend")
    log = client.get("/console/usage/?type=consume").context["log"]

    assert (log.totals.requests, len(log.page.records), log.page.older_url) == (1, 1, "")


def test_the_newer_link_returns_to_the_previous_page(client: Client, member: User) -> None:
    for cost in range(1, 51):
        spend(member, cost=cost)

    first, _ = page(client, member)
    second, _ = page(client, member, first.context["log"].page.older_url.removeprefix("/console/usage/"))
    back, _ = page(client, member, second.context["log"].page.newer_url.removeprefix("/console/usage/"))

    assert costs(back) == costs(first)
    assert back.context["log"].page.newer_url == ""
    assert back.context["log"].page.older_url == first.context["log"].page.older_url


def test_paging_keeps_its_place_while_rows_arrive(client: Client, member: User) -> None:
    for cost in range(1, 31):
        spend(member, cost=cost)
    first, _ = page(client, member)
    for cost in range(31, 34):
        spend(member, cost=cost)

    second, _ = page(client, member, first.context["log"].page.older_url.removeprefix("/console/usage/"))
    newer, _ = page(client, member, f"?cursor=-{rows(first)[0].pk}")

    assert costs(second) == list(range(10, 0, -1))
    assert costs(newer) == [33, 32, 31]


def test_a_cursor_beyond_the_newest_row_shows_the_newest_page(client: Client, member: User) -> None:
    spend(member, cost=1)

    response, _ = page(client, member, f"?cursor=-{UUID(int=2**128 - 1)}")

    assert costs(response) == [1]


def test_a_cursor_from_another_space_shows_only_the_viewers_rows(client: Client, spent: None, member: User) -> None:
    theirs = UsageRecord.objects.get(cost=9 * USD // 100)

    assert costs(page(client, member, f"?cursor={theirs.pk}")[0]) == [USD // 100, USD // 50]
    assert costs(page(client, member, f"?cursor=-{UUID(int=0)}")[0]) == [USD // 100, USD // 50]


def test_urls_keep_the_filter_and_leave_out_defaults(client: Client, member: User) -> None:
    for _ in range(21):
        spend(member, model="a&b")

    response, _ = page(client, member, {"model": "a&b", "type": "consume", "size": "20", "user": "", "from": _day(6)})

    last = rows(response)[-1].pk
    log = response.context["log"]
    assert log.page.older_url == f"/console/usage/?model=a%26b&type=consume&cursor={last}"
    assert log.url(size=50) == "/console/usage/?model=a%26b&type=consume&size=50"
    today = next(link.url for link in log.periods if link.label == "Today")
    assert today == f"/console/usage/?from={_day(0)}&to={_day(0)}&model=a%26b&type=consume"


# -- Responses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["mira", "jun"])
def test_the_number_of_queries_is_the_same_for_one_row_and_a_hundred(
    client: Client, manager: User, member: User, space: Space, who: str
) -> None:
    user = User.objects.get(username=who)
    counts = []
    for more in (0, 1, 2, 97):
        for count in range(more):
            spend(member, cost=count + 1, model=f"model-{count % 5}")
        client.force_login(user, backend="accounts.backends.LivingUserBackend")
        client.get("/console/usage/")
        with CaptureQueriesContext(connection) as queries:
            response = client.get("/console/usage/?size=100")
        counts.append(len(queries))

    assert len(rows(response)) == 100
    assert len(set(counts)) == 1 and counts[0] <= 12, counts


def test_htmx_gets_the_log_and_a_url_without_empty_parameters(client: Client, member: User) -> None:
    spend(member)
    headers = {"HX-Request": "true", "HX-Target": "usage-log"}

    response, text = page(client, member, {"user": "", "model": "gpt-4o-mini", "size": "20"}, **headers)

    assert response.content.decode().strip().startswith('<div class="logview" id="usage-log"')
    assert response["HX-Push-Url"] == "/console/usage/?model=gpt-4o-mini"
    assert "1 request" in text and "<html" not in response.content.decode()


def test_a_fresh_space_is_told_what_will_come(client: Client, manager: User) -> None:
    text = page(client, manager)[1]

    assert "No requests in the last 7 days" in text and "Spend $0.00 Requests 0" in text
    assert "Clear filters" not in text


def test_no_result_offers_to_clear_the_filters(client: Client, spent: None, manager: User) -> None:
    response, text = page(client, manager, {"model": "none"})

    assert "No request matches these filters" in text
    assert '<a class="btn" href="/console/usage/">Clear filters</a>' in response.content.decode()


@pytest.mark.parametrize(
    "junk",
    ["", " ", "\0", "x" * 9000, "-", "--", "9" * 400, "٣" * 32, "😀", "%00", "[]", "\ud7ff", "{" * 9, "2026-W01-1"],
)
@pytest.mark.parametrize("name", ["from", "to", "user", "token", "model", "type", "request_id", "size", "cursor"])
def test_invalid_parameters_are_answered(client: Client, member: User, manager: User, name: str, junk: str) -> None:
    spend(member)

    for user in (manager, member):
        assert page(client, user, {name: junk})[0].status_code == 200


@pytest.mark.parametrize("query", ["size=7", "size=101", "type=Consume", "cursor=zzz", "from=soon", "to=2026-02-30"])
def test_invalid_choices_are_ignored(client: Client, member: User, query: str) -> None:
    spend(member)

    response, _ = page(client, member, f"?{query}")

    assert len(rows(response)) == 1 and response.context["log"].shown_url == "/console/usage/"


def test_the_sidebar_links_to_the_page(client: Client, member: User) -> None:
    content = page(client, member)[0].content.decode()

    assert re.search(r'<a class="nav__item" href="/console/usage/" aria-current="page">.*?Usage Logs', content)
