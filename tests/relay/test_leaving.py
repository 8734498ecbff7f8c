"""Clients that leave: what the upstream was asked to do is read on for a while, and paid."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from threading import Thread
from typing import Any

import pytest
import requests

from accounts.models import User
from core.money import NANOS_PER_USD
from quotas.models import Hold, Wallet
from quotas.reconcile import reconcile
from relay.models import Model, Upstream
from tests.relay.conftest import MODEL, start_relay, wait_for, wait_until_offered
from tests.relay.servers import Script, Server, event, in_thread, json_reply, stream_reply
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db(transaction=True)

USAGE = {"prompt_tokens": 1000, "completion_tokens": 40_000, "total_tokens": 41_000}
# At $2.50 and $10.00 a million.
COST = 1000 * 2_500 + 40_000 * 10_000
ANSWER = {"choices": [{"index": 0, "message": {"content": "ok"}, "finish_reason": "stop"}], "usage": USAGE}
LINGER_S = 2.0


def delta(text: str) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], "usage": None})


FINISHED = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None})
TOLD = event({"choices": [], "usage": USAGE}) + b"data: [DONE]\n\n"


@pytest.fixture
def impatient_relay(offered: Model, key: str) -> Iterator[str]:
    """A relay that reads an answer on for two seconds, whole or streamed."""
    Model.objects.update(max_output_tokens=64_000, default_output_tokens=64_000)
    url, process = start_relay(LEFT_ANSWER_S=str(LINGER_S), LEFT_STREAM_S=str(LINGER_S))
    wait_until_offered(url, key)
    yield url
    process.stop()


def leave(url: str, key: str, script: Script, *, after_s: float, **fields: Any) -> UsageRecord:
    """Ask, leave after some seconds, and wait for the record."""
    server = Server(script)
    with in_thread(server):
        Upstream.objects.update(base_url=server.url)
        wait_for(lambda: _is_reloaded(url, key))
        body: Any = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "x" * 4000}],
            "max_tokens": 50_000,
        } | fields
        with (
            suppress(requests.Timeout, requests.ConnectionError),
            requests.post(
                f"{url}/chat/completions",
                json=body,
                headers={"Authorization": f"Bearer {key}"},
                timeout=after_s,
                stream=bool(fields.get("stream")),
            ) as answer,
        ):
            # Reads up to the first event, and leaves.
            next(answer.iter_lines(), None)
        record: UsageRecord = wait_for(UsageRecord.objects.first, seconds=20)
    assert not Hold.objects.exists()
    return record


def _is_reloaded(url: str, key: str) -> bool:
    # Two refreshes of the catalogue, which happen every 0.1 s.
    time.sleep(0.4)
    return requests.get(f"{url}/models", headers={"Authorization": f"Bearer {key}"}, timeout=5).ok


def spent(member: User) -> int:
    assert reconcile(member.space) == []
    return Wallet.objects.get(user=member).spent


def test_a_whole_answer_is_read_to_its_end_and_charged_as_told(impatient_relay: str, key: str, member: User) -> None:
    record = leave(impatient_relay, key, [1.5, *json_reply(200, ANSWER)], after_s=0.7)

    assert (record.cost, record.status, record.code) == (COST, 499, "client_gone")
    assert record.details["client_left"] is True and not record.is_estimated
    assert spent(member) == COST


def test_a_stream_left_at_a_marker_is_charged_as_told(impatient_relay: str, key: str, member: User) -> None:
    script = stream_reply(delta("a marker"), 1.0, delta("and more"), FINISHED, TOLD)

    record = leave(impatient_relay, key, script, after_s=5, stream=True)

    assert (record.cost, record.code, record.is_estimated) == (COST, "client_gone", False)
    assert spent(member) == COST


def test_an_answer_that_does_not_end_in_time_is_charged_by_the_usual_speed(
    impatient_relay: str, key: str, member: User
) -> None:
    record = leave(impatient_relay, key, [30.0], after_s=0.7)

    # The whole input by its bytes, and 60 tokens a second (of a model that never answered) for some two seconds.
    assert record.is_estimated and record.code == "client_gone"
    assert record.input_tokens >= 1000
    assert 60 * LINGER_S <= record.output_tokens <= 60 * LINGER_S * 4
    assert 0 < record.cost <= record.held
    assert spent(member) == record.cost


def test_a_stream_that_does_not_end_in_time_is_charged_by_the_usual_speed(
    impatient_relay: str, key: str, member: User
) -> None:
    record = leave(impatient_relay, key, stream_reply(delta("a"), 30.0), after_s=5, stream=True)

    assert record.is_estimated and record.code == "client_gone"
    assert record.output_tokens >= 60 * LINGER_S
    assert spent(member) == record.cost <= record.held


def test_what_was_delivered_is_charged_where_it_is_more(impatient_relay: str, key: str, member: User) -> None:
    long = "word " * 20_000

    record = leave(impatient_relay, key, stream_reply(delta(long), 30.0), after_s=5, stream=True)

    assert record.output_tokens >= len(long) // 4
    assert spent(member) == record.cost


def test_forty_clients_that_leave_at_once_all_pay(impatient_relay: str, key: str, member: User) -> None:
    Wallet.objects.filter(user=member).update(total=100 * NANOS_PER_USD)
    Wallet.objects.filter(kind="pool").update(total=1000 * NANOS_PER_USD, allocated=100 * NANOS_PER_USD)
    server = Server([1.5, *json_reply(200, ANSWER)], repeats=True)
    with in_thread(server):
        Upstream.objects.update(base_url=server.url)
        wait_for(lambda: _is_reloaded(impatient_relay, key))
        sessions = [_ask_and_leave(impatient_relay, key) for _ in range(40)]
        for session in sessions:
            session.join()
        wait_for(lambda: UsageRecord.objects.count() == 40, seconds=30)

    assert {record.cost for record in UsageRecord.objects.all()} == {COST}
    assert Wallet.objects.get(user=member).spent == 40 * COST


def _ask_and_leave(url: str, key: str) -> Any:
    def ask() -> None:
        body: Any = {"model": MODEL, "messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 50_000}
        with suppress(requests.Timeout, requests.ConnectionError):
            requests.post(f"{url}/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=0.7)

    thread = Thread(target=ask)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "told", [{"prompt_tokens": 100, "completion_tokens": 0}, {"prompt_tokens": 0, "completion_tokens": 0}]
)
def test_a_marker_that_tells_usage_does_not_make_hidden_work_free(
    impatient_relay: str, key: str, member: User, told: dict[str, int]
) -> None:
    marker = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": "a"}}], "usage": told})

    record = leave(impatient_relay, key, stream_reply(marker, 30.0), after_s=5, stream=True)

    assert record.is_estimated
    assert record.output_tokens >= 60 * LINGER_S
    assert record.input_tokens >= 100
