"""The money of one request: compute and place its hold, renew it during the response, settle or release it once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from django.db import DatabaseError, InterfaceError

from accounts.keys import Presented
from core.money import NANOS_PER_USD
from quotas.charging import Call
from quotas.sets import ReleaseOrder, RenewOrder, Settled, SettleOrder
from relay.answers import Answer
from relay.bills import Bill, Pricing
from relay.bounds import Bound
from relay.catalogue import Offer
from relay.dialects.ask import Ask
from relay.pricing import Usage, estimate_tokens
from relay.speeds import Speeds
from relay.teller import Teller
from relay.upstreams import Target


class Progress(NamedTuple):
    """What a stream has told and delivered so far."""

    answer: Answer = Answer()
    delivered_bytes: int = 0
    is_ended: bool = False


@dataclass(eq=False)
class Charge:
    """An open hold, ended by exactly one `settle` or `fail`. Whatever comes after the end does nothing."""

    teller: Teller
    speeds: Speeds
    ask: Ask
    offer: Offer
    offers: dict[str, Offer]
    presented: Presented
    request_id: UUID
    client_request_id: str
    bound: Bound
    held_nanos: int
    # None where none is sent: the client named none, and the model's largest is held.
    output_limit: int | None
    target: Target | None = None
    upstream_request_id: str = ""
    # What a stream has told so far, for the hold's renewals.
    progress: Callable[[], Progress] | None = None
    # Called at each renewal, every few seconds.
    on_renew: Callable[[], None] | None = None
    started: float = field(default_factory=time.monotonic)
    sent_at: float | None = None
    first_token_ms: int | None = None
    generated_tokens: int = 0
    is_ended: bool = False
    _renewal_task: asyncio.Task[None] | None = None

    def headers(self) -> dict[str, str]:
        headers = {"x-space-request-id": str(self.request_id)}
        if self.output_limit is not None and self.output_limit != self.ask.limit:
            headers["x-space-output-limit"] = str(self.output_limit)
        return headers

    def record_sent(self, target: Target) -> None:
        self.target, self.sent_at = target, time.monotonic()

    def record_first_token(self) -> None:
        if self.first_token_ms is None:
            self.first_token_ms = self._elapsed_ms()

    async def settle(
        self,
        answer: Answer,
        *,
        delivered_bytes: int,
        is_whole: bool = True,
        status: int = 200,
        code: str = "",
        message: str = "",
    ) -> Settled:
        """Charge what the answer told; what it did not tell is estimated. An estimate is capped at the hold.

        A stream that broke off may have told its first token alone: then what was delivered counts, if it is more.
        """
        usage = self._at_least(answer, estimate_tokens(delivered_bytes), is_whole=is_whole)
        if not answer.is_told or usage != answer.usage:
            return await self._settle_estimate(answer, usage, status=status, code=code, message=message)
        self._end()
        self.generated_tokens = usage.output_tokens
        if status == 200:
            self.speeds.note(self.offer.name, output_tokens=usage.output_tokens, duration_ms=self._elapsed_ms())
        return await self._settle(self.bill(answer, usage), answer, status=status, code=code, message=message)

    async def settle_cut(self, progress: Progress, *, code: str) -> Settled:
        """Charge an answer that was cut off before its end, since nobody waited for it any longer.

        The whole input, and of output what was told, what was delivered, or what the model's usual speed makes of the
        time it worked, whichever is most; never more than the hold.
        """
        answer = progress.answer
        if progress.is_ended and answer.is_told:
            return await self.settle(answer, delivered_bytes=progress.delivered_bytes, status=499, code=code)
        worked_s = time.monotonic() - (self.sent_at or self.started)
        made = round(worked_s * self.speeds.usual_tokens_per_s(self.offer.name)) if self.bound.limit else 0
        most = self._sent_limit * self.bound.extent.outputs
        output = min(max(estimate_tokens(progress.delivered_bytes), made), most)
        usage = self._at_least(answer, output, is_whole=False)
        return await self._settle_estimate(answer, usage, status=499, code=code)

    def _at_least(self, answer: Answer, output_tokens: int, *, is_whole: bool) -> Usage:
        """What was told, with estimates of what was not. Of a part of an answer, no less than this is its output."""
        usage = answer.usage_with(input_tokens=self._input_estimate(), output_tokens=output_tokens)
        if is_whole:
            return usage
        if not usage.input_tokens:
            usage = msgspec.structs.replace(usage, input=self._input_estimate())
        missing = output_tokens - usage.output_tokens
        return msgspec.structs.replace(usage, output=usage.output + missing) if missing > 0 else usage

    async def fail(self, status: int, code: str, message: str = "", *, reason: str = "") -> None:
        """Release the hold: nothing was used, or a provider failed and nothing was delivered.

        `message` is what the caller was told, `reason` what the operator needs to know.
        """
        if self.is_ended:
            return
        self._end()
        call = self._call(Bill.free(), Answer(), status=max(status, 400), code=code, message=message)
        if reason:
            call.details["reason"] = reason
        order = ReleaseOrder(
            space_id=self.presented.space_id, request_id=self.request_id, call=call, presented=self.presented
        )
        await self.teller.ask(order)

    def bill(self, answer: Answer, usage: Usage) -> Bill:
        """Price a usage by what was answered: its tier, and its model where that is another one on sale."""
        facts = {**self.ask.facts, **answer.facts}
        bill = self.bound.pricing.bill(usage, facts)
        other = self.offers.get(answer.model) if answer.model != self.offer.name else None
        if other is not None and not self._is_name_there(answer.model):
            pricing = Pricing.of(
                other.prices_for(self.presented.space_id), self.bound.extent, facts, context_tokens=other.context_tokens
            )
            bill = max(bill, pricing.bill(usage, facts), key=lambda each: each.cost_nanos)
        if answer.told_nanos is not None and self.target is not None and self.target.profile.settles_by_told_cost:
            bill = bill.as_told(answer.told_nanos)
        return self._plausible(bill, usage)

    def cost_usd(self, answer: Answer) -> float:
        """What the usage told so far costs, as a number: clients read `usage.cost` as one."""
        return 0.0 if answer.usage is None else self.bill(answer, answer.usage).cost_nanos / NANOS_PER_USD

    def keep_alive(self) -> None:
        """Renew the hold every few seconds until the charge ends, and report the cost delivered so far.

        When the hold expires because the process died, the sweep charges what the last renewal reported.
        """
        self.teller.renewals.add(self)

    def renew(self) -> None:
        if self.on_renew is not None:
            self.on_renew()
        # The event loop keeps only weak references to tasks; without this one it could be garbage-collected.
        self._renewal_task = asyncio.ensure_future(self._send_renewal())

    async def _send_renewal(self) -> None:
        delivered, accrued = 0, 0
        if self.progress is not None:
            progress = self.progress()
            delivered = progress.delivered_bytes
            usage = self._at_least(progress.answer, estimate_tokens(delivered), is_whole=False)
            accrued = min(self.bill(progress.answer, usage).cost_nanos, self.held_nanos)
        order = RenewOrder(
            space_id=self.presented.space_id,
            request_id=self.request_id,
            delivered_bytes=delivered,
            accrued_nanos=accrued,
        )
        with suppress(DatabaseError, InterfaceError):
            await self.teller.ask(order)

    def _is_name_there(self, answered: str) -> bool:
        there = self.target.model_name(self.offer.name) if self.target is not None else self.offer.name
        return answered in (self.offer.name, there)

    def _plausible(self, bill: Bill, usage: Usage) -> Bill:
        # Figures beyond body, window and limit cannot be: the provider's books are wrong, not the hold.
        if bill.cost_nanos <= self.held_nanos:
            return bill
        extent = self.bound.extent
        most_input = self.offer.context_tokens * extent.prompts * max(1, extent.context_reads)
        if not extent.context_reads and not extent.media_nanos:
            most_input = min(most_input, extent.input_tokens + MAX_HIDDEN_TOKENS)
        is_possible = usage.input_tokens <= most_input and usage.output_tokens <= extent.outputs * self._sent_limit
        return bill if is_possible else bill.cut_to(self.held_nanos)

    def tier_for(self, target: Target) -> str:
        """The service tier to send where the client named none: the one that was held, if the model has others."""
        has_tiers = any("service_tier" in dict(row.when) for row in self.bound.pricing.prices.rows)
        is_unsaid = "service_tier" not in self.ask.facts
        return "default" if has_tiers and is_unsaid and target.profile.knows_tiers else ""

    @property
    def _sent_limit(self) -> int:
        return self.bound.limit if self.output_limit is None else self.output_limit

    @property
    def keeps_limit(self) -> bool:
        """Whether the upstream generated no more than it was allowed to, as far as it told."""
        return self.generated_tokens <= self._sent_limit * self.bound.extent.outputs

    async def _settle_estimate(
        self, answer: Answer, usage: Usage, *, status: int, code: str, message: str = ""
    ) -> Settled:
        self._end()
        bill = self.bound.pricing.bill(usage, {**self.ask.facts, **answer.facts})
        media_nanos = self.bound.extent.media_nanos if answer.usage is None or answer.missing_input else 0
        bill = bill.at(min(bill.cost_nanos + media_nanos, self.held_nanos)).as_estimate()
        return await self._settle(bill, answer, status=status, code=code, message=message)

    async def _settle(self, bill: Bill, answer: Answer, *, status: int, code: str, message: str) -> Settled:
        order = SettleOrder(
            space_id=self.presented.space_id,
            request_id=self.request_id,
            cost_nanos=bill.cost_nanos,
            call=self._call(bill, answer, status=status, code=code, message=message),
            presented=self.presented,
        )
        return await self.teller.ask(order)

    def _input_estimate(self) -> int:
        return min(estimate_tokens(self.bound.extent.input_tokens), self.offer.context_tokens)

    def _end(self) -> None:
        self.is_ended = True
        self.teller.renewals.drop(self)

    def _call(self, bill: Bill, answer: Answer, *, status: int, code: str, message: str) -> Call:
        usage = bill.usage
        return Call(
            model=self.offer.name,
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            images=usage.images,
            seconds=usage.seconds,
            quantities=usage.quantities(),
            price=bill.rate.snapshot(),
            details=self._details(bill, answer, code=code, message=message),
            upstream_cost=self._upstream_cost(answer, usage),
            duration_ms=self._elapsed_ms(),
            first_token_ms=self.first_token_ms,
            status=status,
            code=code,
            is_estimated=bill.is_estimated,
        )

    def _details(self, bill: Bill, answer: Answer, *, code: str, message: str) -> dict[str, Any]:
        named: dict[str, Any] = {
            **bill.details(),
            "told_nanos": answer.told_nanos,
            "answered_model": "" if self._is_name_there(answer.model) else answer.model,
            "tier": answer.facts.get("service_tier", ""),
            "upstream": self.target.name if self.target is not None else "",
            "upstream_request_id": self.upstream_request_id,
            "client_request_id": self.client_request_id,
            "message": message,
            "client_left": code == CLIENT_GONE,
            "output_limit": self.output_limit if self.output_limit != self.ask.limit else None,
        }
        return {name: value for name, value in named.items() if value not in (None, "", False)}

    def _upstream_cost(self, answer: Answer, usage: Usage) -> int | None:
        if answer.told_nanos is not None:
            return answer.told_nanos
        prices = self.offer.cost_prices.get(self.target.id) if self.target is not None else None
        if prices is None:
            return None
        facts = {**self.ask.facts, **answer.facts}
        return Pricing.of(prices, self.bound.extent, facts, context_tokens=self.offer.context_tokens).cost(usage, facts)

    def _elapsed_ms(self) -> int:
        return round((time.monotonic() - self.started) * 1000)


# Instructions that a provider adds to a prompt, which no byte of the body stands for.
MAX_HIDDEN_TOKENS = 4_000
# `UsageRecord.code` of a request whose client left before its answer was complete.
CLIENT_GONE = "client_gone"
