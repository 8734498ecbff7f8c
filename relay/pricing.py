"""Cost of a request, and the most that it can cost: pure functions on integers, without Django.

Fractions of a nano-dollar are summed over all terms and rounded up once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from core.money import PARTS_PER_NANO, format_exact
from relay.prices import (
    FALLBACKS,
    MAX_PRICE_NANOS,
    MAX_TOKENS,
    MILLION,
    PIECE_PRICES,
    PRICES,
    TOKEN_PRICES,
    PriceList,
    PriceRow,
    Rate,
    divide_rounding_up,
    refuse_negative,
)

# The names of relay/prices.py that are used together with those below.
__all__ = [
    "FALLBACKS",
    "MAX_PRICE_NANOS",
    "MAX_TOKENS",
    "MILLION",
    "PIECE_PRICES",
    "PRICES",
    "TOKEN_PRICES",
    "PriceList",
    "PriceRow",
    "Rate",
]

BYTES_PER_TOKEN = 4
# More than any wallet can have, and within the database's BIGINT: a cost or bound beyond it stops here.
MAX_COST_NANOS = 2**62


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """The counts that a request is charged by. Every token is in exactly one of them.

    `reasoning_inside` is no such count: so many of `output` are reasoning. `split` moves them into `reasoning` where
    the rate has a price for it. `tools` are the tokens of hosted tools that have a price row of their own:
    ("image_generation", Usage).
    Raises ValueError for a negative count.
    """

    input: int = 0
    cached: int = 0
    cached_explicit: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    cache_write_12h: int = 0
    output: int = 0
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    image_output: int = 0
    reasoning: int = 0
    citation: int = 0
    images: int = 0
    seconds: int = 0
    searches: int = 0
    characters: int = 0
    minutes: int = 0
    tools: tuple[tuple[str, Usage], ...] = ()
    reasoning_inside: int = 0

    def __post_init__(self) -> None:
        counts = _counts_of(self)
        if min(counts) < 0:
            refuse_negative(dict(zip(COUNTS, counts, strict=True)))

    @property
    def input_tokens(self) -> int:
        """All input tokens: what the log shows, and what thresholds are compared with."""
        return sum(_input_counts_of(self))

    @property
    def cached_tokens(self) -> int:
        return self.cached + self.cached_explicit

    @property
    def output_tokens(self) -> int:
        return self.output + self.audio_output + self.image_output + self.reasoning

    def split(self, rate: Rate, tool_rates: Mapping[str, Rate]) -> Usage:
        """The usage as `rate` charges it: reasoning is a count of its own only where it has a price of its own."""
        tools = tuple((name, usage.split(tool_rates.get(name, rate), {})) for name, usage in self.tools)
        inside = min(self.reasoning_inside, self.output) if rate.reasoning is not None else 0
        if not inside and tools == self.tools:
            return self
        return msgspec.structs.replace(
            self,
            output=self.output - inside,
            reasoning=self.reasoning + inside,
            reasoning_inside=self.reasoning_inside - inside,
            tools=tools,
        )

    def quantities(self) -> dict[str, Any]:
        """The counts that a usage record has no column for, without zeros."""
        counts: dict[str, Any] = {name: count for name in EXTRA_COUNTS if (count := getattr(self, name))}
        if self.tools:
            counts["tools"] = {name: usage.as_counts() for name, usage in self.tools}
        return counts

    def as_counts(self) -> dict[str, int]:
        return {name: count for name in COUNTS if (count := getattr(self, name))}


COUNTS = tuple(name for name in Usage.__struct_fields__ if name not in ("tools", "reasoning_inside"))
_counts_of = attrgetter(*COUNTS)
INPUT_COUNTS = (
    *("input", "cached", "cached_explicit", "cache_write_5m", "cache_write_1h", "cache_write_12h"),
    *("audio_input", "image_input", "citation"),
)
_input_counts_of = attrgetter(*INPUT_COUNTS)
# Which price charges a count of tokens.
PRICE_OF_COUNT = {
    "input": "input",
    "cached": "cached_input",
    "cached_explicit": "cached_input_explicit",
    "cache_write_5m": "cache_write_5m",
    "cache_write_1h": "cache_write_1h",
    "cache_write_12h": "cache_write_12h",
    "output": "output",
    "audio_input": "audio_input",
    "audio_output": "audio_output",
    "image_input": "image_input",
    "image_output": "image_output",
    "reasoning": "reasoning",
    "citation": "citation",
}
# Which price charges a count of pieces.
PRICE_OF_PIECE = {
    "images": "per_image",
    "seconds": "per_second",
    "searches": "per_search",
    "characters": "per_character",
    "minutes": "per_minute",
}
PIECES = tuple(PRICE_OF_PIECE.items())
# Counts that the columns of a usage record do not give: all but plain input, cached, plain output, images, seconds.
EXTRA_COUNTS = tuple(name for name in COUNTS if name not in ("input", "cached", "output", "images", "seconds"))


def usage_of_columns(
    *,
    input_tokens: int,
    cached_tokens: int,
    output_tokens: int,
    images: int,
    seconds: int,
    quantities: Mapping[str, Any],
) -> Usage:
    """The usage that a record's columns and quantities stand for. Figures that contradict each other stop at zero."""
    extra = {name: int(quantities[name]) for name in EXTRA_COUNTS if name in quantities}
    cached = max(0, min(cached_tokens, input_tokens) - extra.get("cached_explicit", 0))
    other_input = sum(extra.get(name, 0) for name in INPUT_COUNTS)
    other_output = sum(extra.get(name, 0) for name in ("audio_output", "image_output", "reasoning"))
    tools = quantities.get("tools", {})
    return Usage(
        **extra,
        input=max(0, input_tokens - cached - other_input),
        cached=cached,
        output=max(0, output_tokens - other_output),
        images=images,
        seconds=seconds,
        tools=tuple((name, Usage(**counts)) for name, counts in sorted(tools.items())),
    )


@dataclass(frozen=True)
class Term:
    """One line of a receipt: `quantity` × `price` / `per`, where `per` is 1 or MILLION. `tool` names a hosted tool."""

    name: str
    quantity: int
    price: int
    per: int
    tool: str = ""

    @property
    def price_usd(self) -> str:
        return format_exact(self.price)

    @property
    def parts(self) -> int:
        """The exact amount in millionths of a nano-dollar. Only the sum of all terms is rounded."""
        return self.quantity * self.price * PARTS_PER_NANO // self.per


def terms(rate: Rate, usage: Usage, tool_rates: Mapping[str, Rate] | None = None) -> list[Term]:
    """The terms of the cost that are not zero. Their sum, rounded up, is `cost_nanos`.

    `tool_rates` are the rows for the usage's tools; a tool without one is charged at `rate`.
    """
    tools = [
        replace(term, tool=name)
        for name, counts in usage.tools
        for term in _own_terms((tool_rates or {}).get(name, rate), counts)
    ]
    own = [*_own_terms(rate, usage), Term("request", 1, rate.per_request, 1), *tools]
    return [term for term in own if term.quantity * term.price]


def cost_nanos(rate: Rate, usage: Usage, tool_rates: Mapping[str, Rate] | None = None) -> int:
    parts = _parts_of(rate, usage) + rate.per_request * PARTS_PER_NANO
    for name, counts in usage.tools:
        parts += _parts_of((tool_rates or {}).get(name, rate), counts)
    return min(divide_rounding_up(parts, PARTS_PER_NANO), MAX_COST_NANOS)


def _parts_of(rate: Rate, usage: Usage) -> int:
    # The sum of `_own_terms` without an object for each: this runs for every request.
    parts = 0
    for name, count in zip(COUNTS, _counts_of(usage), strict=True):
        if count:
            price = PRICE_OF_COUNT.get(name)
            if price is None:
                parts += count * (getattr(rate, PRICE_OF_PIECE[name]) or 0) * PARTS_PER_NANO
            else:
                parts += count * rate.of_tokens(price)
    return parts


def _own_terms(rate: Rate, usage: Usage) -> Iterator[Term]:
    for name, count in zip(COUNTS, _counts_of(usage), strict=True):
        if not count:
            continue
        if price := PRICE_OF_COUNT.get(name):
            yield Term(price, count, rate.of_tokens(price), MILLION)
        else:
            yield Term(name, count, getattr(rate, PRICE_OF_PIECE[name]) or 0, 1)


# -- Bounds -----------------------------------------------------------------------------------------------------------


class Extent(msgspec.Struct, frozen=True, kw_only=True):
    """The most that a request can consume, apart from its completion limit. relay/dialects computes it.

    `input_tokens` counts each byte of text as a token. `media_nanos` are ceilings of pictures and sound. Neither
    exceeds one context window for each of the `prompts`. With `context_reads`, the whole window is read that many
    times, whatever the body's size: the body points at content elsewhere, or hosted tools add to it.
    """

    input_tokens: int = 0
    prompts: int = 1
    outputs: int = 1
    media_nanos: int = 0
    context_reads: int = 0
    has_audio_output: bool = False
    # Lifetimes of cache writes that the request asks for, besides the short one that a provider may write unasked.
    cache_writes: tuple[str, ...] = ()
    images: int = 0
    seconds: int = 0
    searches: int = 0
    characters: int = 0
    minutes: int = 0
    # What hosted tools with prices of their own can cost, beside the model's own tokens.
    tool_nanos: int = 0


class BoundLine(NamedTuple):
    """The most that a request can cost as a line over its completion limit, in millionths of a nano-dollar."""

    fixed_parts: int
    parts_per_token: int

    def nanos(self, output_tokens: int) -> int:
        return min(divide_rounding_up(self.fixed_parts + output_tokens * self.parts_per_token, MILLION), MAX_COST_NANOS)

    def affordable_tokens(self, available_nanos: int) -> int:
        """The largest completion limit whose bound is within `available_nanos`, at most MAX_TOKENS.

        Zero if the money covers the input but no output token; -1 if it does not cover the input.
        """
        left = available_nanos * MILLION - self.fixed_parts
        if left < 0:
            return -1
        return min(left // self.parts_per_token, MAX_TOKENS) if self.parts_per_token else MAX_TOKENS


def bound_line(rate: Rate, extent: Extent, *, context_tokens: int = MAX_TOKENS) -> BoundLine:
    """At the dearest `rate` that the request can be charged at."""
    return BoundLine(_fixed_parts(rate, extent, context_tokens), extent.outputs * dearest_output(rate, extent))


def bound_nanos(rate: Rate, extent: Extent, *, output_tokens: int, context_tokens: int = MAX_TOKENS) -> int:
    """The most that a request can cost, in nano-dollars, at the dearest `rate` that it can be charged at."""
    return bound_line(rate, extent, context_tokens=context_tokens).nanos(output_tokens)


def affordable_output_tokens(
    rate: Rate, extent: Extent, *, available_nanos: int, context_tokens: int = MAX_TOKENS
) -> int:
    return bound_line(rate, extent, context_tokens=context_tokens).affordable_tokens(available_nanos)


def dearest_input(rate: Rate, extent: Extent) -> int:
    """Plain, cached, written or cited: the provider decides which. A short write is assumed wherever it has a price."""
    if not extent.cache_writes:
        return rate.dearest_input
    return max(rate.dearest_input, *map(rate.of_tokens, extent.cache_writes))


def dearest_output(rate: Rate, extent: Extent) -> int:
    """A model that has a price for tokens of pictures may make some unasked; sound is made only when asked for."""
    return max(rate.dearest_output, rate.of_tokens("audio_output")) if extent.has_audio_output else rate.dearest_output


def _fixed_parts(rate: Rate, extent: Extent, context_tokens: int) -> int:
    # In millionths of a nano-dollar.
    price = dearest_input(rate, extent)
    has_media = extent.media_nanos > 0
    window_price = max(price, rate.of_tokens("audio_input"), rate.of_tokens("image_input")) if has_media else price
    window_parts = extent.prompts * context_tokens * window_price
    if extent.context_reads:
        input_parts = extent.context_reads * window_parts
    else:
        input_parts = min(extent.input_tokens * price + extent.media_nanos * MILLION, window_parts)
    pieces: int = sum(count * (getattr(rate, price) or 0) for name, price in PIECES if (count := getattr(extent, name)))
    return input_parts + (pieces + rate.per_request + extent.tool_nanos) * MILLION


def estimate_tokens(size_bytes: int) -> int:
    return -(-size_bytes // BYTES_PER_TOKEN)


def valid_count(value: object) -> int | None:
    """A count that an upstream told: a whole number, as int, float or digits; None for everything else.

    A fraction is rounded up, and a count above MAX_TOKENS becomes MAX_TOKENS.
    """
    if type(value) is str and value.isascii() and value.isdigit() and len(value) <= 18:
        value = int(value)
    if type(value) is float and 0 <= value <= MAX_TOKENS:
        value = -int(-value // 1)
    # type(), not isinstance(): True is an int in Python, but not a valid count.
    if type(value) is not int or value < 0:
        return None
    return min(value, MAX_TOKENS)
