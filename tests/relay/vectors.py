"""The worked examples of vectors.json: requests, answers and charges of many providers, exact to the nano-dollar.

Prices of tokens are nano-dollars per million; `expected` gives disjoint counts. An example of the kind "hold" gives the
body's size, so that its figure does not depend on how the body is serialised.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from relay.pricing import COUNTS, MILLION, PRICES, PriceList, PriceRow, Rate, Usage

Vector = dict[str, Any]

VECTORS: list[Vector] = json.loads((Path(__file__).parent / "vectors.json").read_text(encoding="utf-8"))
# What a context window or an output limit is where an example names none.
DEFAULT_CONTEXT_TOKENS = 1_000_000
DEFAULT_MAX_OUTPUT_TOKENS = 128_000


def vectors(kind: str, *endpoints: str) -> list[Vector]:
    return [each for each in VECTORS if each["kind"] == kind and (not endpoints or each["endpoint"] in endpoints)]


def identify(vector: Vector) -> str:
    return str(vector["id"])


def price_list(vector: Vector) -> PriceList:
    prices = vector["prices"]
    return PriceList(Rate.of(_own_prices(prices)), tuple(_rows(prices)))


def limits(vector: Vector) -> dict[str, int]:
    prices = vector["prices"]
    return {
        "context_tokens": prices.get("context_tokens", DEFAULT_CONTEXT_TOKENS),
        "max_output_tokens": prices.get("max_output_tokens", DEFAULT_MAX_OUTPUT_TOKENS),
    }


def expected_usage(vector: Vector) -> Usage:
    """The counts that the example is charged by. Reasoning without a price of its own stays within `output`."""
    expected = vector["expected"]
    counts = {name: expected[name] for name in COUNTS if name in expected}
    counts["searches"] = expected.get("searches", 0) + expected.get("search_units", 0)
    if "cached_input_explicit" in vector["prices"]:
        counts["cached_explicit"] = counts.pop("cached")
    tool = expected.get("tool_image_gen")
    return Usage(**counts, tools=(("image_generation", Usage(**tool)),) if tool else ())


def without_reasoning(usage: Usage) -> Usage:
    """The examples count reasoning as output; how much of it is reasoning is for other prices than theirs."""
    return msgspec.structs.replace(usage, reasoning_inside=0)


def facts(vector: Vector) -> dict[str, str]:
    """What was asked, unless the answer says otherwise, as relay/answers.py tells it."""
    request, answer = vector["request"], vector.get("response") or {}
    usage = answer.get("usage") or {}
    told = {name: source[name] for source in (request, answer, usage) for name in _FACTS if name in source}
    return {
        name: {"fast": "priority"}.get(value, value) if name == "service_tier" else value
        for name, value in told.items()
    }


_FACTS = ("service_tier", "speed", "inference_geo", "size", "quality")


def _own_prices(prices: Vector) -> dict[str, int]:
    own = {name: prices[name] for name in PRICES if name in prices}
    if "per_million_characters" in prices:
        own["per_character"] = prices["per_million_characters"] // MILLION
    if "per_search_unit" in prices:
        own["per_search"] = prices["per_search_unit"]
    return own


def _rows(prices: Vector) -> Iterator[PriceRow]:
    for tier in prices.get("tiers", []):
        yield PriceRow(prices=_own_prices(tier), above=tier["above_input"], is_inclusive=tier["inclusive"])
    for condition, row in prices.get("variants", {}).items():
        yield PriceRow(prices=_own_prices(row), when=(tuple(condition.split("=")),))
    for tool, row in prices.get("tools", {}).items():
        yield PriceRow(prices=_own_prices(row), when=(("tool", tool),))
    for look, price in prices.get("image_prices", {}).items():
        quality, size = look.split("/")
        yield PriceRow(prices={"per_image": price}, when=(("quality", quality), ("size", size)))
    for size, price in prices.get("video_prices", {}).items():
        yield PriceRow(prices={"per_second": price}, when=(("size", size),))
