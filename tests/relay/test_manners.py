"""What clients expect of an API besides its answers: headers, methods, encodings, keys, and addresses that tell."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
import requests

from accounts.models import ApiKey, User
from core.money import NANOS_PER_USD
from quotas.models import Wallet
from relay.encodings import zstd
from tests.relay.conftest import MODEL, new_key, wait_for
from usage.models import UsageRecord

pytestmark = pytest.mark.django_db(transaction=True)

CHAT: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_completion_tokens": 20}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("header", ["Authorization", "x-api-key", "api-key"])
def test_a_key_is_read_from_each_dialects_header(relay_url: str, key: str, header: str) -> None:
    value = f"Bearer {key}" if header == "Authorization" else key

    answer = requests.post(f"{relay_url}/chat/completions", json=CHAT, headers={header: value}, timeout=30)

    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/chat/completions", "/models", "/nowhere"])
def test_a_preflight_needs_no_key(relay_url: str, path: str) -> None:
    asked = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,x-stainless-lang",
    }

    answer = requests.options(f"{relay_url}{path}", headers=asked, timeout=30)

    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-headers"] == "authorization,x-stainless-lang"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in answer.headers


def test_answers_and_refusals_may_be_read_by_any_origin(relay_url: str, key: str) -> None:
    served = requests.post(f"{relay_url}/chat/completions", json=CHAT, headers=bearer(key), timeout=30)
    refused = requests.post(f"{relay_url}/chat/completions", json=CHAT, timeout=30)

    assert (served.status_code, refused.status_code) == (200, 401)
    for answer in (served, refused):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-expose-headers"] == "*"


def test_each_answer_has_a_request_id_and_the_log_keeps_the_clients_own(relay_url: str, key: str) -> None:
    headers = bearer(key) | {"X-Request-ID": "trace-17"}

    answer = requests.post(f"{relay_url}/chat/completions", json=CHAT, headers=headers, timeout=30)
    refused = requests.post(f"{relay_url}/chat/completions", json={}, headers=headers, timeout=30)

    records = {str(record.request_id): record for record in UsageRecord.objects.all()}
    assert set(records) == {answer.headers["x-request-id"], refused.headers["x-request-id"]}
    assert {record.details["client_request_id"] for record in records.values()} == {"trace-17"}
    assert answer.headers["x-space-request-id"] == answer.headers["x-request-id"]


def test_a_client_request_id_that_cannot_be_stored_is_dropped(relay_url: str, key: str) -> None:
    headers = bearer(key) | {"X-Request-ID": "x" * 500}

    requests.post(f"{relay_url}/chat/completions", json=CHAT, headers=headers, timeout=30)

    assert "client_request_id" not in UsageRecord.objects.get().details


@pytest.mark.parametrize(
    ("encoding", "encode"), [("gzip", gzip.compress), ("zstd", zstd.compress)], ids=["gzip", "zstd"]
)
def test_a_compressed_body_is_served(relay_url: str, key: str, encoding: str, encode: Callable[[bytes], bytes]) -> None:
    headers = bearer(key) | {"Content-Encoding": encoding, "Content-Type": "application/json"}

    answer = requests.post(
        f"{relay_url}/chat/completions", data=encode(json.dumps(CHAT).encode()), headers=headers, timeout=30
    )

    assert answer.status_code == 200, answer.text


def test_a_bomb_is_refused_before_it_is_decoded_whole(relay_url: str, key: str) -> None:
    bomb = gzip.compress(bytes(200 * 1024 * 1024))

    answer = requests.post(
        f"{relay_url}/chat/completions", data=bomb, headers=bearer(key) | {"Content-Encoding": "gzip"}, timeout=30
    )

    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "invalid_request")


def test_a_compressed_body_with_an_unknown_key_is_not_decoded(relay_url: str, key: str) -> None:
    headers = bearer(key[:-1] + ("A" if key[-1] != "A" else "B")) | {"Content-Encoding": "gzip"}

    answer = requests.post(f"{relay_url}/chat/completions", data=b"no gzip", headers=headers, timeout=30)

    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


def test_head_is_answered_without_a_body(relay_url: str, key: str) -> None:
    probe = requests.head(relay_url, timeout=30)
    models = requests.head(f"{relay_url}/models", headers=bearer(key), timeout=30)

    assert (probe.status_code, models.status_code, models.content) == (200, 200, b"")


def test_another_method_is_refused_by_name(relay_url: str, key: str) -> None:
    answer = requests.put(f"{relay_url}/chat/completions", headers=bearer(key), timeout=30)

    assert answer.status_code == 405
    assert "POST" in answer.json()["error"]["message"]
    assert answer.headers["allow"] == "POST, OPTIONS"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("POST", "/models", "GET, OPTIONS"), ("GET", "/videos", "POST, OPTIONS"), ("PUT", "/key", "GET, OPTIONS")],
)
def test_a_refused_method_is_told_which_ones_are_allowed(
    relay_url: str, key: str, method: str, path: str, allowed: str
) -> None:
    answer = requests.request(method, f"{relay_url}{path}", headers=bearer(key), timeout=30)

    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_an_unknown_address_says_what_there_is(relay_url: str, key: str) -> None:
    answer = requests.post(f"{relay_url}/chat/complete", json=CHAT, headers=bearer(key), timeout=30)

    assert answer.status_code == 404
    assert "/v1/chat/completions" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "path",
    ["/chat/completions", "/responses", "/models", "/models/gpt-4o", "/models/", "/videos/video_x", "/key"]
    + ["/dashboard/billing/subscription", "/dashboard/billing/usage", "/dashboard/billing/nowhere"],
)
def test_a_base_url_without_its_version_is_told(relay_url: str, key: str, path: str) -> None:
    root = relay_url.removesuffix("/v1")

    answer = requests.post(f"{root}{path}", json=CHAT, headers=bearer(key), timeout=30)

    assert answer.status_code == 404
    assert relay_url in answer.json()["error"]["message"]


def test_models_tell_context_modalities_and_prices(relay_url: str, key: str) -> None:
    row = requests.get(f"{relay_url}/models/{MODEL}", headers=bearer(key), timeout=30).json()

    assert (row["context_length"], row["max_output_tokens"]) == (128_000, 4096)
    assert row["architecture"]["input_modalities"] == ["text", "image"]
    assert row["prices"]["input_usd_per_million_tokens"] == "2.50"
    assert row["pricing"]["prompt"] == "0.0000025"


# -- What remains -----------------------------------------------------------------------------------------------------


def test_a_key_tells_what_it_and_its_owner_have_left(relay_url: str, member: User) -> None:
    key = new_key(member, limit_nanos=NANOS_PER_USD // 2)
    requests.post(f"{relay_url}/chat/completions", json=CHAT, headers=bearer(key), timeout=30)
    row, wallet = ApiKey.objects.latest("created_at"), Wallet.objects.get(user=member)

    told = requests.get(f"{relay_url}/key", headers=bearer(key), timeout=30).json()

    assert row.spent > 0
    assert told["data"]["limit_remaining"] == (NANOS_PER_USD // 2 - row.spent) / NANOS_PER_USD
    assert told["data"]["usage"] == row.spent / NANOS_PER_USD
    assert told["owner"]["username"] == member.username
    assert float(told["owner"]["available_usd"]) == wallet.available / NANOS_PER_USD


def test_billing_addresses_tell_the_tighter_of_key_and_wallet(relay_url: str, key: str, member: User) -> None:
    wallet = Wallet.objects.get(user=member)
    limited = new_key(member, limit_nanos=NANOS_PER_USD // 4)

    def told(of: str, path: str) -> Any:
        return requests.get(f"{relay_url}/dashboard/billing/{path}", headers=bearer(of), timeout=30).json()

    assert told(key, "subscription")["hard_limit_usd"] == wallet.total / NANOS_PER_USD
    assert told(limited, "subscription")["hard_limit_usd"] == 0.25
    assert told(limited, "usage")["total_usage"] == 0
    assert told(limited, "credit_grants")["total_available"] == 0.25


@pytest.mark.parametrize("path", ["/key", "/dashboard/billing/subscription", "/dashboard/billing/usage"])
def test_what_remains_is_told_to_the_key_alone(relay_url: str, path: str) -> None:
    answer = requests.get(f"{relay_url}{path}", timeout=30)

    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


# -- Bodies of strangers ----------------------------------------------------------------------------------------------


def test_a_large_body_with_an_unknown_key_is_refused_before_it_is_whole(relay_url: str, key: str) -> None:
    stranger = key[:-1] + ("A" if key[-1] != "A" else "B")
    sent = 0

    def parts() -> Any:
        nonlocal sent
        for _ in range(400):
            sent += 1
            yield b" " * 64 * 1024

    try:
        answer = requests.post(f"{relay_url}/chat/completions", data=parts(), headers=bearer(stranger), timeout=30)
        assert answer.status_code == 401
    except requests.ConnectionError:
        # The server answered and closed while the client was still sending.
        pass
    assert sent < 400
    assert not UsageRecord.objects.exists()
    wait_for(lambda: requests.get(f"{relay_url}/models", headers=bearer(key), timeout=5).status_code == 200)
