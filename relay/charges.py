"""The money of one request: compute and place its hold, renew it during the response, settle or release it once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
from django.db import DatabaseError, InterfaceError

from accounts.keys import Presented
from core.errors import InsufficientQuota, KeyRefused
from core.ids import new_id
from quotas.charging import Call
from quotas.sets import CheckOrder, HoldOrder, ReleaseOrder, RenewOrder, Settled, SettleOrder
from relay.answers import Answer
from relay.bills import Bill, Pricing
from relay.catalogue import Offer
from relay.dialects import extent_of
from relay.dialects.ask import Ask
from relay.dialects.dialect import Dialect
from relay.exchange import Request
from relay.prices import PriceList
from relay.pricing import Extent, Usage, estimate_tokens
from relay.speeds import Speeds
from relay.teller import Teller
from relay.upstreams import Target


class Bound(msgspec.Struct, frozen=True):
    """What a request can cost at most, and the completion limits between which the money decides.

    `most_nanos` is held where the money allows it, at `limit` tokens; at least `least_nanos`, for one token.
    """

    pricing: Pricing
    extent: Extent
    limit: int
    least_nanos: int
    usual_nanos: int
    most_nanos: int

    @classmethod
    def of(cls, ask: Ask, dialect: Dialect, offer: Offer, prices: PriceList) -> Bound:
        extent = extent_of(
            ask,
            image_nanos_ceiling=offer.image_nanos_ceiling,
            audio_minute_nanos_ceiling=offer.audio_minute_nanos_ceiling,
            prices=prices,
        )
        pricing = Pricing.of(prices, extent, ask.facts, context_tokens=offer.context_tokens)
        limit = min(ask.limit or offer.max_output_tokens, offer.max_output_tokens) if dialect.has_output else 0
        usual = min(offer.default_output_tokens, limit)
        return cls(
            pricing=pricing,
            extent=extent,
            limit=limit,
            least_nanos=pricing.bound(min(1, limit)),
            # A client's own limit is lowered only to what the money covers; the usual one stands where it names none.
            usual_nanos=pricing.bound(usual) if dialect.has_output and ask.limit is None else 0,
            most_nanos=pricing.bound(limit),
        )

    def limit_for(self, held_nanos: int) -> int:
        if held_nanos >= self.most_nanos:
            return self.limit
        return min(self.limit, self.pricing.affordable(held_nanos))


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
    progress: Callable[[], tuple[Answer, int]] | None = None
    # Called at each renewal, every few seconds.
    on_renew: Callable[[], None] | None = None
    started: float = field(default_factory=time.monotonic)
    sent_at: float | None = None
    first_token_ms: int | None = None
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
        """Charge what the answer told, or an estimate of what was delivered. An estimate is capped at the hold.

        A stream that broke off may have told its first token alone: then what was delivered counts, if it is more.
        """
        told = answer.usage
        if told is not None and not is_whole and estimate_tokens(delivered_bytes) > told.output_tokens:
            usage = msgspec.structs.replace(
                told, output=told.output + estimate_tokens(delivered_bytes) - told.output_tokens
            )
            return await self._settle_estimate(answer, usage, status=status, code=code, message=message)
        if answer.usage is None:
            usage = Usage(input=self._input_estimate(), output=estimate_tokens(delivered_bytes))
            return await self._settle_estimate(answer, usage, status=status, code=code, message=message)
        self._end()
        bill = self.bill(answer, answer.usage)
        if status == 200:
            self.speeds.note(self.offer.name, output_tokens=answer.usage.output_tokens, duration_ms=self._elapsed_ms())
        return await self._settle(bill, answer, status=status, code=code, message=message)

    async def settle_cut(self, answer: Answer, delivered_bytes: int, *, code: str) -> Settled:
        """Charge an answer that was cut off before it told its usage, since nobody waited for it any longer.

        The whole input, and of output what was delivered or what the model's usual speed makes of the time it worked,
        whichever is more; never more than the hold.
        """
        if answer.usage is not None:
            return await self.settle(answer, delivered_bytes=delivered_bytes, status=499, code=code)
        worked_s = time.monotonic() - (self.sent_at or self.started)
        made = round(worked_s * self.speeds.usual_tokens_per_s(self.offer.name)) if self.bound.limit else 0
        most = self.bound.limit_for(self.held_nanos) * self.bound.extent.outputs
        usage = Usage(input=self._input_estimate(), output=min(max(estimate_tokens(delivered_bytes), made), most))
        return await self._settle_estimate(answer, usage, status=499, code=code)

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
            bill = bill.at(answer.told_nanos)
        return self._plausible(bill, usage)

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
            answer, delivered = self.progress()
            usage = answer.usage or Usage(input=self._input_estimate(), output=estimate_tokens(delivered))
            accrued = min(self.bill(answer, usage).cost_nanos, self.held_nanos)
        order = RenewOrder(
            space_id=self.presented.space_id,
            request_id=self.request_id,
            delivered_bytes=delivered,
            accrued_nanos=accrued,
        )
        with suppress(DatabaseError, InterfaceError):
            await self.teller.ask(order)

    def _is_name_there(self, answered: str) -> bool:
        return self.target is not None and self.target.model_name(self.offer.name) == answered

    def _plausible(self, bill: Bill, usage: Usage) -> Bill:
        # Figures beyond the window and the limit cannot be: the provider's books are wrong, not the hold.
        extent = self.bound.extent
        window = self.offer.context_tokens * extent.prompts * max(1, extent.context_reads)
        is_possible = usage.input_tokens <= window and usage.output_tokens <= extent.outputs * self.bound.limit
        if bill.cost_nanos <= self.held_nanos or is_possible:
            return bill
        return bill.cut_to(self.held_nanos)

    async def _settle_estimate(
        self, answer: Answer, usage: Usage, *, status: int, code: str, message: str = ""
    ) -> Settled:
        self._end()
        bill = self.bound.pricing.bill(usage, {**self.ask.facts, **answer.facts})
        bill = bill.at(min(bill.cost_nanos + self.bound.extent.media_nanos, self.held_nanos)).as_estimate()
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
            "answered_model": answer.model if answer.model != self.offer.name else "",
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


# `UsageRecord.code` of a request whose client left before its answer was complete.
CLIENT_GONE = "client_gone"


def check_order(presented: Presented, address: str | None) -> CheckOrder:
    """An order that checks the key and returns the models it may use, empty for all. Refused with KeyRefused."""
    return CheckOrder(request_id=new_id(), presented=presented, address=address)


async def verify_key(teller: Teller, presented: Presented, address: str | None) -> None:
    """Raise KeyRefused if the key is unknown.

    Every other refusal of a known key is left to the hold, which also records it with the request's model.
    """
    try:
        await teller.ask(check_order(presented, address))
    except KeyRefused as refusal:
        if refusal.code == "invalid_api_key":
            raise


def refusal_order(
    request: Request, presented: Presented, *, model: str, status: int, code: str, message: str
) -> CheckOrder:
    """An order that checks the key and logs a request that was refused before it could hold."""
    details = {"message": message, "client_request_id": request.client_request_id}
    return CheckOrder(
        request_id=request.request_id,
        presented=presented,
        address=request.address,
        model=model,
        status=status,
        code=code,
        details={name: value for name, value in details.items() if value},
    )


async def open_charge(
    teller: Teller,
    speeds: Speeds,
    request: Request,
    presented: Presented,
    ask: Ask,
    dialect: Dialect,
    offers: dict[str, Offer],
) -> Charge:
    """Hold what the request can cost at most. If only less is available, lower its completion limit to fit.

    Raises KeyRefused, InsufficientQuota or KeyLimitReached; the refusal is logged.
    """
    offer = offers[ask.model]
    bound = Bound.of(ask, dialect, offer, offer.prices_for(presented.space_id))
    client_request_id = request.client_request_id
    held = await teller.ask(
        HoldOrder(
            request_id=request.request_id,
            presented=presented,
            model=offer.name,
            address=request.address,
            least_nanos=bound.least_nanos,
            usual_nanos=bound.usual_nanos,
            most_nanos=bound.most_nanos,
            details={"client_request_id": client_request_id} if client_request_id else {},
        )
    )
    limit = bound.limit_for(held.amount_nanos)
    is_limit_sent = dialect.has_output and (ask.limit is not None or limit < bound.limit or dialect.always_sends_limit)
    charge = Charge(
        teller=teller,
        speeds=speeds,
        ask=ask,
        offer=offer,
        offers=offers,
        presented=presented,
        request_id=request.request_id,
        client_request_id=client_request_id,
        bound=bound,
        held_nanos=held.amount_nanos,
        output_limit=limit if is_limit_sent else None,
    )
    if dialect.has_output and limit < 1:
        await charge.fail(429, InsufficientQuota.code)
        raise InsufficientQuota(available=held.amount_nanos, amount=bound.least_nanos)
    charge.keep_alive()
    return charge
