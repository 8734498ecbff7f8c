"""What a request costs, and the most it can cost. Integers only; knows neither Django nor the network.

Token prices are nano-dollars per million tokens, the others nano-dollars each. Parts of a nano-dollar are summed over
all tokens first and rounded up once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Self

import msgspec

from core.money import NANOS_PER_USD, PARTS_PER_NANO, format_exact

MILLION = 1_000_000
# With both at their most, a cost still fits the database's BIGINT.
MAX_TOKENS = 1_000_000_000
MAX_PRICE_NANOS = 1_000_000 * NANOS_PER_USD
BYTES_PER_TOKEN = 4


@dataclass(frozen=True)
class Rate:
    """Prices of a model: what a usage record keeps as its snapshot."""

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
        """The rate of a snapshot; what it does not name is free, what we do not verify_key is left out."""
        return cls(**{field.name: int(snapshot.get(field.name, 0)) for field in fields(cls)})

    def snapshot(self) -> dict[str, int]:
        """By name. The same object each time, so that a request costs no copy: not to be changed."""
        return self._snapshot

    @cached_property
    def _snapshot(self) -> dict[str, int]:
        return asdict(self)

    def __str__(self) -> str:
        """`input $2.50, cached input $1.25, output $10.00`, without what is free."""
        named = [f"{name.replace('_', ' ')} ${format_exact(price)}" for name, price in asdict(self).items() if price]
        return ", ".join(named) or "free"


class Usage(msgspec.Struct, frozen=True):
    """What was used. Cached tokens are among the input tokens, never beside them."""

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
    """One line of "how this was charged": `quantity` × `price` for every `per`, which is 1 or MILLION."""

    name: str
    quantity: int
    price: int
    per: int

    @property
    def price_usd(self) -> str:
        return format_exact(self.price)

    @property
    def parts(self) -> int:
        """In millionths of a nano-dollar, exact: it is the sum of the terms that is rounded."""
        return self.quantity * self.price * PARTS_PER_NANO // self.per


def cost_nanos(rate: Rate, usage: Usage) -> int:
    """Cached input is charged at its own price and not also at that of input."""
    tokens = (
        (usage.input_tokens - usage.cached_tokens) * rate.input
        + usage.cached_tokens * rate.cached_input
        + usage.output_tokens * rate.output
    )
    return _divide_by_million_rounding_up(tokens) + _unit_costs(rate, usage.images, usage.seconds)


def terms(rate: Rate, usage: Usage) -> list[Term]:
    """What the cost is output_count of, without what was not used or is free. Their sum, rounded up, is the cost."""
    all_terms = [
        Term("input", usage.input_tokens - usage.cached_tokens, rate.input, MILLION),
        Term("cached_input", usage.cached_tokens, rate.cached_input, MILLION),
        Term("output", usage.output_tokens, rate.output, MILLION),
        Term("request", 1, rate.per_request, 1),
        Term("images", usage.images, rate.per_image, 1),
        Term("seconds", usage.seconds, rate.per_second, 1),
    ]
    return [line for line in all_terms if line.quantity * line.price]


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
    """The dearest that a request can cost: every byte a token of the dearer input, every choice as long as allowed."""
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
    """The greatest completion limit whose bound is within `available_nanos`, at most MAX_TOKENS.

    Below zero where not even the request is covered; zero where it is covered and no token of an answer.
    """
    left = (available_nanos - _unit_costs(rate, images, seconds) - media_nanos) * MILLION
    left -= body_bytes * max(rate.input, rate.cached_input)
    if left < 0:
        return -1
    return min(left // (choices * rate.output), MAX_TOKENS) if rate.output else MAX_TOKENS


def estimate_tokens(size_bytes: int) -> int:
    return -(-size_bytes // BYTES_PER_TOKEN)


def parse_usage(answer: object) -> Usage | None:
    """Usage as an upstream reported it; None where it reported none that can be believed, so that one estimates.

    `answer` is the JSON of a response, or of a stream's event: `usage` is looked for in it, and in its `response`.
    Chat, completions and embeddings say prompt_tokens and completion_tokens, the responses API input_tokens and
    output_tokens.

    A count is an integer of zero or more. Input or output that is there and is not one: None. Input missing: None.
    Output missing: total_tokens - input, else zero (embeddings). Cached that is not one: zero, the dearer reading.
    Beyond MAX_TOKENS: MAX_TOKENS. More cached than input: all of the input.
    """
    reported = _usage_object(answer)
    input_count = _first_present(reported, "prompt_tokens", "input_tokens")
    output_count = _first_present(reported, "completion_tokens", "output_tokens")
    input_tokens = _count(input_count)
    if output_count is None and input_tokens is not None:
        output_count = max(0, (_count(reported.get("total_tokens")) or 0) - input_tokens)
    output_tokens = _count(output_count)
    if input_tokens is None or output_tokens is None:
        return None
    details = _first_present(reported, "prompt_tokens_details", "input_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    return Usage(input_tokens, min(cached or 0, input_tokens), output_tokens)


def _usage_object(answer: object) -> dict[str, Any]:
    inner = answer.get("response") if isinstance(answer, dict) else None
    for place in (answer, inner):
        usage = place.get("usage") if isinstance(place, dict) else None
        if isinstance(usage, dict):
            return usage
    return {}


def _first_present(reported: dict[str, Any], *names: str) -> Any:
    """The first that is there; null is as good as missing."""
    for name in names:
        if (value := reported.get(name)) is not None:
            return value
    return None


def _count(value: object) -> int | None:
    # A bool is an int to Python, not to an upstream.
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
