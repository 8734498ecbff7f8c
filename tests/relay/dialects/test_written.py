"""The body for an upstream is written from what was read: limits, pseudonyms, state and stream options by profile."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.dialects import DIALECTS
from relay.dialects.bodies import MAX_COMMAS, MAX_DEPTH, MAX_FIELDS, MAX_PIECES, json_object, model_for_log
from relay.errors import ApiError
from relay.profiles import Profile

CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS = "/chat/completions", "/completions", "/responses", "/embeddings"
HI = [{"role": "user", "content": "hi"}]


def written(path: str, body: dict[str, Any], *, limit: int | None = None, **profile: Any) -> dict[str, Any]:
    dialect = DIALECTS[path]
    ask = dialect.read({"model": "ours"} | body, body_bytes=1000)
    raw = dialect.body_for(ask, Profile(**profile), model="theirs", limit=limit, user="member-7", cache_scope="space-1")
    return json.loads(raw)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("path", "limit_field", "expected"),
    [
        (CHAT, "max_completion_tokens", {"max_completion_tokens": 50}),
        (CHAT, "max_tokens", {"max_tokens": 50}),
        (CHAT, "both", {"max_completion_tokens": 50, "max_tokens": 50}),
        (CHAT, "none", {}),
        (COMPLETIONS, "max_completion_tokens", {"max_tokens": 50}),
        (RESPONSES, "max_tokens", {"max_output_tokens": 50, "store": False}),
    ],
)
def test_the_limit_is_written_under_the_names_of_the_profile_and_no_other(path, limit_field, expected) -> None:
    asked = {"max_tokens": 99, "n_predict": 99}
    assert written(path, asked, limit=50, limit_field=limit_field) == {"model": "theirs"} | expected


def test_without_a_limit_none_is_written() -> None:
    assert written(CHAT, {"messages": HI, "max_tokens": 9}, limit_field="both") == {"model": "theirs", "messages": HI}


def test_a_minimum_and_a_thinking_budget_stay_within_the_limit() -> None:
    asked = {"messages": HI, "min_tokens": 100, "thinking_budget": 100}
    expected = {"model": "theirs", "messages": HI, "min_tokens": 50, "thinking_budget": 50, "max_completion_tokens": 50}
    assert written(CHAT, asked, limit=50) == expected


def test_thinking_without_a_budget_gets_the_limit_as_its_budget() -> None:
    assert written(CHAT, {"enable_thinking": True}, limit=50)["thinking_budget"] == 50
    assert "thinking_budget" not in written(CHAT, {"enable_thinking": True})


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"thinking_budget": 30_000}, {"thinking_budget": 50}),
        ({"enable_thinking": True, "thinking_budget": 30}, {"enable_thinking": True, "thinking_budget": 30}),
        ({"enable_thinking": True}, {"enable_thinking": True, "thinking_budget": 50}),
        ({"thinking_budget": -1}, {"thinking_budget": 50}),
        ({"thinking": True, "reasoning_budget": None}, {"thinking": True, "reasoning_budget": 50}),
        ({"enable_thinking": False}, {"enable_thinking": False}),
    ],
)
def test_a_budget_among_a_templates_values_stays_within_the_limit(asked, sent) -> None:
    assert written(CHAT, {"chat_template_kwargs": asked}, limit=50)["chat_template_kwargs"] == sent


@pytest.mark.parametrize("name", ["thinking_budget", "thinking_token_budget", "reasoning_budget"])
def test_a_thinking_budget_of_any_name_stays_within_the_limit(name) -> None:
    assert written(CHAT, {name: 30_000}, limit=50)[name] == 50


@pytest.mark.parametrize("name", ["user", "safety_identifier", "user_id"])
@pytest.mark.parametrize("value", ["alice@example.org", 7, {"id": "alice"}])
def test_end_users_become_the_pseudonym_of_the_member(name, value) -> None:
    assert written(CHAT, {name: value}) == {"model": "theirs", name: "member-7"}


def test_end_users_that_nobody_named_are_not_written() -> None:
    assert written(CHAT, {"user": None}) == {"model": "theirs"}


def test_a_cache_key_is_hashed_with_its_scope() -> None:
    dialect = DIALECTS[CHAT]
    ask = dialect.read({"model": "m", "prompt_cache_key": "topic"}, body_bytes=100)
    keys = [
        json.loads(dialect.body_for(ask, Profile(), model="m", limit=None, user="", cache_scope=scope))
        for scope in ("space-1", "space-2", "space-1")
    ]

    first, second, third = (key["prompt_cache_key"] for key in keys)
    assert first == third != second
    assert "topic" not in first + second
    assert ask.conversation == "topic"


@pytest.mark.parametrize(
    ("path", "asked", "keeps_state", "expected"),
    [
        (CHAT, {}, False, {}),
        (CHAT, {"store": True, "metadata": {"a": "b"}}, False, {"store": False}),
        (CHAT, {"store": False, "metadata": {"a": "b"}}, False, {"store": False, "metadata": {"a": "b"}}),
        (CHAT, {"store": True, "metadata": {"a": "b"}}, True, {"store": True, "metadata": {"a": "b"}}),
        (RESPONSES, {}, False, {"store": False}),
        (RESPONSES, {"store": True, "metadata": {"a": "b"}}, False, {"store": False, "metadata": {"a": "b"}}),
        (RESPONSES, {}, True, {}),
        (RESPONSES, {"store": True}, True, {"store": True}),
    ],
)
def test_answers_are_kept_upstream_only_where_the_profile_allows_it(path, asked, keeps_state, expected) -> None:
    assert written(path, asked, keeps_state=keeps_state) == {"model": "theirs"} | expected


@pytest.mark.parametrize(
    ("path", "asked", "sends", "expected"),
    [
        (CHAT, None, True, {"include_usage": True}),
        (CHAT, {"include_usage": False, "include_obfuscation": True}, True,
         {"include_usage": True, "include_obfuscation": True}),
        (CHAT, {"continuous_usage_stats": True}, True, {"include_usage": True, "continuous_usage_stats": True}),
        (CHAT, {"include_usage": True}, False, None),
        (COMPLETIONS, None, True, {"include_usage": True}),
        (RESPONSES, None, True, None),
        (RESPONSES, {"include_usage": True, "include_obfuscation": False}, True, {"include_obfuscation": False}),
    ],
)  # fmt: skip
def test_stream_options_ask_for_usage_where_it_must_be_asked_for(path, asked, sends, expected) -> None:
    body = {"stream": True} | ({"stream_options": asked} if asked else {})
    assert written(path, body, sends_stream_options=sends).get("stream_options") == expected


def test_stream_options_without_a_stream_are_left_out() -> None:
    assert "stream_options" not in written(CHAT, {"stream_options": {"include_usage": True}})


@pytest.mark.parametrize(
    ("path", "options", "shows"),
    [(CHAT, None, False), (CHAT, {"include_usage": True}, True), (CHAT, {}, False), (RESPONSES, {}, True)],
)
def test_usage_is_shown_to_clients_that_asked(path, options, shows) -> None:
    assert DIALECTS[path].read({"model": "m", "stream_options": options}, body_bytes=1).shows_usage == shows


@pytest.mark.parametrize(("asked", "sent"), [("auto", "default"), ("fast", "fast"), (None, None)])
def test_a_tier_is_written_only_where_the_client_sent_one(asked, sent) -> None:
    assert written(CHAT, {"service_tier": asked} if asked else {}).get("service_tier") == sent


def test_one_ask_is_written_for_several_upstreams() -> None:
    dialect = DIALECTS[CHAT]
    ask = dialect.read({"model": "m", "messages": HI, "max_tokens": 9, "user": "a", "stream": True}, body_bytes=100)
    kinds = (Profile(limit_field="max_tokens", sends_stream_options=False), Profile())

    first, second, again = (
        dialect.body_for(ask, profile, model="x", limit=5, user="u", cache_scope="") for profile in (*kinds, kinds[0])
    )

    assert first == again != second
    assert b"max_completion_tokens" not in first


def test_duplicate_names_and_escapes_are_written_as_they_were_read() -> None:
    raw = rb'{"model":"cheap","model":"m","se\u0065d":1,"messages":[{"role":"user","content":"hi","content":"\ud83d"}]}'
    ask = DIALECTS[CHAT].read(json_object(raw), body_bytes=len(raw))

    again = DIALECTS[CHAT].body_for(ask, Profile(), model="m", limit=None, user="", cache_scope="")

    assert json.loads(again) == json.loads(raw)


# -- Bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(raw) -> None:
    with pytest.raises(ApiError) as caught:
        json_object(raw)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")


def nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def test_depth_has_a_limit() -> None:
    assert json_object(nested(MAX_DEPTH))
    for depth in (MAX_DEPTH + 1, 900):
        with pytest.raises(ApiError, match="deeper"):
            json_object(nested(depth))


@pytest.mark.parametrize(
    ("most", "more"),
    [
        (b'{"a":[' + b"[]," * (MAX_PIECES - 4) + b"[]]}", b'{"a":[' + b"[]," * MAX_PIECES + b"[]]}"),
        (
            json.dumps({"a": dict.fromkeys(range(MAX_PIECES - 3))}).encode(),
            json.dumps({"a": dict.fromkeys(range(MAX_PIECES))}).encode(),
        ),
        (
            json.dumps(dict.fromkeys(range(MAX_FIELDS))).encode(),
            json.dumps(dict.fromkeys(range(MAX_FIELDS + 1))).encode(),
        ),
        (b'{"a":[' + b"1," * MAX_COMMAS + b"1]}", b'{"a":[' + b"1," * (MAX_COMMAS + 1) + b"1]}"),
    ],
    ids=["lists", "names", "fields", "values"],
)
def test_the_number_of_pieces_has_a_limit(most, more) -> None:
    assert json_object(most)
    with pytest.raises(ApiError, match="more than"):
        json_object(more)


def test_brackets_in_texts_are_neither_depth_nor_pieces() -> None:
    raw = json.dumps({"a": "[{" * MAX_PIECES}).encode()
    assert json_object(raw) == json.loads(raw)


@pytest.mark.parametrize(
    ("raw", "model"),
    [(b'{"model":"m"}', "m"), (b'{"model":["m"]}', ""), (b"{", ""), (b"[1]", ""), (b'{"model":"\\u0000"}', "")],
)
def test_the_model_of_a_refused_body_is_logged_where_it_can_be_stored(raw, model) -> None:
    assert model_for_log(raw) == model
