from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.money import MAX_AMOUNT_NANOS
from relay.pricing import (
    COUNTS,
    INPUT_COUNTS,
    MAX_COST_NANOS,
    MAX_PRICE_NANOS,
    MAX_TOKENS,
    MILLION,
    PIECE_PRICES,
    PRICE_OF_PIECE,
    PRICES,
    Extent,
    PriceList,
    PriceRow,
    Rate,
    Term,
    Usage,
    affordable_output_tokens,
    bound_nanos,
    cost_nanos,
    estimate_tokens,
    terms,
    usage_of_columns,
    valid_count,
)
from tests.relay.vectors import Vector, expected_usage, facts, identify, limits, price_list, vectors

NANOS = st.integers(0, 10) | st.integers(0, MAX_PRICE_NANOS)
TOKENS = st.integers(0, 5) | st.integers(0, MAX_TOKENS)
FEW = st.integers(0, 20)
ALWAYS_SET = [name for name in PRICES if getattr(Rate(), name) is not None]
RATES = st.builds(Rate, **{name: NANOS if name in ALWAYS_SET else st.none() | NANOS for name in PRICES})
FACTORS = st.sampled_from([MILLION, MILLION // 2, 1_100_001, 333_333])
CONDITIONS = st.sampled_from([(), (("service_tier", "flex"),), (("service_tier", "flex"), ("speed", "fast"))])
ROWS = st.builds(
    PriceRow,
    prices=st.dictionaries(st.sampled_from(PRICES), NANOS, max_size=3),
    when=CONDITIONS,
    above=st.none() | st.integers(0, 10),
    is_inclusive=st.booleans(),
    factor_millionths=FACTORS,
)
PRICE_LISTS = st.builds(PriceList, RATES, st.lists(ROWS, max_size=4).map(tuple))
FACTS = [{}, {"service_tier": "flex"}, {"speed": "fast"}, {"service_tier": "flex", "speed": "fast"}]
BIGINT = 2**63

GPT_4O = Rate(input=2_500_000_000, cached_input=1_250_000_000, output=10_000_000_000)
# The counts that one request can have together when its extent is text alone.
TEXT_COUNTS = [name for name in COUNTS if name not in ("audio_input", "image_input", "audio_output", *PRICE_OF_PIECE)]


def usages(*names: str, counts: st.SearchStrategy[int] = TOKENS) -> st.SearchStrategy[Usage]:
    few = {name: FEW if name in PRICE_OF_PIECE else counts for name in names}
    return st.builds(Usage, **few)


def usage_of(counts: dict[str, int]) -> Usage:
    return Usage(**counts)  # type: ignore[arg-type]  # `tools` is no count


# -- The worked examples ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", vectors("charge"), ids=identify)
def test_a_worked_example_is_charged_to_the_nano_dollar(vector: Vector) -> None:
    prices, usage = price_list(vector), expected_usage(vector)
    rate = prices.rate(input_tokens=usage.input_tokens, facts=facts(vector))
    tools = {name: prices.rate(facts={"tool": name}) for name, _counts in usage.tools}

    assert cost_nanos(rate, usage, tools) == vector["expected"]["cost_nanos"]


@pytest.mark.parametrize(
    ("example", "extent", "output_tokens"),
    [
        ("hold-prompts-bestof", {"input_tokens": 500, "prompts": 100, "outputs": 200}, 1000),
        ("hold-tier", {"input_tokens": 300_000}, 1000),
        ("hold-search-cap", {"input_tokens": 400, "searches": 5, "context_reads": 6}, 1000),
    ],
)
def test_a_worked_example_is_held_to_the_nano_dollar(example: str, extent: Any, output_tokens: int) -> None:
    [vector] = [each for each in vectors("hold") if each["id"] == example]
    rate = price_list(vector).dearest(input_tokens=extent["input_tokens"])
    context_tokens = limits(vector)["context_tokens"]

    held = bound_nanos(rate, Extent(**extent), output_tokens=output_tokens, context_tokens=context_tokens)

    assert held == vector["expected"]["hold_nanos"]


# -- Cost ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "usage", "nanos"),
    [
        (GPT_4O, Usage(), 0),
        (GPT_4O, Usage(input=1_000_000), 2_500_000_000),
        (GPT_4O, Usage(input=600, cached=400, output=50), 600 * 2500 + 400 * 1250 + 50 * 10_000),
        (Rate(input=1), Usage(input=1), 1),
        (Rate(input=1, cached_input=1, output=1), Usage(input=1, cached=1, output=1), 1),
        (Rate(input=500_000, output=500_000), Usage(input=1, output=1), 1),
        (Rate(input=500_001, output=500_000), Usage(input=1, output=1), 2),
        (Rate(per_request=7, per_image=11, per_second=13), Usage(images=2, seconds=3), 7 + 22 + 39),
        (Rate(per_search=3, per_character=5), Usage(searches=2, characters=4, minutes=9), 6 + 20),
        (Rate(), Usage(input=5, cached=1, output=5, images=5, seconds=5, searches=5), 0),
    ],
)
def test_a_cost_is_its_tokens_at_their_prices_rounded_up_once(rate: Rate, usage: Usage, nanos: int) -> None:
    assert cost_nanos(rate, usage) == nanos


@given(RATES, usages(*COUNTS))
def test_a_cost_is_the_sum_of_its_terms_rounded_up_and_fits_the_database(rate: Rate, usage: Usage) -> None:
    exact = sum((Fraction(term.quantity * term.price, term.per) for term in terms(rate, usage)), Fraction(0))

    assert cost_nanos(rate, usage) == min(ceil(exact), MAX_COST_NANOS)


def test_the_greatest_counts_at_the_greatest_prices_fit_the_database() -> None:
    counts = dict.fromkeys(COUNTS, MAX_TOKENS)
    extent = Extent(input_tokens=MAX_TOKENS, images=MAX_TOKENS, seconds=MAX_TOKENS, searches=MAX_TOKENS)
    dearest = Rate(**dict.fromkeys(PRICES, MAX_PRICE_NANOS))

    assert MAX_AMOUNT_NANOS < cost_nanos(dearest, usage_of(counts)) < BIGINT
    assert MAX_AMOUNT_NANOS < bound_nanos(dearest, extent, output_tokens=MAX_TOKENS) < BIGINT


@pytest.mark.parametrize(
    ("count", "rate", "price"),
    [
        ("cache_write_12h", Rate(input=1, cache_write_5m=2, cache_write_1h=3, cache_write_12h=4), 4),
        ("cache_write_12h", Rate(input=1, cache_write_5m=2, cache_write_1h=3), 3),
        ("cache_write_12h", Rate(input=1, cache_write_5m=2), 2),
        ("cache_write_1h", Rate(input=1), 1),
        ("cached_explicit", Rate(input=9, cached_input=1), 1),
        ("audio_input", Rate(input=1, output=9), 1),
        ("audio_output", Rate(input=9, output=1), 1),
        ("image_output", Rate(output=1, image_output=0), 0),
        ("reasoning", Rate(output=1), 1),
        ("citation", Rate(input=1, output=9), 1),
    ],
)
def test_tokens_without_a_price_of_their_own_cost_what_stands_for_it(count: str, rate: Rate, price: int) -> None:
    assert cost_nanos(rate, usage_of({count: MILLION})) == price


def test_a_tools_tokens_are_charged_at_its_own_row() -> None:
    tool, usage = Usage(input=MILLION, image_output=MILLION), Usage(output=MILLION)
    prices = PriceList(GPT_4O, (PriceRow({"input": 5, "image_output": 7}, when=(("tool", "image_generation"),)),))
    with_tool = Usage(output=MILLION, tools=(("image_generation", tool),))
    rates = {"image_generation": prices.rate(facts={"tool": "image_generation"})}

    assert cost_nanos(GPT_4O, with_tool, rates) == cost_nanos(GPT_4O, usage) + 12
    assert terms(GPT_4O, with_tool, rates)[1] == Term("input", MILLION, 5, MILLION, tool="image_generation")


def test_the_terms_of_a_receipt_name_quantity_and_price() -> None:
    rate = Rate(input=2_500_000, cached_input=1_000_000, per_request=7, per_search=3)

    assert terms(rate, Usage(input=600, cached=400, output=50, searches=2)) == [
        Term("input", 600, 2_500_000, MILLION),
        Term("cached_input", 400, 1_000_000, MILLION),
        Term("searches", 2, 3, 1),
        Term("request", 1, 7, 1),
    ]


@pytest.mark.parametrize("name", COUNTS)
def test_a_negative_count_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is negative"):
        usage_of({name: -1})


def test_a_negative_price_is_refused() -> None:
    with pytest.raises(ValueError, match="audio_input is negative"):
        Rate(audio_input=-1)


# -- What a record keeps ------------------------------------------------------------------------------------------


@given(usages(*COUNTS), st.lists(st.tuples(st.sampled_from(["a", "b"]), usages(*COUNTS)), unique_by=lambda one: one[0]))
def test_a_records_columns_and_quantities_give_the_usage_back(usage: Usage, tools: list[tuple[str, Usage]]) -> None:
    charged = Usage(**usage.as_counts(), tools=tuple(sorted(tools, key=lambda one: one[0])))

    assert charged == usage_of_columns(
        input_tokens=charged.input_tokens,
        cached_tokens=charged.cached_tokens,
        output_tokens=charged.output_tokens,
        images=charged.images,
        seconds=charged.seconds,
        quantities=charged.quantities(),
    )


def test_a_record_of_before_has_no_quantities_and_contradictions_stop_at_zero() -> None:
    columns = {"input_tokens": 10, "cached_tokens": 25, "output_tokens": 3, "images": 1, "seconds": 2}

    assert usage_of_columns(**columns, quantities={}) == Usage(cached=10, output=3, images=1, seconds=2)
    assert usage_of_columns(**columns, quantities={"reasoning": 5, "audio_input": 4}).output == 0


@given(RATES)
def test_a_snapshot_gives_the_rate_back(rate: Rate) -> None:
    assert Rate.of(rate.snapshot()) == rate


def test_a_snapshot_of_before_lacks_prices_and_unknown_names_are_ignored() -> None:
    assert Rate.of({"input": 5, "per_century": 1}) == Rate(input=5)


# -- Rows ---------------------------------------------------------------------------------------------------------

FLEX = (("service_tier", "flex"),)
FAST = (("speed", "fast"),)


@pytest.mark.parametrize(
    ("above", "is_inclusive", "input_tokens", "applies"),
    [(10, False, 10, False), (10, False, 11, True), (10, True, 9, False), (10, True, 10, True), (None, False, 0, True)],
)
def test_a_threshold_is_passed_or_reached(
    above: int | None, is_inclusive: bool, input_tokens: int, applies: bool
) -> None:
    row = PriceRow({"input": 7}, above=above, is_inclusive=is_inclusive)

    assert (PriceList(Rate(input=1), (row,)).rate(input_tokens=input_tokens).input == 7) == applies


def test_more_conditions_and_higher_thresholds_replace_what_fewer_set() -> None:
    prices = PriceList(
        Rate(input=1, output=1),
        (
            PriceRow({"input": 6}, when=(*FLEX, *FAST)),
            PriceRow({"input": 5, "output": 5}, when=FLEX),
            PriceRow({"input": 4}, above=200),
            PriceRow({"input": 3, "output": 3}, above=100),
        ),
    )

    def both(tokens: int, **facts: str) -> tuple[int, int]:
        rate = prices.rate(input_tokens=tokens, facts=facts)
        return rate.input, rate.output

    assert both(100) == (1, 1)
    assert both(101) == (3, 3)
    assert both(201) == (4, 3)
    assert both(201, service_tier="flex") == (5, 5)
    assert both(0, service_tier="flex", speed="fast") == (6, 5)
    assert both(0, speed="fast") == (1, 1)


def test_factors_of_several_conditions_multiply_whatever_the_prices_are() -> None:
    prices = PriceList(
        Rate(input=1000),
        (
            PriceRow(when=(("inference_geo", "us"),), factor_millionths=1_100_000),
            PriceRow(when=FLEX, factor_millionths=500_000),
            PriceRow({"input": 2000}, when=FAST, above=10),
        ),
    )

    assert prices.rate(facts={"inference_geo": "us"}).input == 1100
    assert prices.rate(facts={"inference_geo": "us", "service_tier": "flex"}).input == 550
    assert prices.rate(input_tokens=11, facts={"inference_geo": "us", "speed": "fast"}).input == 2200


def test_the_label_names_the_rows_that_applied() -> None:
    prices = PriceList(Rate(), (PriceRow(above=10), PriceRow(above=5, is_inclusive=True), PriceRow(when=FLEX, above=3)))

    assert prices.label(input_tokens=3) == ""
    assert prices.label(input_tokens=5) == "from=5"
    assert prices.label(input_tokens=11, facts=dict(FLEX)) == "from=5, above=10, service_tier=flex above=3"


@given(PRICE_LISTS, st.integers(0, 12), st.sampled_from(FACTS), st.integers(0, 12))
def test_the_dearest_rate_charges_no_kind_less_than_any_rate_in_reach(
    prices: PriceList, most: int, facts: dict[str, str], tokens: int
) -> None:
    dearest = prices.dearest(input_tokens=most, candidates=FACTS)
    rate = prices.rate(input_tokens=min(tokens, most), facts=facts)

    for name in PRICES:
        if name in PIECE_PRICES:
            assert (getattr(dearest, name) or 0) >= (getattr(rate, name) or 0)
        else:
            assert dearest.of_tokens(name) >= rate.of_tokens(name)


def test_the_dearest_rate_knows_only_thresholds_in_reach_and_the_given_facts() -> None:
    prices = PriceList(Rate(input=1), (PriceRow({"input": 9}, above=10), PriceRow({"input": 5}, when=FLEX)))

    assert prices.dearest(input_tokens=10).input == 1
    assert prices.dearest(input_tokens=11).input == 9
    assert prices.dearest(input_tokens=10, candidates=[{}, dict(FLEX)]).input == 5


def test_a_model_is_free_only_if_every_row_is() -> None:
    assert PriceList().is_free
    assert not PriceList(Rate(per_search=1)).is_free
    assert not PriceList(Rate(), (PriceRow({"input": 1}, when=FLEX),)).is_free


def test_a_price_exists_where_it_is_set_even_to_zero() -> None:
    prices = PriceList(Rate(per_search=0), (PriceRow({"audio_output": 5}, when=FLEX),))

    assert prices.has("per_search") and not prices.has("audio_output")
    assert prices.has("audio_output", dict(FLEX)) and prices.has_row("service_tier", "flex")
    assert not prices.has_row("service_tier", "priority")


@given(ROWS)
def test_a_rows_json_gives_it_back(row: PriceRow) -> None:
    assert PriceRow.from_json(row.to_json()) == row


@given(PRICE_LISTS, FACTORS, st.integers(0, 12), st.sampled_from(FACTS))
def test_a_scaled_price_list_rounds_every_price_up(
    prices: PriceList, factor: int, tokens: int, facts: dict[str, str]
) -> None:
    without_factors = PriceList(prices.base, tuple(replace(row, factor_millionths=MILLION) for row in prices.rows))

    before = without_factors.rate(input_tokens=tokens, facts=facts)

    assert without_factors.scaled(factor).rate(input_tokens=tokens, facts=facts) == before.scaled(factor)


@given(RATES, FACTORS)
def test_a_scaled_rate_is_the_least_whole_price_that_is_not_below(rate: Rate, factor: int) -> None:
    scaled = rate.scaled(factor).snapshot()

    assert scaled == {
        name: min(ceil(Fraction(price * factor, MILLION)), MAX_PRICE_NANOS) for name, price in rate.snapshot().items()
    }


# -- Bounds -------------------------------------------------------------------------------------------------------


@given(
    PRICE_LISTS,
    usages(*TEXT_COUNTS, *PRICE_OF_PIECE, counts=st.integers(0, 4)),
    st.integers(0, 20),
    st.integers(1, 3),
    st.sampled_from(FACTS),
    st.booleans(),
)
def test_a_bound_at_the_dearest_rate_is_never_below_the_cost(
    prices: PriceList, usage: Usage, spare: int, outputs: int, facts: dict[str, str], reads_window: bool
) -> None:
    extent = Extent(
        input_tokens=usage.input_tokens + spare,
        outputs=outputs,
        context_reads=int(reads_window),
        cache_writes=("cache_write_1h", "cache_write_12h"),
        **{name: getattr(usage, name) for name in PRICE_OF_PIECE},
    )
    rate = prices.dearest(input_tokens=extent.input_tokens, candidates=FACTS)
    window = usage.input_tokens if reads_window else MAX_TOKENS

    bound = bound_nanos(rate, extent, output_tokens=-(-usage.output_tokens // outputs), context_tokens=window)

    assert bound >= cost_nanos(prices.rate(input_tokens=usage.input_tokens, facts=facts), usage)


@given(RATES, usages("input", "audio_input", "image_input", counts=st.integers(0, 50)), st.integers(0, 60))
def test_media_within_their_ceilings_and_the_window_are_covered(rate: Rate, usage: Usage, spare: int) -> None:
    media = Usage(audio_input=usage.audio_input, image_input=usage.image_input)
    ceilings = cost_nanos(rate, media)
    window = usage.input_tokens + spare

    bound = bound_nanos(
        rate, Extent(input_tokens=usage.input + spare, media_nanos=ceilings), output_tokens=0, context_tokens=window
    )

    assert bound >= cost_nanos(rate, usage)


@given(RATES, st.integers(0, 10**6), st.integers(1, 8), st.integers(0, MAX_AMOUNT_NANOS), st.booleans())
def test_the_affordable_limit_is_the_largest_that_is_covered(
    rate: Rate, input_tokens: int, outputs: int, available: int, has_audio: bool
) -> None:
    extent = Extent(input_tokens=input_tokens, outputs=outputs, has_audio_output=has_audio)
    limit = affordable_output_tokens(rate, extent, available_nanos=available)

    if limit < 0:
        assert bound_nanos(rate, extent, output_tokens=0) > available
    else:
        assert bound_nanos(rate, extent, output_tokens=limit) <= available
        assert limit == MAX_TOKENS or bound_nanos(rate, extent, output_tokens=limit + 1) > available


def test_text_is_never_more_than_the_window_of_each_prompt() -> None:
    rate = Rate(input=MILLION)

    assert bound_nanos(rate, Extent(input_tokens=10**6), output_tokens=0, context_tokens=100) == 100
    assert bound_nanos(rate, Extent(input_tokens=10**6, prompts=3), output_tokens=0, context_tokens=100) == 300
    assert bound_nanos(rate, Extent(input_tokens=1, context_reads=6), output_tokens=0, context_tokens=100) == 600


def test_media_are_never_more_than_the_window_at_their_own_price() -> None:
    rate = Rate(input=MILLION, audio_input=3 * MILLION)
    extent = Extent(input_tokens=10, media_nanos=10**9)

    assert bound_nanos(rate, extent, output_tokens=0, context_tokens=100) == 300


@pytest.mark.parametrize(
    ("extent", "nanos"),
    [
        ({}, 5),
        ({"cache_writes": ("cache_write_1h",)}, 8),
        ({"cache_writes": ("cache_write_1h", "cache_write_12h")}, 8),
    ],
)
def test_input_is_held_at_the_dearest_write_that_may_happen(extent: Any, nanos: int) -> None:
    rate = Rate(input=4 * MILLION, cached_input=1, cache_write_5m=5 * MILLION, cache_write_1h=8 * MILLION)

    assert bound_nanos(rate, Extent(input_tokens=1, **extent), output_tokens=0) == nanos


def test_output_is_held_at_the_dearest_kind_that_may_be_made() -> None:
    rate = Rate(output=MILLION, reasoning=2 * MILLION, audio_output=9 * MILLION)

    assert bound_nanos(rate, Extent(), output_tokens=10) == 20
    assert bound_nanos(rate, Extent(has_audio_output=True), output_tokens=10) == 90
    assert bound_nanos(Rate(output=MILLION, image_output=7 * MILLION), Extent(outputs=2), output_tokens=10) == 140


# -- Counts that an upstream told ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "count"),
    [
        *((0, 0), (7, 7), ("7", 7), (7.0, 7), (2.2, 3), (0.0, 0), (MAX_TOKENS + 1, MAX_TOKENS), ("9" * 18, MAX_TOKENS)),
        *((-1, None), (-0.5, None), ("-1", None), ("7.0", None), ("٣", None), ("", None), ("9" * 19, None)),
        *((True, None), (None, None), ([7], None), (float("nan"), None), (float("inf"), None), (1e300, None)),
    ],
)
def test_a_count_is_a_whole_number_whether_written_as_number_float_or_digits(told: object, count: int | None) -> None:
    assert valid_count(told) == count


@given(st.integers(0, 10**9))
def test_bytes_are_estimated_as_a_quarter_of_their_number_rounded_up(size: int) -> None:
    assert estimate_tokens(size) == ceil(Fraction(size, 4))


def test_every_count_has_a_price() -> None:
    assert set(INPUT_COUNTS) < set(COUNTS)
    assert all(terms(Rate(**dict.fromkeys(PRICES, 1)), usage_of({name: 1})) for name in COUNTS)
