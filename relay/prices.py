"""What a model costs: rates, the rows that replace parts of one under conditions, and price lists made of both.

Token prices are nano-dollars per million tokens, prices per piece are nano-dollars each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Self

from core.money import NANOS_PER_USD, format_exact

MILLION = 1_000_000
# A cost at both maxima still fits into the database's BIGINT.
MAX_TOKENS = 1_000_000_000
MAX_PRICE_NANOS = 1_000_000 * NANOS_PER_USD


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
        refuse_negative({name: price for name, price in asdict(self).items() if price is not None})

    @classmethod
    def of(cls, snapshot: Mapping[str, Any]) -> Self:
        """The rate of a usage record's snapshot. Prices missing there are the defaults; unknown names are ignored."""
        return cls(**{name: int(snapshot[name]) for name in PRICES if snapshot.get(name) is not None})

    def of_tokens(self, name: str) -> int:
        """The price of a kind of tokens: its own, else the one that stands for it."""
        price: int | None = getattr(self, name)
        return self.of_tokens(FALLBACKS[name]) if price is None else price

    @cached_property
    def dearest_input(self) -> int:
        """The most that a plain, cached, shortly written or cited token costs."""
        kinds = ("input", "cached_input", "cached_input_explicit", "cache_write_5m", "citation")
        return max(map(self.of_tokens, kinds))

    @cached_property
    def dearest_output(self) -> int:
        return max(map(self.of_tokens, ("output", "reasoning", "image_output")))

    def scaled(self, factor_millionths: int) -> Rate:
        """All prices times a factor, each rounded up to a whole nano-dollar, and at most MAX_PRICE_NANOS."""
        if factor_millionths == MILLION:
            return self
        return Rate(
            **{
                name: None if price is None else scaled_price(price, factor_millionths)
                for name, price in asdict(self).items()
            }  # type: ignore[arg-type]  # six are never None
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
        return _said(self._snapshot) or "free"


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
    and written ones included; it must be passed, or reached if `is_inclusive`. `factor_millionths` multiplies what the
    request would cost otherwise, this row's own prices included.
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
    def first_tokens(self) -> int:
        """The fewest input tokens at which the row applies."""
        return 0 if self.above is None else self.above + (not self.is_inclusive)

    @property
    def specificity(self) -> tuple[bool, int, int]:
        """Factors alone come last, so that those of several conditions multiply whatever the prices are."""
        return (not self.prices, len(self.when), self.first_tokens)

    def __str__(self) -> str:
        factor = f"× {format_factor(self.factor_millionths)}" if self.factor_millionths != MILLION else ""
        return f"{self.label}: {', '.join(filter(None, [_said(self.prices), factor])) or 'free'}"

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

    Rows apply from the least to the most specific: thresholds alone, then more conditions, then higher thresholds. Rows
    that have a factor and no prices apply last, and multiply each other.
    """

    base: Rate = field(default_factory=Rate)
    rows: tuple[PriceRow, ...] = ()

    def rate(self, *, input_tokens: int = 0, facts: Mapping[str, str] = _NO_FACTS) -> Rate:
        """The row at which a request with these counts and facts is charged."""
        rate = self.base
        for row in self._sorted:
            if row.holds(facts, input_tokens):
                rate = (replace(rate, **row.prices) if row.prices else rate).scaled(row.factor_millionths)
        return rate

    def label(self, *, input_tokens: int = 0, facts: Mapping[str, str] = _NO_FACTS) -> str:
        """Which rows applied, for the receipt; empty for the base row alone."""
        return ", ".join(row.label for row in self._sorted if row.holds(facts, input_tokens))

    def dearest(self, *, input_tokens: int, candidates: Iterable[Mapping[str, str]] = (_NO_FACTS,)) -> Rate:
        """Per price, the most that it can be with at most `input_tokens`, for any of the candidates' facts."""
        # Prices are constant between thresholds, so the first count of each stretch stands for all of it.
        if not self.rows:
            return self.base
        reachable = {0} | {row.first_tokens for row in self.rows if row.is_reached(input_tokens)}
        rates = [self.rate(input_tokens=tokens, facts=facts) for facts in candidates for tokens in reachable]
        return rates[0] if len(set(rates)) == 1 else _maxima(rates)

    def has(self, price: str, facts: Mapping[str, str] = _NO_FACTS) -> bool:
        return getattr(self.rate(facts=facts), price) is not None

    def has_row(self, name: str, value: str) -> bool:
        return any((name, value) in row.when for row in self.rows)

    def snapshot(self) -> dict[str, Any]:
        """The base row's prices with the other rows, for a task that is charged later; `of_snapshot` reads it back."""
        return {**self.base.snapshot(), **({"rows": [row.to_json() for row in self.rows]} if self.rows else {})}

    @classmethod
    def of_snapshot(cls, snapshot: Mapping[str, Any]) -> Self:
        return cls(Rate.of(snapshot), tuple(map(PriceRow.from_json, snapshot.get("rows", ()))))

    def scaled(self, factor_millionths: int) -> PriceList:
        if factor_millionths == MILLION:
            return self
        rows = (
            replace(row, prices={name: scaled_price(price, factor_millionths) for name, price in row.prices.items()})
            for row in self.rows
        )
        return PriceList(self.base.scaled(factor_millionths), tuple(rows))

    def __str__(self) -> str:
        return "; ".join(map(str, (self.base, *self.rows)))

    @cached_property
    def is_free(self) -> bool:
        return self.base.is_free and not any(any(row.prices.values()) for row in self.rows)

    @cached_property
    def _sorted(self) -> tuple[PriceRow, ...]:
        return tuple(sorted(self.rows, key=lambda row: row.specificity))


def scaled_price(price: int, factor_millionths: int) -> int:
    return min(divide_rounding_up(price * factor_millionths, MILLION), MAX_PRICE_NANOS)


def divide_rounding_up(amount: int, by: int) -> int:
    return -(-amount // by)


def format_factor(millionths: int) -> str:
    """Like `1.2` or `0.5`, exactly."""
    whole, part = divmod(millionths, MILLION)
    return f"{whole}.{part:06d}".rstrip("0").rstrip(".")


def _said(prices: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} ${format_exact(price)}" for name, price in prices.items() if price)


def _maxima(rates: list[Rate]) -> Rate:
    return Rate(**{name: _most(name, rates) for name in PRICES})  # type: ignore[arg-type]  # six are never None


def _most(name: str, rates: list[Rate]) -> int | None:
    if all(getattr(rate, name) is None for rate in rates):
        return None
    if name in PIECE_PRICES:
        return max(getattr(rate, name) or 0 for rate in rates)
    # A rate without this price charges what stands for it, which may be dearer than another rate's own.
    return max(rate.of_tokens(name) for rate in rates)


def refuse_negative(figures: Mapping[str, int]) -> None:
    if min(figures.values()) < 0:
        name = next(name for name, figure in figures.items() if figure < 0)
        raise ValueError(f"{name} is negative")
