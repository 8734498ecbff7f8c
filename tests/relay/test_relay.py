"""The relay called by OpenAI's SDK and by plain HTTP, on both databases."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
import requests
from django.db.models import F
from django.utils import timezone
from openai import OpenAI

from accounts.keys import GRACES, rotate_key
from accounts.models import ApiKey, User
from core.money import NANOS_PER_USD
from quotas.charging import expire_holds
from quotas.members import set_enabled
from quotas.models import Hold, Wallet
from quotas.reconcile import reconcile
from quotas.services import set_remaining
from quotas.spaces import set_suspended
from relay.models import Model
from relay.pricing import Rate, Usage, cost_nanos
from tenants.models import Space
from tests.factories import manager_of
from tests.postgres import free_port
from tests.relay.conftest import MODEL, Process, new_key, serve, wait_for
from usage.models import HourlyUsage, UsageRecord

pytestmark = pytest.mark.django_db(transaction=True)

USD = NANOS_PER_USD
RATE = Rate(input=5 * USD // 2, cached_input=5 * USD // 4, output=10 * USD)
HELLO: Any = [{"role": "user", "content": "Hello"}]


def sdk(url: str, key: str) -> OpenAI:
    return OpenAI(base_url=url, api_key=key, max_retries=0, timeout=30)


def post(url: str, key: str, content: str = "Hello", **fields: Any) -> requests.Response:
    body: Any = {
        "model": MODEL,
        "messages": [{"role": "user", "content": content}],
        "max_completion_tokens": 20,
    } | fields
    headers = {"Authorization": f"Bearer {key}"}
    return requests.post(f"{url}/chat/completions", json=body, headers=headers, timeout=30)


def streaming(content: str) -> Any:
    return {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": content}]}


def books(user: User) -> tuple[int, int, int]:
    """(spent, held, number of holds) of the user's wallet, after all running requests have ended."""
    wait_for(lambda: not Hold.objects.exists())
    wallet = Wallet.objects.get(user=user)
    return wallet.spent, wallet.held, Hold.objects.count()


def balanced(space: Space) -> bool:
    return reconcile(space) == []


def test_a_response_is_charged_by_its_reported_usage(relay_url: str, key: str, member: User) -> None:
    answer = sdk(relay_url, key).chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)

    usage = answer.parse().usage
    assert usage is not None
    cost = cost_nanos(RATE, Usage(input=usage.prompt_tokens, output=usage.completion_tokens))
    record = UsageRecord.objects.get()
    assert (record.cost, record.input_tokens, record.output_tokens) == (
        cost,
        usage.prompt_tokens,
        usage.completion_tokens,
    )
    assert books(member) == (cost, 0, 0)
    assert answer.headers["x-space-request-id"] == str(record.request_id)
    assert record.price["output"] == 10 * USD and record.username == "jun" and record.key_name == "laptop"


def test_a_stream_is_charged_and_its_usage_withheld_unless_requested(relay_url: str, key: str, member: User) -> None:
    client = sdk(relay_url, key)
    plain = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))
    asked = list(
        client.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    assert all(chunk.usage is None and chunk.choices for chunk in plain)
    usage = asked[-1].usage
    assert usage is not None and asked[-1].choices == []
    cost = cost_nanos(RATE, Usage(input=usage.prompt_tokens, output=usage.completion_tokens))
    assert books(member) == (2 * cost, 0, 0)
    assert balanced(member.space)


def test_the_other_endpoints_are_charged_too(relay_url: str, key: str, member: User) -> None:
    client = sdk(relay_url, key)

    client.completions.create(model=MODEL, prompt="Say", max_tokens=5)
    client.embeddings.create(model=MODEL, input="some words")
    client.responses.create(model=MODEL, input="Hello")
    list(client.responses.create(model=MODEL, input="Hello", stream=True))

    records = UsageRecord.objects.all()
    assert len(records) == 4 and all(record.cost > 0 and not record.is_estimated for record in records)
    assert books(member)[0] == sum(record.cost for record in records)


def test_models_lists_only_models_that_the_key_may_use(relay_url: str, key: str, member: User) -> None:
    other = new_key(member, models=("something-else",))

    assert [model.id for model in sdk(relay_url, key).models.list()] == [MODEL]
    assert list(sdk(relay_url, other).models.list()) == []


@pytest.mark.parametrize(
    ("stop", "status", "code"),
    [
        (lambda key: ApiKey.objects.update(is_enabled=False), 401, "key_disabled"),
        (lambda key: ApiKey.objects.update(expires_at=timezone.now()), 401, "key_expired"),
        (lambda key: ApiKey.objects.update(models_allowed=["another"]), 403, "model_not_allowed"),
        (lambda key: ApiKey.objects.update(ips_allowed=["10.0.0.0/8"]), 403, "ip_not_allowed"),
        (lambda key: ApiKey.objects.update(limit=1), 429, "key_limit_reached"),
        (lambda key: ApiKey.objects.update(deleted_at=timezone.now()), 401, "invalid_api_key"),
        (lambda key: User.objects.filter(username="jun").update(is_active=False), 403, "account_disabled"),
        (lambda key: Space.objects.update(suspended_at=timezone.now()), 403, "space_suspended"),
        (lambda key: Wallet.objects.filter(kind="member").update(total=F("spent")), 429, "insufficient_quota"),
    ],
)
def test_a_refused_key_gets_the_reasons_code_and_costs_nothing(
    relay_url: str, key: str, member: User, stop: Callable[[str], Any], status: int, code: str
) -> None:
    assert post(relay_url, key).status_code == 200
    spent = books(member)

    stop(key)
    answer = post(relay_url, key)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers.get("x-should-retry") == ("false" if status == 429 else None)
    assert books(member) == spent
    refused = UsageRecord.objects.filter(kind="error").values_list("code", "status", "cost", "model")
    assert list(refused) == ([(code, status, 0, MODEL)] if code != "invalid_api_key" else [])


@pytest.mark.parametrize("sent", ["", "sk-1-x", "sk-1-" + "a" * 43, "sk-999999-" + "a" * 43, "\u00ff" * 10])
def test_an_unknown_key_is_401_whatever_the_body(relay_url: str, sent: str) -> None:
    for body in (b"{}", b"nonsense", b'{"model": "none"}'):
        headers = {"Authorization": b"Bearer " + sent.encode("latin-1", "replace")}
        answer = requests.post(f"{relay_url}/chat/completions", data=body, headers=headers, timeout=30)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert not UsageRecord.objects.exists()


@pytest.mark.parametrize("path", ["/chat/completions", "/videos"])
def test_a_long_body_with_an_unknown_key_is_refused_early(relay_url: str, key: str, member: User, path: str) -> None:
    """After half a megabyte. With a known but disabled key the rest is read, and the refusal gets a usage record."""
    ApiKey.objects.update(is_enabled=False)
    where = urlsplit(relay_url)
    for presented, is_refused in (("sk-1-" + "a" * 43, True), (key, False)):
        lines = [
            f"POST {where.path}{path} HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {presented}",
            "Content-Length: 600000",
        ]
        with socket.create_connection((where.hostname, where.port), timeout=2) as client:
            client.sendall("\r\n".join([*lines, "", ""]).encode() + b"x" * 500_000)
            if is_refused:
                assert client.recv(1000).startswith(b"HTTP/1.1 401 ")
                continue
            with pytest.raises(TimeoutError):
                client.recv(1000)
            client.sendall(b"x" * 100_000)
            assert client.recv(1000).startswith(b"HTTP/1.1 401 ")
    assert UsageRecord.objects.get().code == "key_disabled"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ("nonsense", 400, None),
        ("[]", 400, None),
        ("{}", 400, "model"),
        ('{"model": 7}', 400, "model"),
        ('{"model": "none"}', 404, "model"),
        ('{"model": "\\ud800"}', 404, "model"),
        ('{"model": "\\u0000"}', 400, "model"),
        ('{"model": "gpt-demo", "stream": "yes"}', 400, "stream"),
        ('{"model": "gpt-demo", "n": 0}', 400, "n"),
        ('{"model": "gpt-demo", "n": 1e9}', 400, "n"),
        ('{"model": "gpt-demo", "max_tokens": -1}', 400, "max_tokens"),
        ('{"model": "gpt-demo", "max_completion_tokens": true}', 400, "max_completion_tokens"),
        ("[" * 100_000, 400, None),
    ],
)
def test_a_bad_body_names_its_field_and_costs_nothing(
    relay_url: str, key: str, member: User, body: str, status: int, param: str | None
) -> None:
    headers = {"Authorization": f"Bearer {key}"}

    answer = requests.post(f"{relay_url}/chat/completions", data=body, headers=headers, timeout=30)

    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert books(member) == (0, 0, 0)
    assert UsageRecord.objects.get().code == error["code"]


def test_a_lone_surrogate_is_passed_to_the_upstream(relay_url: str, key: str, member: User) -> None:
    assert post(relay_url, key, "\ud800").status_code == 200


def test_a_partial_hold_lowers_the_upstreams_completion_limit(relay_url: str, key: str, member: User) -> None:
    manager = manager_of(member.space)
    set_remaining(member=member, remaining_nanos=USD // 1000, actor=manager)

    answer = post(relay_url, key, "demo:tokens=4000", max_completion_tokens=4000)

    assert answer.status_code == 200
    assert 1 <= answer.json()["usage"]["completion_tokens"] < 100
    assert Wallet.objects.get(user=member).remaining >= 0


def test_fifty_concurrent_requests_never_overspend(relay_url: str, key: str, member: User) -> None:
    """The quota covers a few dozen responses of 20 tokens; two hundred are requested, fifty at a time."""
    set_remaining(member=member, remaining_nanos=USD // 100, actor=manager_of(member.space))

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: post(relay_url, key), range(200)))

    spent, held, _ = books(member)
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 429} and spent <= USD // 100 and held == 0
    assert UsageRecord.objects.filter(kind="consume").count() == statuses[200]
    assert post(relay_url, key).status_code in (200, 429)
    assert balanced(member.space)


def test_an_upstreams_failure_costs_nothing_and_is_logged(relay_url: str, key: str, member: User) -> None:
    answer = post(relay_url, key, "demo:error=500")

    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    assert books(member) == (0, 0, 0)
    record = UsageRecord.objects.get()
    assert (record.kind, record.cost, record.code, record.status) == ("error", 0, "upstream_error", 500)


def test_an_upstreams_422_is_passed_on_to_the_client(relay_url: str, key: str, member: User) -> None:
    answer = post(relay_url, key, "demo:error=422")

    assert answer.status_code == 422 and "error" in answer.json()
    assert books(member) == (0, 0, 0)


def test_another_upstream_is_tried_before_the_first_byte(
    relay_url: str, key: str, member: User, offered: Model
) -> None:
    offered.upstreams.update(priority=5)
    serve(offered, "broken", f"http://127.0.0.1:{free_port()}/v1", priority=0)
    wait_for(lambda: post(relay_url, key).status_code == 200)

    assert post(relay_url, key).status_code == 200
    assert not UsageRecord.objects.filter(kind="error").exists()


def test_a_stream_that_breaks_off_is_charged_what_was_delivered(relay_url: str, key: str, member: User) -> None:
    answer = post(relay_url, key, "demo:pace=0.05 demo:break=3 demo:tokens=60", stream=True, max_completion_tokens=60)

    assert answer.content.count(b"data:") >= 1
    spent, *_ = books(member)
    record = UsageRecord.objects.get()
    assert (record.is_estimated, record.code, record.status) == (True, "upstream_broke_off", 502)
    assert 0 < spent == record.cost < record.held


def test_missing_usage_is_estimated_and_zero_usage_costs_nothing(relay_url: str, key: str, member: User) -> None:
    post(relay_url, key, "demo:nousage")
    post(relay_url, key, "demo:zerousage")

    estimated, zero = UsageRecord.objects.order_by("id")
    assert estimated.is_estimated and 0 < estimated.cost <= estimated.held
    assert not zero.is_estimated and zero.cost == 0


def test_usage_beyond_the_hold_and_wallet_records_a_shortfall(relay_url: str, key: str, member: User) -> None:
    post(relay_url, key, "demo:hugeusage")

    record = UsageRecord.objects.get()
    wallet = Wallet.objects.get(user=member)
    assert (wallet.remaining, wallet.held) == (0, 0)
    assert record.cost == 5 * USD and record.shortfall > 0


def test_a_client_that_disconnects_pays_what_was_delivered(relay_url: str, key: str, member: User) -> None:
    body: Any = {
        "model": MODEL,
        "stream": True,
        "messages": [{"role": "user", "content": "demo:pace=0.1 demo:tokens=60"}],
    }
    headers = {"Authorization": f"Bearer {key}"}
    with requests.post(f"{relay_url}/chat/completions", json=body, headers=headers, stream=True, timeout=30) as answer:
        next(answer.iter_content(10))

    spent, *_ = books(member)
    record = UsageRecord.objects.get()
    assert (record.code, record.is_estimated) == ("client_gone", True)
    assert 0 < spent == record.cost < record.held


def test_a_running_stream_finishes_after_its_member_is_disabled(relay_url: str, key: str, member: User) -> None:
    body: Any = {
        "model": MODEL,
        "stream": True,
        "messages": [{"role": "user", "content": "demo:pace=0.05 demo:tokens=20"}],
    }
    headers = {"Authorization": f"Bearer {key}"}
    with requests.post(f"{relay_url}/chat/completions", json=body, headers=headers, stream=True, timeout=30) as answer:
        chunks = answer.iter_content(None)
        next(chunks)
        set_enabled(member=member, is_enabled=False, actor=manager_of(member.space))
        rest = b"".join(chunks)

    assert rest.rstrip().endswith(b"[DONE]")
    assert books(member)[0] == UsageRecord.objects.get().cost > 0
    assert post(relay_url, key).json()["error"]["code"] == "account_disabled"


def test_a_killed_worker_leaves_a_hold_that_is_swept(own_relay: tuple[str, Process], key: str, member: User) -> None:
    url, process = own_relay
    body: Any = {
        "model": MODEL,
        "stream": True,
        "messages": [{"role": "user", "content": "demo:pace=0.2 demo:tokens=60"}],
    }
    headers = {"Authorization": f"Bearer {key}"}
    with requests.post(f"{url}/chat/completions", json=body, headers=headers, stream=True, timeout=30) as answer:
        assert answer.status_code == 200, answer.text
        # A reference, because the garbage-collected generator would close the connection and settle the request.
        chunks = answer.iter_content(10)
        next(chunks)
        process.kill()
        assert Wallet.objects.get(user=member).held > 0

    assert expire_holds(now=timezone.now() + timedelta(minutes=5)) == 1
    assert books(member)[1:] == (0, 0) and balanced(member.space)
    assert UsageRecord.objects.get().code == "hold_expired"


def test_a_keys_limit_holds_under_concurrent_requests(relay_url: str, key: str, member: User) -> None:
    ApiKey.objects.update(limit=USD // 200)

    with ThreadPoolExecutor(30) as pool:
        list(pool.map(lambda _: post(relay_url, key), range(60)))

    books(member)
    limited = ApiKey.objects.get()
    assert limited.spent <= USD // 200 and limited.held == 0
    assert limited.spent == Wallet.objects.get(user=member).spent == HourlyUsage.objects.get().cost


def test_a_rotated_key_and_its_successor_work_during_the_grace(relay_url: str, key: str, member: User) -> None:
    _, fresh = rotate_key(key=ApiKey.objects.get(), grace=GRACES["1h"], actor=member)
    assert [post(relay_url, text).status_code for text in (key, fresh)] == [200, 200]

    ApiKey.objects.update(old_until=timezone.now())
    assert [post(relay_url, text).status_code for text in (key, fresh)] == [401, 200]


def test_a_response_to_an_empty_wallet_forbids_retries(relay_url: str, key: str, member: User) -> None:
    set_remaining(member=member, remaining_nanos=0, actor=manager_of(member.space))

    with pytest.raises(openai.RateLimitError) as refused:
        sdk(relay_url, key).chat.completions.create(model=MODEL, messages=HELLO)

    assert refused.value.response.headers["x-should-retry"] == "false"
    assert "$0.00" in json.loads(refused.value.response.text)["error"]["message"]


def test_a_suspended_space_resumes_spending(relay_url: str, key: str, member: User) -> None:
    for is_suspended, status in ((True, 403), (False, 200)):
        set_suspended(space=member.space, is_suspended=is_suspended, actor=None)
        assert post(relay_url, key).status_code == status
