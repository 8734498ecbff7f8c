"""Cost of a request, and the most that it can cost: pure functions on integers, without Django.

Token prices are nano-dollars per million tokens, prices per piece are nano-dollars each. Fractions of a nano-dollar are
summed over all terms and rounded up once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Self

import msgspec

from core.money import NANOS_PER_USD, PARTS_PER_NANO, format_exact

MILLION = 1_000_000
# A cost at both maxima still fits into the database's BIGINT.
MAX_TOKENS = 1_000_000_000
MAX_PRICE_NANOS = 1_000_000 * NANOS_PER_USD
BYTES_PER_TOKEN = 4


@dataclass(frozen=True)
class Rate:
    """One row of prices. A usage record keeps the row that it was charged at as its snapshot.

    None is "no price of its own": such tokens cost what FALLBACKS names, and a request that asks for such pieces is
    refused (relay/dialects). Zero is free.
    """

    input: int = 0
    cached_input: int = 0
    output: int = 0
    per_request: int = 0
    per_image: int = 0
    per_second: int = 0
    cached_input_explicit: int | None = None
    cache_write_5m: int | None = None
    cache_write_1h: int | None = None
    cache_write_12h: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    image_input: int | None = None
    image_output: int | None = None
    reasoning: int | None = None
    citation: int | None = None
    per_search: int | None = None
    per_character: int | None = None
    per_minute: int | None = None

    def __post_init__(self) -> None:
        _refuse_negative({name: price for name, price in asdict(self).items() if price is not None})

    @classmethod
    def of(cls, snapshot: Mapping[str, Any]) -> Self:
        """The rate of a usage record's snapshot. Prices missing there are the defaults; unknown names are ignored."""
        return cls(**{name: int(snapshot[name]) for name in PRICES if snapshot.get(name) is not None})

    def of_tokens(self, name: str) -> int:
        """The price of a kind of tokens: its own, else the one that stands for it."""
        price: int | None = getattr(self, name)
        return self.of_tokens(FALLBACKS[name]) if price is None else price

    def scaled(self, factor_millionths: int) -> Rate:
        """All prices times a factor, each rounded up to a whole nano-dollar."""
        if factor_millionths == MILLION:
            return self
        return Rate(
            **{
                name: None if price is None else divide_rounding_up(price * factor_millionths, MILLION)
                for name, price in asdict(self).items()
            }
        )

    def snapshot(self) -> dict[str, int]:
        """The prices that are set, by name. Do not mutate it: it is cached and shared, which saves a copy a request."""
        return self._snapshot

    @cached_property
    def _snapshot(self) -> dict[str, int]:
        return {name: price for name, price in asdict(self).items() if price is not None}

    @cached_property
    def is_free(self) -> bool:
        return not any(self._snapshot.values())

    def __str__(self) -> str:
        named = [f"{name.replace('_', ' ')} ${format_exact(price)}" for name, price in self._snapshot.items() if price]
        return ", ".join(named) or "free"


PRICES = tuple(each.name for each in fields(Rate))
# Prices in nano-dollars each. All others are per million tokens.
PIECE_PRICES = ("per_request", "per_image", "per_second", "per_search", "per_character", "per_minute")
TOKEN_PRICES = tuple(name for name in PRICES if name not in PIECE_PRICES)
# Which price stands for one that is not set.
FALLBACKS = {
    "cached_input_explicit": "cached_input",
    "cache_write_5m": "input",
    "cache_write_1h": "cache_write_5m",
    "cache_write_12h": "cache_write_1h",
    "audio_input": "input",
    "audio_output": "output",
    "image_input": "input",
    "image_output": "output",
    "reasoning": "output",
    "citation": "input",
}


@dataclass(frozen=True)
class PriceRow:
    """Prices that replace those of the base row where all conditions hold.

    `when` are pairs such as ("service_tier", "priority"), ("speed", "fast"), ("size", "1792x1024"), ("quality", "hd"),
    and ("tool", "image_generation") for the tokens of a hosted tool. `above` is a threshold on all input tokens, cached
    and written ones included; it must be passed, or reached if `is_inclusive`. `factor_millionths` multiplies the row.
    """

    prices: Mapping[str, int] = field(default_factory=dict)
    when: tuple[tuple[str, str], ...] = ()
    above: int | None = None
    is_inclusive: bool = False
    factor_millionths: int = MILLION

    def holds(self, facts: Mapping[str, str], input_tokens: int) -> bool:
        return self.is_reached(input_tokens) and all(facts.get(name) == value for name, value in self.when)

    def is_reached(self, input_tokens: int) -> bool:
        if self.above is None:
            return True
        return input_tokens >= self.above if self.is_inclusive else input_tokens > self.above

    @property
    def label(self) -> str:
        """Like `service_tier=priority above=200000`; what a receipt says about the row."""
        parts = [f"{name}={value}" for name, value in self.when]
        if self.above is not None:
            parts.append(f"{'from' if self.is_inclusive else 'above'}={self.above}")
        return " ".join(parts)

    @property
    def specificity(self) -> tuple[int, int]:
        return (len(self.when), -1 if self.above is None else self.above)

    def to_json(self) -> dict[str, Any]:
        return {
            "when": dict(self.when),
            "above": self.above,
            "is_inclusive": self.is_inclusive,
            "factor_millionths": self.factor_millionths,
            "prices": dict(self.prices),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        return cls(
            prices={name: int(price) for name, price in row.get("prices", {}).items() if name in PRICES},
            when=tuple(sorted(row.get("when", {}).items())),
            above=row.get("above"),
            is_inclusive=bool(row.get("is_inclusive", False)),
            factor_millionths=int(row.get("factor_millionths", MILLION)),
        )


_NO_FACTS: Mapping[str, str] = {}


@dataclass(frozen=True)
class PriceList:
    """All prices of a model at one moment: the base row, and the rows that replace parts of it under conditions.

    Rows apply from the least to the most specific: thresholds alone, then more conditions, then higher thresholds.
    """

    base: Rate = field(default_factory=Rate)
    rows: tuple[PriceRow, ...] = ()

    def rate(self, *, input_tokens: int = 0, facts: Mapping[str, str] = _NO_FACTS) -> Rate:
        """The row at which a request with these counts and facts is charged."""
        rate, factor = self.base, MILLION
        for row in self._sorted:
            if row.holds(facts, input_tokens):
                rate = replace(rate, **row.prices)
                factor = row.factor_millionths
        return rate.scaled(factor)

    def label(self, *, input_tokens: int = 0, facts: Mapping[str, str] = _NO_FACTS) -> str:
        """Which rows applied, for the receipt; empty for the base row alone."""
        return ", ".join(row.label for row in self._sorted if row.holds(facts, input_tokens))

    def dearest(self, *, input_tokens: int, candidates: Iterable[Mapping[str, str]] = (_NO_FACTS,)) -> Rate:
        """Per price, the most that it can be with at most `input_tokens`, for any of the candidates' facts."""
        reachable = {0, input_tokens} | {
            row.above + 1 for row in self.rows if row.above is not None and row.is_reached(input_tokens)
        }
        rates = [self.rate(input_tokens=tokens, facts=facts) for facts in candidates for tokens in reachable]
        return rates[0] if len(set(rates)) == 1 else _maxima(rates)

    def has(self, price: str, facts: Mapping[str, str] = _NO_FACTS) -> bool:
        return getattr(self.rate(facts=facts), price) is not None

    def has_row(self, name: str, value: str) -> bool:
        return any((name, value) in row.when for row in self.rows)

    def scaled(self, factor_millionths: int) -> PriceList:
        if factor_millionths == MILLION:
            return self
        rows = (
            replace(
                row,
                prices={
                    name: divide_rounding_up(price * factor_millionths, MILLION) for name, price in row.prices.items()
                },
            )
            for row in self.rows
        )
        return PriceList(self.base.scaled(factor_millionths), tuple(rows))

    @cached_property
    def is_free(self) -> bool:
        return self.base.is_free and not any(any(row.prices.values()) for row in self.rows)

    @cached_property
    def _sorted(self) -> tuple[PriceRow, ...]:
        return tuple(sorted(self.rows, key=lambda row: row.specificity))


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """The counts that a request is charged by. Every token is in exactly one of them.

    `tools` are the tokens of hosted tools that have a price row of their own: ("image_generation", Usage).
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

    def __post_init__(self) -> None:
        counts = [getattr(self, name) for name in COUNTS]
        if min(counts) < 0:
            _refuse_negative(dict(zip(COUNTS, counts, strict=True)))

    @property
    def input_tokens(self) -> int:
        """All input tokens: what the log shows, and what thresholds are compared with."""
        return sum(getattr(self, name) for name in INPUT_COUNTS)

    @property
    def cached_tokens(self) -> int:
        return self.cached + self.cached_explicit

    @property
    def output_tokens(self) -> int:
        return self.output + self.audio_output + self.image_output + self.reasoning

    def quantities(self) -> dict[str, Any]:
        """The counts that a usage record has no column for, without zeros."""
        counts: dict[str, Any] = {name: count for name in EXTRA_COUNTS if (count := getattr(self, name))}
        if self.tools:
            counts["tools"] = {name: usage.as_counts() for name, usage in self.tools}
        return counts

    def as_counts(self) -> dict[str, int]:
        return {name: count for name in COUNTS if (count := getattr(self, name))}


COUNTS = tuple(name for name in Usage.__struct_fields__ if name != "tools")
INPUT_COUNTS = (
    *("input", "cached", "cached_explicit", "cache_write_5m", "cache_write_1h", "cache_write_12h"),
    *("audio_input", "image_input", "citation"),
)
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
    return divide_rounding_up(sum(term.parts for term in terms(rate, usage, tool_rates)), PARTS_PER_NANO)


def _own_terms(rate: Rate, usage: Usage) -> Iterator[Term]:
    for name, price in PRICE_OF_COUNT.items():
        if count := getattr(usage, name):
            yield Term(price, count, rate.of_tokens(price), MILLION)
    for name, price in PRICE_OF_PIECE.items():
        if count := getattr(usage, name):
            yield Term(name, count, getattr(rate, price) or 0, 1)


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


def bound_nanos(rate: Rate, extent: Extent, *, output_tokens: int, context_tokens: int = MAX_TOKENS) -> int:
    """The most that a request can cost, in nano-dollars, at the dearest `rate` that it can be charged at."""
    fixed, price = _fixed_parts(rate, extent, context_tokens), dearest_output(rate, extent)
    return divide_rounding_up(fixed + extent.outputs * output_tokens * price, MILLION)


def affordable_output_tokens(
    rate: Rate, extent: Extent, *, available_nanos: int, context_tokens: int = MAX_TOKENS
) -> int:
    """The largest completion limit whose `bound_nanos` is within `available_nanos`, at most MAX_TOKENS.

    Zero if the money covers the input but no output token; -1 if it does not cover the input.
    """
    left = available_nanos * MILLION - _fixed_parts(rate, extent, context_tokens)
    if left < 0:
        return -1
    price = dearest_output(rate, extent)
    return min(left // (extent.outputs * price), MAX_TOKENS) if price else MAX_TOKENS


def dearest_input(rate: Rate, extent: Extent) -> int:
    """Plain, cached or written: the provider decides which. A short write is assumed wherever it has a price."""
    writes = [rate.of_tokens(name) for name in ("cache_write_5m", *extent.cache_writes)]
    return max(rate.input, rate.cached_input, rate.of_tokens("cached_input_explicit"), *writes)


def dearest_output(rate: Rate, extent: Extent) -> int:
    kinds = ["output", "reasoning", *(["audio_output"] if extent.has_audio_output else [])]
    return max(rate.of_tokens(name) for name in kinds)


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
    pieces = sum(getattr(extent, name) * (getattr(rate, price) or 0) for name, price in PRICE_OF_PIECE.items())
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


def divide_rounding_up(amount: int, by: int) -> int:
    return -(-amount // by)


def _maxima(rates: list[Rate]) -> Rate:
    columns = {name: [getattr(rate, name) for rate in rates] for name in PRICES}
    return Rate(
        **{name: max((price for price in prices if price is not None), default=None) for name, prices in columns.items()}  # type: ignore[arg-type]  # the six that have no None keep a value
    )


def _refuse_negative(figures: Mapping[str, int]) -> None:
    if min(figures.values()) < 0:
        name = next(name for name, figure in figures.items() if figure < 0)
        raise ValueError(f"{name} is negative")
