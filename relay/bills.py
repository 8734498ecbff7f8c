"""What one answer costs: the price row that applies to it, and each hosted tool's own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import msgspec

from relay.prices import PriceList, Rate
from relay.pricing import BoundLine, Extent, Usage, bound_line, cost_nanos

# Conditions of price rows that follow an account's settings where a request does not say.
UNSAID = ("service_tier", "speed", "inference_geo")


@dataclass(frozen=True, kw_only=True)
class Bill:
    """A usage at the rates that priced it. `row` says which conditions the rate was found by."""

    usage: Usage
    rate: Rate
    cost_nanos: int
    row: str = ""
    tool_rates: Mapping[str, Rate] = field(default_factory=dict)
    is_estimated: bool = False
    # The provider's own figure of its cost is charged, and not the prices.
    is_told: bool = False
    is_cut: bool = False

    @classmethod
    def free(cls) -> Self:
        return cls(usage=Usage(), rate=Rate(), cost_nanos=0)

    def at(self, nanos: int) -> Self:
        return replace(self, cost_nanos=nanos)

    def as_told(self, nanos: int) -> Self:
        return replace(self, cost_nanos=nanos, is_told=True)

    def cut_to(self, nanos: int) -> Self:
        return replace(self, cost_nanos=nanos, is_cut=True)

    def as_estimate(self) -> Self:
        return replace(self, is_estimated=True)

    def details(self) -> dict[str, Any]:
        tools = {name: rate.snapshot() for name, rate in self.tool_rates.items()}
        return {"row": self.row, "tool_rates": tools or None, "is_told": self.is_told, "cut": self.is_cut}


class Pricing(msgspec.Struct, frozen=True, kw_only=True):
    """A price list applied to one request: the most that it can cost, and what a usage of it costs."""

    prices: PriceList
    extent: Extent
    context_tokens: int
    # The bound at the dearest that each price can be for this request.
    line: BoundLine

    @classmethod
    def of(
        cls,
        prices: PriceList,
        extent: Extent,
        facts: Mapping[str, str],
        *,
        context_tokens: int,
        unsaid: Collection[str] = (),
    ) -> Self:
        """`unsaid` are conditions that the provider may choose by itself where `facts` do not name them."""
        reads_window = extent.context_reads or extent.media_nanos
        window = context_tokens * extent.prompts
        most_input = window if reads_window else min(extent.input_tokens, window)
        # The answer tells its tier, and may come from the standard one although another was asked for.
        candidates: list[Mapping[str, str]] = [{}, facts] if facts else [{}]
        if prices.rows:
            chosen = (dict(row.when) for row in prices.rows)
            candidates += [{**facts, **when} for when in chosen if when and when.keys() <= set(unsaid) - facts.keys()]
        dearest = prices.dearest(input_tokens=most_input, candidates=candidates)
        line = bound_line(dearest, extent, context_tokens=context_tokens)
        return cls(prices=prices, extent=extent, context_tokens=context_tokens, line=line)

    def bound(self, output_tokens: int) -> int:
        return self.line.nanos(output_tokens)

    def affordable(self, available_nanos: int) -> int:
        return self.line.affordable_tokens(available_nanos)

    def bill(self, usage: Usage, facts: Mapping[str, str]) -> Bill:
        rate = self.prices.rate(input_tokens=usage.input_tokens, facts=facts)
        tools = self._tool_rates(usage, facts)
        charged = usage.split(rate, tools)
        return Bill(
            usage=charged,
            rate=rate,
            cost_nanos=cost_nanos(rate, charged, tools),
            row=self.prices.label(input_tokens=usage.input_tokens, facts=facts) if self.prices.rows else "",
            tool_rates=tools,
        )

    def cost(self, usage: Usage, facts: Mapping[str, str]) -> int:
        return self.bill(usage, facts).cost_nanos

    def _tool_rates(self, usage: Usage, facts: Mapping[str, str]) -> dict[str, Rate]:
        return {name: self.prices.rate(facts={**facts, "tool": name}) for name, _counts in usage.tools}
