"""Failures in the middle of things: who is asked next, what is paid, and what the client is told."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import requests

from accounts.models import User
from core.money import NANOS_PER_USD
from quotas.models import Wallet
from quotas.reconcile import reconcile
from relay.models import Model, Price, Upstream
from tests.relay.conftest import MODEL, serve, wait_for
from tests.relay.servers import Script, Server, event, in_thread, json_reply, stream_reply
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db(transaction=True)

USD = NANOS_PER_USD
TOLD = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
COST = 100 * 2_500 + 10 * 10_000
HELLO = [{"role": "user", "content": "x" * 400}]


def chunk(delta: dict[str, Any], **more: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} | more)


FINISHED = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
GOOD_STREAM = stream_reply(
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "from the second"}),
    FINISHED,
    event({"choices": [], "usage": TOLD}),
    b"data: [DONE]\n\n",
)
CREATED = event({"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "usage": None}})
FAILED = event(
    {
        "type": "response.failed",
        "response": {"id": "resp_1", "error": {"code": "server_error", "message": "x"}, "usage": None},
    }
)
COMPLETED = event(
    {
        "type": "response.completed",
        "response": {
            "id": "resp_2",
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "ok"}]}],
            "usage": {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110},
        },
    }
)
ERROR = event({"error": {"message": "down", "code": 502}})


def behind(url: str, key: str, offered: Model, *servers: Server) -> None:
    """Serve the model by these servers, in order of priority, and wait until the relay knows."""
    Upstream.objects.all().delete()
    for priority, server in enumerate(servers):
        serve(offered, f"up{priority}", server.url, priority=priority)
    # Two refreshes of the catalogue, which happen every 0.1 s.
    time.sleep(0.4)


def ask(url: str, key: str, path: str = "chat/completions", **fields: Any) -> requests.Response:
    shape: dict[str, Any] = {"input": "x" * 400} if path == "responses" else {"messages": HELLO}
    headers = {"Authorization": f"Bearer {key}"}
    return requests.post(f"{url}/{path}", json={"model": MODEL} | shape | fields, headers=headers, timeout=30)


USELESS: dict[str, tuple[str, Script]] = {
    "created, then failed": ("responses", stream_reply(CREATED, 0.3, FAILED)),
    "created, then the end": ("responses", stream_reply(CREATED, 0.3)),
    "an empty role, then an error": ("chat/completions", stream_reply(chunk({"role": "assistant"}), 0.3, ERROR)),
    "an empty role, then the end": ("chat/completions", stream_reply(chunk({"content": ""}), 0.3)),
    "a filter's result, then an error": (
        "chat/completions",
        stream_reply(event({"choices": [], "prompt_filter_results": [{}]}), 0.3, ERROR),
    ),
    "input alone told, then an error": (
        "chat/completions",
        stream_reply(
            chunk({"role": "assistant"}, usage={"prompt_tokens": 100, "completion_tokens": 0, "total_tokens": 100}),
            0.3,
            ERROR,
        ),
    ),
}


@pytest.mark.parametrize("name", USELESS)
def test_a_stream_that_fails_before_it_made_anything_is_free_and_followed_by_the_next(
    relay_url: str, key: str, member: User, offered: Model, name: str
) -> None:
    path, script = USELESS[name]
    good = stream_reply(COMPLETED) if path == "responses" else GOOD_STREAM
    first, second = Server(script), Server(good)
    with in_thread(first, second):
        behind(relay_url, key, offered, first, second)
        answer = ask(relay_url, key, path, stream=True, **({} if path == "responses" else {"max_tokens": 50}))
        assert (len(first.requests), len(second.requests)) == (1, 1)

    assert answer.status_code == 200
    assert '"down"' not in answer.text and "resp_1" not in answer.text
    record = wait_for(UsageRecord.objects.first)
    assert (record.kind, record.cost, record.details["upstream"]) == ("consume", COST, "up1")


def test_alone_it_is_an_error_that_costs_nothing(relay_url: str, key: str, member: User, offered: Model) -> None:
    server = Server(stream_reply(CREATED, 0.3, FAILED))
    with in_thread(server):
        behind(relay_url, key, offered, server)
        answer = ask(relay_url, key, "responses", stream=True)

    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    record = wait_for(UsageRecord.objects.first)
    assert (record.kind, record.cost) == ("error", 0)


def test_an_error_after_some_output_is_charged_and_tells_nothing_of_the_account(
    relay_url: str, key: str, member: User, offered: Model
) -> None:
    text = "Rate limit in organization org-ABCDEF123456 on tokens"
    server = Server(stream_reply(chunk({"content": "some words"}), event({"error": {"message": text, "code": 429}})))
    with in_thread(server):
        behind(relay_url, key, offered, server)
        answer = ask(relay_url, key, stream=True, max_tokens=50)

    assert "some words" in answer.text and "org-ABCDEF" not in answer.text and "Rate limit" in answer.text
    record = wait_for(UsageRecord.objects.first)
    assert (record.status, record.is_estimated) == (429, True)
    assert "org-" not in json.dumps(record.details)
    assert 0 < record.cost < record.held


def test_an_upstreams_sentence_is_logged_as_the_caller_got_it(
    relay_url: str, key: str, member: User, offered: Model
) -> None:
    text = "Unsupported value in organization org-ABCDEF123456"
    server = Server(json_reply(400, {"error": {"message": text, "type": "invalid_request_error"}}))
    with in_thread(server):
        behind(relay_url, key, offered, server)
        answer = ask(relay_url, key, max_tokens=50)

    told = answer.json()["error"]["message"]
    assert answer.status_code == 400 and "org-" not in told
    assert wait_for(UsageRecord.objects.first).details["message"] == told


def test_encrypted_content_of_another_account_is_tried_at_the_next(
    relay_url: str, key: str, member: User, offered: Model
) -> None:
    refusal = {
        "error": {"message": "The encrypted content abc could not be verified.", "type": "invalid_request_error"}
    }
    ok = {"choices": [{"message": {"role": "assistant", "content": "ok"}}], "usage": TOLD}
    first, second = Server(json_reply(400, refusal)), Server(json_reply(200, ok))
    with in_thread(first, second):
        behind(relay_url, key, offered, first, second)
        answer = ask(relay_url, key, max_tokens=50)

    assert answer.status_code == 200
    assert wait_for(UsageRecord.objects.first).cost == COST


# -- Names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_member_sees_the_public_name_of_a_model(
    relay_url: str, key: str, member: User, offered: Model, is_stream: bool
) -> None:
    ok = {
        "model": "/data/q",
        "choices": [{"message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
        "usage": TOLD,
    }
    script = (
        stream_reply(chunk({"content": "a"}, model="/data/q"), FINISHED, event({"choices": [], "usage": TOLD}))
        if is_stream
        else json_reply(200, ok)
    )
    server = Server(script)
    with in_thread(server):
        behind(relay_url, key, offered, server)
        Upstream.objects.update(model_names={MODEL: "/data/q"})
        time.sleep(0.4)
        answer = ask(relay_url, key, max_tokens=50, stream=is_stream)
        assert server.body()["model"] == "/data/q"

    assert "/data/q" not in answer.text and MODEL in answer.text
    assert "answered_model" not in wait_for(UsageRecord.objects.first).details


# -- Money ------------------------------------------------------------------------------------------------------------


def test_a_stream_tells_its_cost_in_the_usage_that_was_asked_for(
    relay_url: str, key: str, member: User, offered: Model
) -> None:
    server = Server(GOOD_STREAM)
    with in_thread(server):
        behind(relay_url, key, offered, server)
        answer = ask(relay_url, key, stream=True, max_tokens=50, stream_options={"include_usage": True})

    told = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert told[-1]["usage"] == TOLD | {"cost": COST / USD}
    assert ": cost_usd=0.00035 " in answer.text


def priority(offered: Model) -> None:
    row = {"when": {"service_tier": "priority"}, "prices": {"input": 5 * USD, "output": 20 * USD}}
    Price.objects.filter(model=offered).update(rows=[row])


TIERED = {
    "service_tier": "priority",
    "choices": [{"message": {"role": "assistant", "content": "ok"}, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
}


@pytest.mark.parametrize(("kind", "sent"), [("openai", "default"), ("custom", None)])
def test_the_tier_of_an_account_is_either_sent_or_held(
    relay_url: str, key: str, member: User, offered: Model, kind: str, sent: str | None
) -> None:
    priority(offered)
    server = Server(json_reply(200, TIERED))
    with in_thread(server):
        behind(relay_url, key, offered, server)
        Upstream.objects.update(kind=kind)
        time.sleep(0.4)
        ask(relay_url, key, max_tokens=50)
        assert server.body().get("service_tier") == sent

    record = wait_for(UsageRecord.objects.first)
    assert record.cost == 100 * 5_000 + 50 * 20_000
    # Where the tier was sent, another one in the answer is the provider's doing.
    assert record.held >= record.cost or sent is not None
    assert record.shortfall == 0


def test_an_upstream_that_ignores_its_limit_is_held_by_the_window_from_then_on(
    relay_url: str, key: str, member: User, offered: Model
) -> None:
    beyond = {"prompt_tokens": 100, "completion_tokens": 5_000, "total_tokens": 5_100}
    answer = {"choices": [{"message": {"role": "assistant", "content": "ok"}}], "usage": beyond}
    Model.objects.update(context_tokens=20_000)
    server = Server(json_reply(200, answer), repeats=True)
    with in_thread(server):
        behind(relay_url, key, offered, server)
        ask(relay_url, key, max_tokens=50)
        ask(relay_url, key, max_tokens=50)

    first, second = UsageRecord.objects.order_by("id")
    assert (first.cost, first.details["cut"]) == (first.held, True)
    assert second.held >= 20_000 * 10_000
    assert second.cost == 100 * 2_500 + 5_000 * 10_000
    assert Wallet.objects.get(user=member).spent == first.cost + second.cost
    assert reconcile(member.space) == []
