"""Cost of a request, and the upper bound of what it can cost at most: pure functions on integers, without Django.

Token prices are nano-dollars per million tokens, the others nano-dollars each. Fractions of a nano-dollar are summed
over all tokens and rounded up once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
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
    """The prices of a model. A usage record keeps them as its snapshot."""

    input: int = 0
    cached_input: int = 0
    output: int = 0
    per_request: int = 0
    per_image: int = 0
    per_second: int = 0

    def __post_init__(self) -> None:
        _refuse_negative(asdict(self))

    @classmethod
    def of(cls, snapshot: Mapping[str, Any]) -> Self:
        """The rate of a usage record's snapshot. Prices missing there are zero; unknown names are ignored."""
        return cls(**{field.name: int(snapshot.get(field.name, 0)) for field in fields(cls)})

    def snapshot(self) -> dict[str, int]:
        """The prices by name. Do not mutate it: the dict is cached and shared, which saves a copy for each request."""
        return self._snapshot

    @cached_property
    def _snapshot(self) -> dict[str, int]:
        return asdict(self)

    def __str__(self) -> str:
        named = [f"{name.replace('_', ' ')} ${format_exact(price)}" for name, price in asdict(self).items() if price]
        return ", ".join(named) or "free"


class Usage(msgspec.Struct, frozen=True):
    """The counts that a request is charged by. `cached_tokens` are part of `input_tokens`.

    Raises ValueError for a negative count, and for more cached tokens than input tokens.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    images: int = 0
    seconds: int = 0

    def __post_init__(self) -> None:
        if min(self.input_tokens, self.cached_tokens, self.output_tokens, self.images, self.seconds) < 0:
            _refuse_negative(msgspec.structs.asdict(self))
        if self.cached_tokens > self.input_tokens:
            raise ValueError("cached_tokens are among the input_tokens")


@dataclass(frozen=True)
class Term:
    """One line of a receipt: `quantity` × `price` / `per`, where `per` is 1 or MILLION."""

    name: str
    quantity: int
    price: int
    per: int

    @property
    def price_usd(self) -> str:
        return format_exact(self.price)

    @property
    def parts(self) -> int:
        """The exact amount in millionths of a nano-dollar. Only the sum of all terms is rounded."""
        return self.quantity * self.price * PARTS_PER_NANO // self.per


def cost_nanos(rate: Rate, usage: Usage) -> int:
    tokens = (
        (usage.input_tokens - usage.cached_tokens) * rate.input
        + usage.cached_tokens * rate.cached_input
        + usage.output_tokens * rate.output
    )
    return _divide_by_million_rounding_up(tokens) + _unit_costs(rate, usage.images, usage.seconds)


def terms(rate: Rate, usage: Usage) -> list[Term]:
    """The terms of the cost that are not zero. Their sum, rounded up, is `cost_nanos`."""
    all_terms = [
        Term("input", usage.input_tokens - usage.cached_tokens, rate.input, MILLION),
        Term("cached_input", usage.cached_tokens, rate.cached_input, MILLION),
        Term("output", usage.output_tokens, rate.output, MILLION),
        Term("request", 1, rate.per_request, 1),
        Term("images", usage.images, rate.per_image, 1),
        Term("seconds", usage.seconds, rate.per_second, 1),
    ]
    return [term for term in all_terms if term.quantity * term.price]


def bound_nanos(
    rate: Rate,
    *,
    body_bytes: int,
    choices: int,
    output_tokens: int,
    media_nanos: int = 0,
    images: int = 0,
    seconds: int = 0,
) -> int:
    """The upper bound of a request's cost in nano-dollars.

    It counts every byte of the body as one token at the higher of the two input prices, and every choice at the full
    completion limit.
    """
    tokens = body_bytes * max(rate.input, rate.cached_input) + choices * output_tokens * rate.output
    return _divide_by_million_rounding_up(tokens) + _unit_costs(rate, images, seconds) + media_nanos


def affordable_output_tokens(
    rate: Rate,
    *,
    available_nanos: int,
    body_bytes: int,
    choices: int,
    media_nanos: int = 0,
    images: int = 0,
    seconds: int = 0,
) -> int:
    """The largest completion limit whose `bound_nanos` is within `available_nanos`, at most MAX_TOKENS.

    Zero if the money covers the input but no output token; -1 if it does not cover the input.
    """
    left = (available_nanos - _unit_costs(rate, images, seconds) - media_nanos) * MILLION
    left -= body_bytes * max(rate.input, rate.cached_input)
    if left < 0:
        return -1
    return min(left // (choices * rate.output), MAX_TOKENS) if rate.output else MAX_TOKENS


def estimate_tokens(size_bytes: int) -> int:
    return -(-size_bytes // BYTES_PER_TOKEN)


def parse_usage(answer: object) -> Usage | None:
    """The usage that an upstream reported; None if it is missing or invalid, so that the caller estimates it.

    `answer` is the parsed JSON of a response or of a stream's event. `usage` is read from it or from its `response`.
    Chat, completions and embeddings name prompt_tokens and completion_tokens, the Responses API input_tokens and
    output_tokens.

    A count is valid if it is an integer of at least zero; a larger one than MAX_TOKENS becomes MAX_TOKENS.

    - Input missing or invalid, or output invalid: the result is None.
    - Output missing: total_tokens - input, or zero (embeddings).
    - Cached tokens invalid: zero, so that all input is charged at the full price.
    - More cached tokens than input: all of the input is cached.
    """
    reported = _usage_object(answer)
    input_count = _first_present(reported, "prompt_tokens", "input_tokens")
    output_count = _first_present(reported, "completion_tokens", "output_tokens")
    input_tokens = valid_count(input_count)
    if output_count is None and input_tokens is not None:
        output_count = max(0, (valid_count(reported.get("total_tokens")) or 0) - input_tokens)
    output_tokens = valid_count(output_count)
    if input_tokens is None or output_tokens is None:
        return None
    details = _first_present(reported, "prompt_tokens_details", "input_tokens_details")
    cached = valid_count(details.get("cached_tokens")) if isinstance(details, dict) else None
    return Usage(input_tokens, min(cached or 0, input_tokens), output_tokens)


def _usage_object(answer: object) -> dict[str, Any]:
    inner = answer.get("response") if isinstance(answer, dict) else None
    for place in (answer, inner):
        usage = place.get("usage") if isinstance(place, dict) else None
        if isinstance(usage, dict):
            return usage
    return {}


def _first_present(reported: dict[str, Any], *names: str) -> Any:
    for name in names:
        if (value := reported.get(name)) is not None:
            return value
    return None


def valid_count(value: object) -> int | None:
    # type(), not isinstance(): True is an int in Python, but not a valid count.
    if type(value) is not int or value < 0:
        return None
    return min(value, MAX_TOKENS)


def _unit_costs(rate: Rate, images: int, seconds: int) -> int:
    return rate.per_request + images * rate.per_image + seconds * rate.per_second


def _divide_by_million_rounding_up(amount: int) -> int:
    return -(-amount // MILLION)


def _refuse_negative(figures: Mapping[str, int]) -> None:
    if min(figures.values()) < 0:
        name = next(name for name, figure in figures.items() if figure < 0)
        raise ValueError(f"{name} is negative")
