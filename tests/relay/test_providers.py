"""What providers answer is charged as told, in every dialect. Failures are free, and leaving is not."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.relay.conftest import wait_for
from tests.relay.market import CHAT, RESPONSE, Market
from tests.relay.provider.asked import ENDPOINTS, written
from tests.relay.provider.billing import Mood
from tests.relay.provider.faults import FAULTS, QUIRKS
from tests.relay.provider.kinds import KINDS
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db(transaction=True)

CROWD = 40


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses"])
def test_each_dialects_usage_is_charged_as_told(market: Market, path: str) -> None:
    """To clients that did not ask for the usage of a stream, which still get every word."""
    kinds = [name for name, kind in KINDS.items() if path in kind.serves]
    market.sell(kinds, ["long", "media"])
    mood, found = Mood(used=90, cached=30, written=50, reasoning=60), []
    for kind in kinds:
        for offer, numbers, is_stream in (("long", "int", True), ("media", "float", True), ("media", "digits", False)):
            body = {**ENDPOINTS[path].base, "model": f"{kind}.{offer}", "stream": is_stream}
            outcome = market.ask(path, body, mood=replace(mood, numbers=numbers))
            wrong = outcome.violations() if outcome.answer.status_code == 200 else [outcome.answer.text]
            found += [f"{body['model']}, stream {is_stream}: {each}" for each in wrong]

    assert not found, "\n".join(found)


def test_streams_are_judged_by_their_bytes(plain: Market) -> None:
    found = []
    for quirk in QUIRKS:
        for path, base in (("chat/completions", CHAT), ("responses", RESPONSE)):
            outcome = plain.ask(path, {**base, "stream": True}, mood=Mood(quirk=quirk))
            wrong = outcome.violations() if outcome.answer.status_code == 200 else [outcome.answer.text]
            found += [f"{quirk}, {path}: {each}" for each in wrong]

    assert not found, "\n".join(found)


def test_what_fails_is_free_and_the_next_upstream_is_asked(market: Market) -> None:
    names = {fault: f"twice-{fault}".replace(" ", "-") for fault in FAULTS}
    for fault in FAULTS:
        market.sell_failing("openai", fault)
    market.wait_until_offered(*names.values())
    found = {}
    for fault, model in names.items():
        outcome = market.ask("chat/completions", {**CHAT, "model": model, "stream": FAULTS[fault].is_stream})
        charged = [(record.status, record.cost) for record in outcome.records]
        found[fault] = (outcome.answer.status_code, [entry.refused for entry in outcome.entries][1:], charged)

    # The hello of CHAT: 30 tokens at $2.50, 40 at $10.
    assert found == dict.fromkeys(FAULTS, (200, [0], [(200, 475_000)]))


def test_a_failure_of_the_only_upstream_costs_nothing(market: Market) -> None:
    names = {fault: f"alone-{fault}".replace(" ", "-") for fault in FAULTS}
    for fault in FAULTS:
        market.sell_failing("openai", fault)
    market.wait_until_offered(*names.values())
    found = {}
    for fault, model in names.items():
        outcome = market.ask("chat/completions", {**CHAT, "model": model, "stream": FAULTS[fault].is_stream})
        charged = [(record.kind, record.cost) for record in outcome.records]
        found[fault] = (outcome.answer.status_code, outcome.answer.headers.get("retry-after"), charged)

    free = [("error", 0)]
    wanted = dict.fromkeys(FAULTS, (502, None, free)) | {"rate limited": (429, "7", free)}
    # An upstream that does not know the model may be answered either way.
    wanted["not found"] = (found["not found"][0], None, free)
    assert found == wanted and found["not found"][0] in (404, 502)


def test_a_response_that_failed_without_usage_is_free(market: Market) -> None:
    market.sell_failing("openai", "failed response")
    market.wait_until_offered("alone-failed-response")

    outcome = market.ask("responses", {**RESPONSE, "model": "alone-failed-response", "stream": True})

    assert [(record.kind, record.cost) for record in outcome.records] == [("error", 0)]


# -- Leaving ----------------------------------------------------------------------------------------------------------


def leave(market: Market, body: dict[str, Any], *, after_s: float = 0.0, after: bytes = b"") -> None:
    """Send a request and close the connection after some seconds, or when these bytes were received."""
    raw, where = written(body), urlsplit(market.url)
    head = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {market.keys['rich']}",
        f"Content-Length: {len(raw)}",
    ]
    with socket.create_connection((where.hostname, where.port), timeout=20) as client:
        client.sendall("\r\n".join([*head, "", ""]).encode() + raw)
        received = b""
        while after and after not in received:
            received += client.recv(65536)
        time.sleep(after_s)


def test_forty_who_leave_before_the_answer_pay_for_it(plain: Market) -> None:
    plain.provider.mood = Mood(delay_s=3)

    with ThreadPoolExecutor(CROWD) as pool:
        list(pool.map(lambda _: leave(plain, CHAT, after_s=1), range(CROWD)))

    assert len(plain.provider.ledger) == 0
    wait_for(lambda: UsageRecord.objects.count() == CROWD)
    assert [record.cost for record in UsageRecord.objects.all()] == [475_000] * CROWD
    assert plain.violations() == []


def test_who_leaves_a_stream_at_a_marker_pays_all_of_it(plain: Market) -> None:
    plain.provider.mood = Mood(pace_s=0.1)

    leave(plain, {**CHAT, "stream": True}, after=b"word ")

    wait_for(UsageRecord.objects.exists)
    assert UsageRecord.objects.get().cost == 475_000
    assert plain.violations() == []
