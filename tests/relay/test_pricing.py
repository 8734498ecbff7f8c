from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.pricing import (
    MAX_PRICE_NANOS,
    MAX_TOKENS,
    MILLION,
    Rate,
    Term,
    Usage,
    affordable_output_tokens,
    bound_nanos,
    cost_nanos,
    estimate_tokens,
    parse_usage,
    terms,
)

PRICES = st.integers(0, 10) | st.integers(0, MAX_PRICE_NANOS)
TOKENS = st.integers(0, 5) | st.integers(0, MAX_TOKENS)
FEW = st.integers(0, 20)
RATES = st.builds(Rate, PRICES, PRICES, PRICES, PRICES, PRICES, PRICES)
BIGINT = 2**63

GPT_4O = Rate(input=2_500_000_000, cached_input=1_250_000_000, output=10_000_000_000)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    given_tokens = draw(TOKENS)
    return Usage(given_tokens, draw(st.integers(0, given_tokens)), draw(TOKENS), draw(FEW), draw(FEW))


@pytest.mark.parametrize(
    ("rate", "usage", "nanos"),
    [
        (GPT_4O, Usage(), 0),
        (GPT_4O, Usage(1_000_000, 0, 0), 2_500_000_000),
        (GPT_4O, Usage(1000, 400, 50), 600 * 2500 + 400 * 1250 + 50 * 10_000),
        (GPT_4O, Usage(100, 100, 0), 100 * 1250),
        (Rate(input=1), Usage(1, 0, 0), 1),
        (Rate(input=1, cached_input=1, output=1), Usage(2, 1, 1), 1),
        (Rate(input=500_000, output=500_000), Usage(1, 0, 1), 1),
        (Rate(input=500_001, output=500_000), Usage(1, 0, 1), 2),
        (Rate(per_request=7, per_image=11, per_second=13), Usage(images=2, seconds=3), 7 + 22 + 39),
        (Rate(), Usage(5, 1, 5, 5, 5), 0),
    ],
)
def test_a_cost_is_its_tokens_at_their_prices_rounded_up_once(rate: Rate, usage: Usage, nanos: int) -> None:
    assert cost_nanos(rate, usage) == nanos


@given(RATES, usages())
def test_a_cost_is_the_sum_of_its_terms_rounded_up_and_fits_the_database(rate: Rate, usage: Usage) -> None:
    exact = sum((Fraction(term.quantity * term.price, term.per) for term in terms(rate, usage)), Fraction(0))

    assert cost_nanos(rate, usage) == ceil(exact)
    assert 0 <= cost_nanos(rate, usage) < BIGINT


@given(RATES, usages(), st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 8), st.integers(0, 10**12))
def test_a_bound_is_never_below_the_cost(
    rate: Rate, usage: Usage, spare_bytes: int, spare_tokens: int, choices: int, media_nanos: int
) -> None:
    bound = bound_nanos(
        rate,
        body_bytes=usage.input_tokens + spare_bytes,
        choices=choices,
        output_tokens=-(-usage.output_tokens // choices) + spare_tokens,
        media_nanos=media_nanos,
        images=usage.images,
        seconds=usage.seconds,
    )

    assert bound >= cost_nanos(rate, usage) + media_nanos


@given(RATES, st.integers(0, 10**18), st.integers(0, 10**6), st.integers(1, 8), st.integers(0, 10**9), FEW, FEW)
def test_the_affordable_limit_is_the_largest_whose_bound_is_covered(
    rate: Rate, available: int, body_bytes: int, choices: int, media_nanos: int, images: int, seconds: int
) -> None:
    asked: dict[str, int] = {
        "body_bytes": body_bytes,
        "choices": choices,
        "media_nanos": media_nanos,
        "images": images,
        "seconds": seconds,
    }

    tokens = affordable_output_tokens(rate, available_nanos=available, **asked)

    assert tokens <= MAX_TOKENS
    if tokens < 0:
        assert bound_nanos(rate, output_tokens=0, **asked) > available
        return
    assert bound_nanos(rate, output_tokens=tokens, **asked) <= available
    if tokens < MAX_TOKENS:
        assert bound_nanos(rate, output_tokens=tokens + 1, **asked) > available


def test_the_bound_counts_a_body_at_the_higher_of_both_input_prices() -> None:
    rate = Rate(input=1_000_000, cached_input=3_000_000, output=2_000_000)

    assert bound_nanos(rate, body_bytes=10, choices=2, output_tokens=5) == 30 + 20


def test_free_output_is_affordable_up_to_max_tokens_and_uncovered_input_gives_minus_one() -> None:
    assert affordable_output_tokens(Rate(input=1_000_000), available_nanos=9, body_bytes=9, choices=1) == MAX_TOKENS
    assert affordable_output_tokens(Rate(input=1_000_000), available_nanos=8, body_bytes=9, choices=1) == -1
    assert affordable_output_tokens(GPT_4O, available_nanos=9 * 2500, body_bytes=9, choices=1) == 0


def test_terms_leave_out_what_was_free() -> None:
    rate = Rate(input=2_500_000_000, cached_input=1, output=0, per_request=5, per_second=10**9)

    assert terms(rate, Usage(10, 3, 20, images=4, seconds=2)) == [
        Term("input", 7, 2_500_000_000, MILLION),
        Term("cached_input", 3, 1, MILLION),
        Term("request", 1, 5, 1),
        Term("seconds", 2, 10**9, 1),
    ]


@pytest.mark.parametrize(
    ("term", "parts"),
    [
        (Term("input", 7, 2_500_000_000, MILLION), 17_500_000_000),
        (Term("input", 3, 1, MILLION), 3),
        (Term("seconds", 2, 10**9, 1), 2 * 10**15),
    ],
)
def test_a_term_is_exact_to_the_millionth_of_a_nano_dollar(term: Term, parts: int) -> None:
    assert term.parts == parts


@given(RATES)
def test_a_rate_is_restored_from_its_snapshot(rate: Rate) -> None:
    assert Rate.of(rate.snapshot()) == rate
    assert Rate.of(rate.snapshot() | {"added_later": 5}) == rate


def test_a_rate_as_text_lists_its_prices_in_dollars() -> None:
    assert str(GPT_4O) == "input $2.50, cached input $1.25, output $10.00"
    assert str(Rate()) == "free"


@pytest.mark.parametrize("make", [lambda: Rate(input=-1), lambda: Usage(output_tokens=-1), lambda: Usage(1, 2)])
def test_impossible_figures_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"_tokens|input"):
        make()


@pytest.mark.parametrize(("size", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2)])
def test_an_estimate_is_a_token_for_each_started_four_bytes(size: int, tokens: int) -> None:
    assert estimate_tokens(size) == tokens


CHAT = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "prompt_tokens_details": {"cached_tokens": 4}}
RESPONSE = {"input_tokens": 10, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 4}}


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        ({"usage": CHAT}, Usage(10, 4, 5)),
        ({"usage": RESPONSE}, Usage(10, 4, 5)),
        ({"type": "response.completed", "response": {"usage": RESPONSE}}, Usage(10, 4, 5)),
        ({"usage": None, "response": {"usage": RESPONSE}}, Usage(10, 4, 5)),
        ({"usage": {"prompt_tokens": 8, "total_tokens": 8}}, Usage(8, 0, 0)),
        ({"usage": {"prompt_tokens": 8}}, Usage(8, 0, 0)),
        ({"usage": {"prompt_tokens": 8, "total_tokens": 20}}, Usage(8, 0, 12)),
        ({"usage": {"prompt_tokens": 8, "completion_tokens": None, "total_tokens": 5}}, Usage(8, 0, 0)),
        ({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}, Usage()),
        ({"usage": CHAT | {"prompt_tokens_details": {"cached_tokens": 11}}}, Usage(10, 10, 5)),
        ({"usage": CHAT | {"completion_tokens": 10**30}}, Usage(10, 4, MAX_TOKENS)),
    ],
)
def test_usage_is_read_in_the_format_of_chat_and_of_responses(answer: object, usage: Usage) -> None:
    assert parse_usage(answer) == usage


@pytest.mark.parametrize("cached", [-1, "4", True, 4.0, None, [], {}])
def test_invalid_cached_tokens_count_as_zero_which_costs_more(cached: object) -> None:
    assert parse_usage({"usage": CHAT | {"prompt_tokens_details": {"cached_tokens": cached}}}) == Usage(10, 0, 5)
    assert parse_usage({"usage": CHAT | {"prompt_tokens_details": cached}}) == Usage(10, 0, 5)


@pytest.mark.parametrize("junk", [-1, "10", True, 10.0, float("nan"), [10], {"tokens": 10}])
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
def test_invalid_usage_is_none(name: str, junk: object) -> None:
    assert parse_usage({"usage": CHAT | {name: junk}}) is None


@pytest.mark.parametrize(
    "answer",
    [None, [], "usage", 5, {}, {"usage": None}, {"usage": []}, {"usage": {}}, {"usage": {"completion_tokens": 5}}]
    + [{"usage": {"prompt_tokens": None, "completion_tokens": 5}}, {"response": "x"}, {"response": {"usage": "x"}}],
)
def test_missing_usage_is_none(answer: object) -> None:
    assert parse_usage(answer) is None


JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)
COUNTS = st.integers(0, 10**12) | JUNK
DETAILS = st.fixed_dictionaries({}, optional={"cached_tokens": COUNTS}) | JUNK
CHAT_LIKE = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(CHAT, COUNTS) | {"prompt_tokens_details": DETAILS, "input_tokens_details": DETAILS}
)
RESPONSE_LIKE = st.fixed_dictionaries(
    {"input_tokens": st.integers(0, 10**12), "output_tokens": st.integers(0, 10**12)},
    optional={"input_tokens_details": DETAILS},
)


@given(CHAT_LIKE | RESPONSE_LIKE, RATES)
def test_any_reported_usage_is_charged_within_limits_or_estimated(reported: Any, rate: Rate) -> None:
    usage = parse_usage({"usage": reported})

    if usage is not None:
        assert 0 <= usage.cached_tokens <= usage.input_tokens <= MAX_TOKENS
        assert 0 <= cost_nanos(rate, usage) < BIGINT
