"""The provider's price list and its bills, in whole nano-dollars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MILLION = 1_000_000
NANOS_PER_USD = 1_000_000_000
# Counts of tokens, and the count whose price stands for one that the list does not price.
TOKENS = {
    "input": "",
    "cached_input": "input",
    "cache_write_5m": "input",
    "cache_write_1h": "cache_write_5m",
    "cache_write_12h": "cache_write_1h",
    "audio_input": "input",
    "image_input": "input",
    "output": "",
    "audio_output": "output",
}
INPUTS = tuple(name for name in TOKENS if not name.endswith("output"))
# Counts of pieces, and their prices.
PIECES = {"searches": "per_search", "seconds": "per_second"}


@dataclass(frozen=True)
class Prices:
    """Nano-dollars per million tokens, or per piece.

    `above` are thresholds on the input: (tokens that must be exceeded, prices). `when` are rows by a fact of the
    request, such as "service_tier=priority". Both replace single prices of `base`.
    """

    base: Mapping[str, int]
    above: tuple[tuple[int, Mapping[str, int]], ...] = ()
    when: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def row(self, input_tokens: int, facts: Mapping[str, str]) -> dict[str, int]:
        row = dict(self.base)
        for threshold, prices in self.above:
            if input_tokens > threshold:
                row |= prices
        for fact in facts.items():
            row |= self.when.get("=".join(fact), {})
        return row

    def has(self, name: str) -> bool:
        return name in self.base

    def dearest(self, *names: str) -> int:
        """The highest price of these in any row, which an operator's ceilings for pictures and sound are made of."""
        rows = [self.base, *(prices for _, prices in self.above), *self.when.values()]
        return max(price_of(name, {**self.base, **row}) for row in rows for name in names)


def price_of(name: str, row: Mapping[str, int]) -> int:
    while name not in row and TOKENS.get(name):
        name = TOKENS[name]
    return row.get(name, 0)


@dataclass(frozen=True)
class Offer:
    """A model of the provider. Its prompt never exceeds `context_tokens`, a choice never `max_output_tokens`."""

    prices: Prices
    context_tokens: int = 128_000
    max_output_tokens: int = 8_192


@dataclass(frozen=True)
class Bill:
    """What a request consumed: disjoint counts, the facts that choose the price row, and what no price list knows.

    `beyond_nanos` is for other models, tools and tiers that the operator has no price for. `reasoning` is part of the
    output. `is_told` is False if the answer has no usage, as for work that goes on in the background.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    beyond_nanos: int = 0
    reasoning: int = 0
    is_told: bool = True

    def __getitem__(self, name: str) -> int:
        return self.counts.get(name, 0)

    @property
    def input_tokens(self) -> int:
        return sum(self[name] for name in INPUTS)

    @property
    def output_tokens(self) -> int:
        return self["output"] + self["audio_output"]

    def nanos(self, prices: Prices) -> int:
        row = prices.row(self.input_tokens, self.facts)
        tokens = sum(self[name] * price_of(name, row) for name in TOKENS)
        pieces = sum(self[count] * row.get(price, 0) for count, price in PIECES.items()) + row.get("per_request", 0)
        return -(-(tokens + pieces * MILLION) // MILLION) + self.beyond_nanos
