"""Kinds of upstreams and their settings; docs/upstreams.md agrees with them."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import pytest

from relay.profiles import (
    AUTHS,
    ENDPOINTS,
    KIND_OF_HOST,
    KINDS,
    LIMIT_FIELDS,
    READERS,
    UNKNOWN_FIELDS,
    Profile,
    ProfileError,
    kind_of_address,
    profile_of,
)
from relay.statuses import STATUSES, Kind, verdict_of_status
from tests.relay.conftest import ROOT

DOCUMENT = (ROOT / "docs/upstreams.md").read_text(encoding="utf-8")


def rows(first_column: str) -> list[list[str]]:
    """The cells of the table in the document whose first column has this head."""
    lines = DOCUMENT.split(f"\n| {first_column} |", 1)[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.strip("| ").split(" | ")] for line in lines]


def test_the_kinds_of_the_product_exist() -> None:
    named = "openai azure anthropic gemini mistral openrouter deepseek xai groq moonshot dashscope zhipu together"
    more = "fireworks cohere perplexity vllm ollama llamacpp litellm custom"

    assert {*named.split(), *more.split()} <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_values_of_each_kind_are_valid(kind: str) -> None:
    row = KINDS[kind]

    assert row.kind == kind and "{path}" in row.path
    assert row.auth in AUTHS and row.limit_field in LIMIT_FIELDS and row.unknown_fields in UNKNOWN_FIELDS
    assert row.speaks and row.speaks <= ENDPOINTS
    assert profile_of(kind, {}) == row


def test_an_override_changes_one_value_alone() -> None:
    changed = profile_of("mistral", {"limit_field": "both", "retries": "2", "keeps_state": "true"})

    differing = [
        field.name for field in fields(Profile) if getattr(changed, field.name) != getattr(KINDS["mistral"], field.name)
    ]
    assert differing == ["limit_field", "keeps_state", "retries"]
    assert (changed.limit_field, changed.keeps_state, changed.retries) == ("both", True, 2)


def test_endpoints_are_named_with_or_without_v1_and_slash() -> None:
    assert profile_of("custom", {"speaks": "/v1/chat/completions, embeddings"}).speaks == {
        "/chat/completions",
        "/embeddings",
    }


def test_a_path_of_its_own_replaces_the_kinds_exceptions() -> None:
    changed = profile_of("azure", {"path": "/x/{model}{path}"})

    assert {changed.path_of(path) for path in ENDPOINTS} == {"/x/{model}{path}"}


@pytest.mark.parametrize(
    ("kind", "overrides", "message"),
    [
        ("acme", {}, "kind: there is no “acme”; one of openai, azure"),
        ("openai", {"limit": "x"}, "limit: there is no such setting; one of auth, path, limit_field"),
        ("openai", {"kind": "azure"}, "kind: there is no such setting"),
        ("openai", {"auth": "basic"}, "auth: one of bearer, x-api-key, api-key, x-goog-api-key, none"),
        ("openai", {"limit_field": "n_predict"}, "limit_field: one of max_completion_tokens, max_tokens, both, none"),
        ("openai", {"unknown_fields": True}, "unknown_fields: one of pass, refuse"),
        ("openai", {"keeps_state": "yes"}, "keeps_state: one of true, false"),
        ("openai", {"sends_stream_options": 1}, "sends_stream_options: one of true, false"),
        ("openai", {"retries": "4"}, "retries: a whole number from 0 to 3"),
        ("openai", {"retries": "-1"}, "retries: a whole number"),
        ("openai", {"retries": "²"}, "retries: a whole number"),
        ("openai", {"speaks": "chat"}, "speaks: some of /audio/speech"),
        ("openai", {"speaks": ""}, "speaks: some of"),
        ("openai", {"speaks": [1]}, "speaks: names, separated by commas"),
        ("openai", {"path": "/v2"}, "path: a path with {path}"),
        ("openai", {"path": "{path}?x"}, "path: a path with {path}"),
        ("openai", {"path": "{path}\r\nx"}, "path: a path with {path}"),
        ("openai", {"path": "{path}{key}"}, "path: a path with {path}"),
    ],
)
def test_a_setting_that_is_not_valid_is_named_with_what_is_allowed(
    kind: str, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProfileError, match=re.escape(message)):
        profile_of(kind, overrides)


def yes(value: bool) -> str:
    return "yes" if value else "no"


def test_the_document_has_every_kind_as_it_is() -> None:
    documented = {kind: more for kind, _base, *more in rows("kind")}

    assert documented == {
        kind: [row.auth, row.limit_field, yes(row.sends_stream_options), row.unknown_fields, endpoints(row)]
        for kind, row in KINDS.items()
    }


def endpoints(row: Profile) -> str:
    return "all" if row.speaks == ENDPOINTS else ", ".join(sorted(path[1:] for path in row.speaks))


def test_the_document_has_every_setting() -> None:
    assert [row[0] for row in rows("setting")] == list(READERS)


def test_the_document_has_every_status_as_it_is() -> None:
    documented = {int(row[0]): row[1] for row in rows("status") if row[0].isdigit() and row[0] != "200"}

    assert documented == {status: verdict.kind.value for status, verdict in STATUSES.items()}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Kind.CLIENT), (418, Kind.CLIENT), (500, Kind.UNAVAILABLE), (599, Kind.UNAVAILABLE)]
    + [(301, Kind.UNUSABLE), (101, Kind.UNUSABLE)],
)
def test_a_status_without_a_row_is_judged_by_its_hundred(status: int, kind: Kind) -> None:
    assert verdict_of_status(status).kind is kind


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://API.deepseek.com", "deepseek"),
        ("https://res.openai.azure.com", "azure"),
        ("https://res.openai.azure.com/openai/v1/", "azure-v1"),
        ("https://api.mistral.ai.example/v1", "openai"),
        ("https://mistral.internal/v1", "openai"),
        ("http://127.0.0.1:8001/v1", "openai"),
    ],
)
def test_a_provider_is_known_by_its_address(address: str, kind: str) -> None:
    assert kind_of_address(address) == kind
    assert set(KIND_OF_HOST.values()) <= set(KINDS)
