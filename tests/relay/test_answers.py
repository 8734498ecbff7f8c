"""Reading whole answers: every dialect's usage, the facts that choose a price row, and errors inside a 200."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import quick_json
from relay.answers import Answer, read_answer, read_unusual
from relay.bills import Pricing
from relay.plain_answers import read_plain
from relay.pricing import COUNTS, MAX_TOKENS, MILLION, Extent, PriceList, PriceRow, Rate, Usage, cost_nanos
from relay.usage_reader import _all_tokens, _usual_tokens
from tests.relay import vectors
from tests.relay.answer_dialects import CHAT, ERRORS, PARTLY_TOLD, REASONING, USAGES, chat, details

pytestmark = pytest.mark.any_database

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/messages", "/v1/videos")
WHOLE = [each for each in vectors.vectors("charge", *ENDPOINTS) if "response" in each]


NAMES = [
    *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "cached_tokens"),
    *("cache_read_input_tokens", "cache_creation_input_tokens", "reasoning_tokens", "citation_tokens"),
    *(
        "audio_tokens",
        "image_tokens",
        "cache_write_tokens",
        "promptTokenCount",
        "thoughtsTokenCount",
        "num_sources_used",
    ),
]
DETAILS = [
    *("prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "output_tokens_details"),
    *("cache_creation", "billed_units", "iterations", "tool_usage", "cacheDetails"),
]
NUMBERS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5000), st.integers(), st.floats(), st.text(max_size=3), st.just("12")
)
SMALL = st.integers(0, 5000)


def usages(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    flat = st.dictionaries(st.sampled_from(NAMES), numbers, max_size=8)
    return st.builds(
        lambda own, nested: own | nested, flat, st.dictionaries(st.sampled_from(DETAILS), flat, max_size=3)
    )


def read(body: object, path: str = CHAT, **facts: str) -> Answer:
    return read_answer(json.dumps(body).encode(), path=path, ask_facts=facts)


def counts(body: object, path: str = CHAT, **facts: str) -> dict[str, int] | None:
    usage = read(body, path, **facts).usage
    return None if usage is None else usage.as_counts()


@pytest.mark.parametrize("vector", WHOLE, ids=vectors.identify)
def test_an_example_is_read_and_charged_exactly(vector: vectors.Vector) -> None:
    asked = {name: vector["request"][name] for name in ("service_tier", "speed") if name in vector["request"]}

    answer = read(vector["response"], vector["endpoint"].removeprefix("/v1"), **asked)

    expected, prices = vector["expected"], vectors.price_list(vector)
    usage = answer.usage or Usage()
    if vector["endpoint"] == "/v1/videos":
        # The seconds of a task are read by relay/tasks.py.
        usage = Usage(seconds=int(vector["response"]["seconds"]))
    rate = prices.rate(input_tokens=usage.input_tokens, facts=answer.facts)
    tool_rates = {name: prices.rate(facts={"tool": name}) for name, _ in usage.tools}
    assert vectors.without_reasoning(usage) == vectors.expected_usage(vector)
    assert usage.reasoning_inside == expected.get("reasoning_informational", usage.reasoning_inside)
    assert (answer.error is not None) == expected.get("is_error", False)
    if answer.error is None:
        assert cost_nanos(rate, usage, tool_rates) == expected["cost_nanos"]
    assert answer.told_nanos == expected.get("told_nanos")


@pytest.mark.parametrize(("path", "body", "expected"), [row[1:] for row in USAGES], ids=[row[0] for row in USAGES])
def test_usage_is_read_under_every_name(path: str, body: dict[str, Any], expected: dict[str, int] | None) -> None:
    assert counts(body, path) == expected


# -- Reasoning --------------------------------------------------------------------------------------------------------

USD = 10**9
# Prices per million tokens: input $3, output $15, reasoning $40.
DEAR_REASONING = PriceList(Rate(input=3 * USD, cached_input=3 * USD, output=15 * USD, reasoning=40 * USD))


def bill(usage: Usage, prices: PriceList = DEAR_REASONING, **facts: str) -> Any:
    return Pricing.of(prices, Extent(), facts, context_tokens=1000).bill(usage, facts)


@pytest.mark.parametrize(
    ("path", "body", "expected"), [row[1:] for row in REASONING], ids=[row[0] for row in REASONING]
)
def test_reasoning_is_charged_at_its_own_price_wherever_it_is_told(
    path: str, body: dict[str, Any], expected: tuple[int, int]
) -> None:
    usage = read(body, path).usage
    charged, plain = bill(usage), bill(usage, PriceList(Rate(input=3 * USD, cached_input=3 * USD, output=15 * USD)))

    all_plain = usage.input_tokens * 3000 + usage.output_tokens * 15_000
    assert (charged.usage.output, charged.usage.reasoning) == expected
    assert charged.usage.output_tokens == usage.output_tokens
    assert (plain.cost_nanos, charged.cost_nanos) == (all_plain, all_plain + charged.usage.reasoning * 25_000)


def test_reasoning_has_a_price_in_some_rows_alone() -> None:
    row = PriceRow({"reasoning": 40 * USD}, when=(("service_tier", "priority"),))
    prices = PriceList(Rate(output=15 * USD), (row,))
    usage = Usage(output=100, reasoning_inside=60)

    assert bill(usage, prices).usage.quantities() == {}
    assert bill(usage, prices).cost_nanos == 100 * 15_000
    assert bill(usage, prices, service_tier="priority").usage.quantities() == {"reasoning": 60}
    assert bill(usage, prices, service_tier="priority").cost_nanos == 40 * 15_000 + 60 * 40_000


def test_a_tools_reasoning_is_charged_at_the_tools_own_price() -> None:
    prices = PriceList(Rate(output=1), (PriceRow({"reasoning": MILLION * 7}, when=(("tool", "advisor"),)),))
    usage = Usage(output=9, reasoning_inside=9, tools=(("advisor", Usage(output=5, reasoning_inside=3)),))

    charged = bill(usage, prices)

    assert charged.usage.tools == (("advisor", Usage(output=2, reasoning=3)),)
    assert charged.cost_nanos == 3 * 7 + 1


@given(usages(st.integers(0, 5000)), st.sampled_from([CHAT, "/responses", "/messages"]))
def test_a_price_of_reasoning_changes_no_sum(usage: dict[str, Any], path: str) -> None:
    told = read({"usage": usage}, path).usage or Usage()
    charged = bill(told).usage

    assert (charged.input_tokens, charged.output_tokens) == (told.input_tokens, told.output_tokens)
    assert charged.split(DEAR_REASONING.base, {}) == charged


# -- A usage that is told in part -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "usage", "missing", "expected"), [row[1:] for row in PARTLY_TOLD], ids=[row[0] for row in PARTLY_TOLD]
)
def test_what_is_told_counts_and_what_is_missing_is_estimated(
    path: str, usage: dict[str, Any], missing: str, expected: dict[str, int]
) -> None:
    answer = read({"choices": [{"message": {"content": "x" * 80}}], "usage": usage}, path)

    found = {"input": answer.missing_input, "output": answer.missing_output}
    assert " ".join(name for name, is_missing in found.items() if is_missing) == missing
    assert answer.is_told == (not missing)
    assert answer.usage_with(input_tokens=500, output_tokens=20).as_counts() == expected
    # Only of an answer that does not tell its output.
    assert answer.text_bytes == (80 if "output" in missing else 0)


def test_a_usage_that_is_not_told_is_estimated_whole() -> None:
    answer = read({"choices": [{"message": {"content": "x"}}]})

    assert (answer.usage, answer.is_told) == (None, False)
    assert answer.usage_with(input_tokens=7, output_tokens=3) == Usage(input=7, output=3)


def test_a_total_alone_is_what_input_and_output_come_to() -> None:
    answer = read({"choices": [{"message": {"content": "x"}}], "usage": {"total_tokens": 3000}})

    assert answer.usage is None
    assert answer.usage_with(input_tokens=7, output_tokens=3) == Usage(input=7, output=2993)
    assert answer.usage_with(input_tokens=4000, output_tokens=3) == Usage(input=4000, output=3)


@pytest.mark.parametrize("usage", [{"prompt_tokens": 5}, {"completion_tokens": 5}])
def test_an_error_with_half_a_usage_and_no_output_is_an_error_alone(usage: dict[str, int]) -> None:
    answer = read({"error": {"code": 503, "message": "no"}, "usage": usage})

    assert answer.error is not None
    assert (answer.usage, answer.missing_input, answer.missing_output) == (None, False, False)


@pytest.mark.parametrize(
    ("usage", "nanos"),
    [
        (chat(100, 12, **details(cached_tokens=300)), 745_000),
        (chat(100, 12, 0, **details(cached_tokens=300)), 745_000),
        (chat(100, 12, 112, cost_in_usd_ticks=5, **details(cached_tokens=300)), 745_000),
        (chat(100, 12, 112, server_side_tool_usage_details={}, **details(cached_tokens=300)), 745_000),
        (chat(100, 12, 112, **details(cached_tokens=300)), 245_000),
        (chat(100, 12, **details(cached_tokens=60)), 295_000),
    ],
)
def test_more_cached_tokens_than_the_prompt_has_stand_beside_it_unless_the_total_says_otherwise(
    usage: dict[str, Any], nanos: int
) -> None:
    rate = Rate(input=2_500_000_000, cached_input=1_250_000_000, output=10_000_000_000)

    assert cost_nanos(rate, read(usage).usage) == nanos


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, {"cache_write_5m": 40}),
        ({"cache_write": "cache_write_1h"}, {"cache_write_1h": 40}),
        ({"cache_write": "cache_write_12h"}, {"cache_write_12h": 40}),
    ],
)
def test_writes_without_a_lifetime_have_the_one_that_was_asked_for(
    asked: dict[str, str], expected: dict[str, int]
) -> None:
    usage = {"input_tokens": 10, "output_tokens": 3, "cache_creation_input_tokens": 40}

    answer = read({"content": [], "usage": usage}, "/messages", **asked)

    assert answer.usage.as_counts() == {"input": 10, "output": 3} | expected
    assert answer.facts == {}


def test_inner_runs_that_the_totals_leave_out_stand_beside() -> None:
    run = {"input_tokens": 100, "output_tokens": 20, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 0}
    iterations = [run | {"type": "message"}, run | {"type": "compaction"}, run | {"type": "compaction"}]

    usage = read({"content": [], "usage": run | {"iterations": iterations}}, "/messages").usage

    assert usage == Usage(
        input=100, cached=5, output=20, tools=(("compaction", Usage(input=200, cached=10, output=40)),)
    )


@pytest.mark.parametrize(
    ("body", "asked", "expected"),
    [
        ({}, {"service_tier": "fast"}, {"service_tier": "priority"}),
        ({"service_tier": None}, {"service_tier": "flex"}, {"service_tier": "flex"}),
        ({"service_tier": "auto"}, {"service_tier": "flex"}, {"service_tier": "flex"}),
        ({"service_tier": "default"}, {"service_tier": "priority"}, {"service_tier": "default"}),
        ({"service_tier": "fast"}, {}, {"service_tier": "priority"}),
        (
            {"usage": {"service_tier": "batch", "speed": "fast", "inference_geo": "us"}},
            {},
            {"service_tier": "batch", "speed": "fast", "inference_geo": "us"},
        ),
        ({"response": {"service_tier": "flex"}}, {}, {"service_tier": "flex"}),
        ({"size": "1792x1024", "quality": "hd"}, {"size": "auto"}, {"size": "1792x1024", "quality": "hd"}),
        ({"service_tier": 5}, {}, {}),
    ],
)
def test_what_was_asked_holds_unless_the_answer_says_otherwise(
    body: dict[str, Any], asked: dict[str, str], expected: dict[str, str]
) -> None:
    assert read(chat(1, 1) | body if "usage" not in body else body, **asked).facts == expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"cost": 0.0641}, 64_100_000),
        ({"cost": 0}, 0),
        ({"cost": 1e-10}, 1),
        ({"cost": {"total_cost": 0.5}}, 500_000_000),
        ({"cost_in_usd_ticks": 123}, 13),
        ({"cost": -1}, None),
        ({"cost": True}, None),
        ({"cost": "0.1"}, None),
        ({"cost": 1e300}, None),
        ({}, None),
    ],
)
def test_the_provider_s_own_cost_is_read(usage: dict[str, Any], expected: int | None) -> None:
    assert read(chat(1, 1, **usage)).told_nanos == expected


@pytest.mark.parametrize(("raw", "expected"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS])
def test_an_error_inside_a_200_is_found(raw: bytes, expected: tuple[int, str]) -> None:
    answer = read_answer(raw, path=CHAT, ask_facts={})

    assert answer.error[:2] == expected
    assert (answer.usage, answer.has_output) == (None, False)


@pytest.mark.parametrize(
    "body",
    [
        chat(1, 1),
        chat(1, 1) | {"error": None},
        chat(1, 1) | {"error": {}},
        chat(1, 1) | {"error": {"code": None, "message": ""}},
        {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]},
        {"object": "response", "status": "incomplete", "error": None, "output": [{"type": "message"}]},
        {
            "object": "response",
            "status": "completed",
            "text": {"format": {"type": "text"}},
            "output": [{"type": "message"}],
        },
        {"choices": [{"message": {"content": "x"}}], "base_resp": {"status_code": 0}},
    ],
)
def test_an_answer_is_no_error(body: dict[str, Any]) -> None:
    assert read(body, "/responses").error is None


def test_blank_lines_and_a_byte_order_mark_before_the_answer_are_skipped() -> None:
    raw = b"\xef\xbb\xbf\r\n\n" + json.dumps(chat(5, 2)).encode()

    assert read_answer(raw, path=CHAT, ask_facts={}).usage == Usage(input=5, output=2)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"object": "response", "id": "resp_1"}, "resp_1"),
        ({"object": "response", "id": "resp_1", "store": True}, "resp_1"),
        ({"object": "response", "id": "resp_1", "store": False}, ""),
        ({"object": "response", "id": 5}, ""),
    ],
)
def test_the_id_of_a_kept_response_is_told(body: dict[str, Any], expected: str) -> None:
    items = [{"type": "reasoning", "id": "rs_1"}, {"type": "message", "id": "msg_1"}, {"id": None}, "odd", {}]

    answer = read(body | {"output": items}, "/responses")

    assert answer.stored_id == expected
    assert answer.stored_ids == ((expected, "rs_1", "msg_1") if expected else ())


def test_no_more_than_a_thousand_items_of_a_response_are_told() -> None:
    body = {"object": "response", "id": "resp_1", "output": [{"id": f"msg_{at}"} for at in range(2000)]}

    assert len(read(body, "/responses").stored_ids) == 1001


@pytest.mark.parametrize(
    ("body", "path", "has_output", "text"),
    [
        ({"choices": [{"message": {"role": "assistant", "content": "Grüße"}}]}, CHAT, True, 7),
        ({"choices": [{"message": {"role": "assistant", "content": None}}]}, CHAT, False, 0),
        ({"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}}]}, CHAT, True, 3),
        ({"choices": [{"text": "abc"}]}, "/completions", True, 3),
        (
            {"output": [{"type": "message", "content": [{"type": "output_text", "text": "abcd"}]}]},
            "/responses",
            True,
            4,
        ),
        (
            {"content": [{"type": "text", "text": "abcd"}, {"type": "tool_use", "name": "f", "input": {"a": 1}}]},
            "/messages",
            True,
            12,
        ),
        ({"data": [{"embedding": [0.1, 0.2]}]}, "/embeddings", True, 0),
    ],
)
def test_text_is_measured_where_no_usage_is_told(body: dict[str, Any], path: str, has_output: bool, text: int) -> None:
    answer = read(body, path)

    assert (answer.usage, answer.has_output, answer.text_bytes) == (None, has_output, text)


# -- Whatever comes ---------------------------------------------------------------------------------------------------

JUNK = st.recursive(
    st.one_of(NUMBERS, usages(NUMBERS)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    "usage",
                    "choices",
                    "message",
                    "delta",
                    "error",
                    "output",
                    "response",
                    "x_groq",
                    "tool_usage",
                    "meta",
                    "item",
                ]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)
PATHS = st.sampled_from([CHAT, "/responses", "/messages", "/embeddings", "/images/generations", "/videos"])


@given(JUNK, PATHS)
def test_no_answer_raises_or_counts_below_zero(body: object, path: str) -> None:
    answer = read_answer(json.dumps(body).encode(), path=path, ask_facts={})

    tokens = [] if answer.usage is None else [getattr(answer.usage, name) for name in COUNTS]
    assert all(0 <= count <= 3 * MAX_TOKENS for count in tokens)


@given(st.binary(max_size=60))
def test_no_bytes_raise(raw: bytes) -> None:
    assert read_answer(raw, path=CHAT, ask_facts={}) is not None


def numbers_in(value: object) -> int:
    if isinstance(value, dict):
        return sum(map(numbers_in, value.values()))
    return value if type(value) is int else 0


@given(usages(SMALL), PATHS)
def test_never_more_tokens_are_charged_than_were_told(usage: dict[str, Any], path: str) -> None:
    read_usage = read({"usage": usage}, path).usage or Usage()

    tools = sum(each.input_tokens + each.output_tokens for _, each in read_usage.tools)
    assert read_usage.input_tokens + read_usage.output_tokens + tools <= numbers_in(usage)


@given(
    st.dictionaries(
        st.sampled_from(["prompt", "output", "total", "cached", "reasoning", "audio_input"]), st.integers(0, 9)
    ),
    PATHS,
)
def test_the_shorter_way_reads_usual_counts_the_same(counts: dict[str, int], path: str) -> None:
    usual = _usual_tokens(counts, path)

    whole = {name: count for name, count in _all_tokens(counts, path, "").items() if count}
    assert usual is None or {name: count for name, count in usual.items() if count} == whole


@given(JUNK, PATHS)
def test_a_long_answer_is_read_like_a_short_one(body: object, path: str) -> None:
    whole = {"choices": [{"message": body}], "data": [body], "usage": body, "error": None}
    short = json.dumps(whole).encode()
    padded = short + b" " * 9000

    assert read_answer(padded, path=path, ask_facts={}) == read_answer(short, path=path, ask_facts={})


def test_a_long_answer_is_read_without_its_vectors() -> None:
    raw = json.dumps({"data": [{"embedding": [0.5] * 4000}], "usage": {"prompt_tokens": 8, "total_tokens": 8}}).encode()

    assert read_answer(raw, path="/embeddings", ask_facts={}).usage == Usage(input=8)
    assert quick_json.read_answer(raw)["data"] is True


PLAIN_USAGE = st.fixed_dictionaries(
    {
        "prompt_tokens": st.integers(-1, 2000),
        "completion_tokens": st.integers(-1, 2000),
        "total_tokens": st.integers(0, 4000),
    },
    optional={
        "prompt_tokens_details": st.none()
        | st.fixed_dictionaries({}, optional={"cached_tokens": st.integers(-1, 3000), "audio_tokens": st.just(5)}),
        "completion_tokens_details": st.none()
        | st.fixed_dictionaries({}, optional={"reasoning_tokens": st.integers(-1, 3000)}),
        "cost": st.floats(0, 1),
    },
)
PLAIN_CHOICE = st.fixed_dictionaries(
    {
        "index": st.just(0),
        "message": st.fixed_dictionaries(
            {"role": st.just("assistant"), "content": st.none() | st.text(max_size=5)},
            optional={
                "refusal": st.none(),
                "tool_calls": st.just([{"id": "c", "type": "function"}]),
                "annotations": st.just([]) | st.just([{"type": "url_citation"}]),
                "reasoning_content": st.text(max_size=3),
            },
        ),
    },
    optional={"finish_reason": st.sampled_from(["stop", "length", None]), "logprobs": st.none()},
)
PLAIN_ANSWER = st.fixed_dictionaries(
    {"choices": st.lists(PLAIN_CHOICE, max_size=2), "usage": PLAIN_USAGE, "model": st.sampled_from(["m", "m" * 300])},
    optional={
        "id": st.just("chatcmpl-1"),
        "object": st.just("chat.completion"),
        "created": st.just(1),
        "system_fingerprint": st.none(),
        "service_tier": st.sampled_from(["default", "priority", None]),
        "error": st.just({"message": "down", "code": 502}),
        "x_groq": st.just({"id": "r"}),
    },
)


@given(body=PLAIN_ANSWER, is_balanced=st.booleans())
def test_an_ordinary_answer_is_read_like_any_other(body: dict[str, Any], is_balanced: bool) -> None:
    if is_balanced:
        body["usage"]["total_tokens"] = body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]
    raw = json.dumps(body).encode()

    short, long = (reader(raw, path="/chat/completions", ask_facts={}) for reader in (read_answer, read_unusual))

    assert short == long


def test_the_short_way_is_taken_for_an_ordinary_answer() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 1,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}

    assert read_plain(json.dumps(body).encode()) == (Usage(input=5, cached=4, output=1), "m", None)
