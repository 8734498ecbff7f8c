"""The money of one request: compute and place its hold, renew it during the response, settle or release it once."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

from django.db import DatabaseError, InterfaceError

from accounts.keys import Presented
from core.errors import InsufficientQuota, KeyRefused
from core.ids import new_id
from quotas.charging import Call
from quotas.sets import CheckOrder, HoldOrder, ReleaseOrder, RenewOrder, Settled, SettleOrder
from relay.catalogue import Offer
from relay.media import media_of
from relay.model_requests import ModelRequest
from relay.pricing import (
    Usage,
    affordable_output_tokens,
    bound_nanos,
    cost_nanos,
    estimate_tokens,
)
from relay.stream import EventStream
from relay.teller import Teller

# Both refer to content that the upstream stores. Its size is unknown here, so the hold covers the context window.
_STORED_CONTEXT_FIELDS = ("previous_response_id", "conversation")
_STORED_CONTENT_MARKERS = (b'"file_id"', b'"file_url"', b'"vector_store_ids"', b'"item_reference"')


@dataclass(eq=False)
class Charge:
    """An open hold, ended by exactly one `settle` or `fail`. A `fail` after the end does nothing."""

    teller: Teller
    model_request: ModelRequest
    offer: Offer
    presented: Presented
    request_id: UUID
    held_nanos: int
    output_limit: int
    # Set for a stream only: a complete response is sent after it was settled, so renewals have nothing to report.
    events: EventStream | None = None
    started: float = field(default_factory=time.monotonic)
    first_token_ms: int | None = None
    is_ended: bool = False
    _renewal_task: asyncio.Task[None] | None = None

    def headers(self) -> dict[str, str]:
        return {"x-space-request-id": str(self.request_id)}

    def record_first_token(self) -> None:
        if self.first_token_ms is None:
            self.first_token_ms = self._elapsed_ms()

    async def settle(self, usage: Usage, *, is_estimated: bool, status: int = 200, code: str = "") -> Settled:
        """Charge the cost of `usage`. An estimated cost is capped at the hold; a reported one is not."""
        self._end()
        cost = cost_nanos(self.offer.rate, usage)
        order = SettleOrder(
            space_id=self.presented.space_id,
            request_id=self.request_id,
            cost_nanos=min(cost, self.held_nanos) if is_estimated else cost,
            call=self._call(status=status, code=code, usage=usage, is_estimated=is_estimated),
            presented=self.presented,
        )
        return await self.teller.ask(order)

    async def fail(self, status: int, code: str) -> None:
        if self.is_ended:
            return
        self._end()
        call = self._call(status=max(status, 400), code=code, usage=Usage(), is_estimated=False)
        order = ReleaseOrder(
            space_id=self.presented.space_id, request_id=self.request_id, call=call, presented=self.presented
        )
        await self.teller.ask(order)

    def keep_alive(self) -> None:
        """Renew the hold every few seconds until the charge ends, and report the cost delivered so far.

        When the hold expires because the process died, the sweep charges what the last renewal reported.
        """
        self.teller.renewals.add(self)

    def renew(self) -> None:
        # The event loop keeps only weak references to tasks; without this one it could be garbage-collected.
        self._renewal_task = asyncio.ensure_future(self._send_renewal())

    async def _send_renewal(self) -> None:
        delivered, accrued = 0, 0
        if self.events is not None:
            delivered = self.events.text_bytes
            usage = self.events.usage or self.estimate(delivered)
            accrued = min(cost_nanos(self.offer.rate, usage), self.held_nanos)
        order = RenewOrder(
            space_id=self.presented.space_id,
            request_id=self.request_id,
            delivered_bytes=delivered,
            accrued_nanos=accrued,
        )
        with suppress(DatabaseError, InterfaceError):
            await self.teller.ask(order)

    def estimate(self, delivered_bytes: int) -> Usage:
        return Usage(
            input_tokens=estimate_tokens(self.model_request.body_bytes), output_tokens=estimate_tokens(delivered_bytes)
        )

    def _end(self) -> None:
        self.is_ended = True
        self.teller.renewals.drop(self)

    def _call(self, *, status: int, code: str, usage: Usage, is_estimated: bool) -> Call:
        return Call(
            model=self.offer.name,
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            images=usage.images,
            seconds=usage.seconds,
            price=self.offer.rate.snapshot(),
            duration_ms=self._elapsed_ms(),
            first_token_ms=self.first_token_ms,
            status=status,
            code=code,
            is_estimated=is_estimated,
        )

    def _elapsed_ms(self) -> int:
        return round((time.monotonic() - self.started) * 1000)


def check_order(presented: Presented, address: str | None) -> CheckOrder:
    """An order that checks the key and returns the models it may use, empty for all. Refused with KeyRefused."""
    return CheckOrder(request_id=new_id(), presented=presented, address=address)


async def verify_key(teller: Teller, presented: Presented, address: str | None) -> None:
    """Raise KeyRefused if the key is unknown.

    Every other refusal of a known key is left to the hold, which also records it with the request's model.
    """
    try:
        await teller.ask(check_order(presented, address))
    except KeyRefused as refused:
        if refused.code == "invalid_api_key":
            raise


def refusal_order(presented: Presented, address: str | None, *, model: str, status: int, code: str) -> CheckOrder:
    """Like check_order; if the key is valid, write an error usage record with this status and code."""
    return CheckOrder(request_id=new_id(), presented=presented, address=address, model=model, status=status, code=code)


async def open_charge(
    teller: Teller, presented: Presented, address: str | None, model_request: ModelRequest, offer: Offer
) -> Charge:
    """Hold the upper bound of the request's cost, or whatever part of it is available.

    A partial hold lowers the completion limit to what it covers. Raises what HoldOrder is refused with, and
    InsufficientQuota if the hold does not cover one output token.
    """
    limit = _applied_limit(model_request, offer)
    input_bound = _input_bound(model_request, offer)
    bound = _bound_nanos(model_request, offer, limit, input_bound)
    minimum = _bound_nanos(model_request, offer, min(limit, 1), input_bound)
    order = HoldOrder(
        request_id=new_id(),
        presented=presented,
        model=offer.name,
        address=address,
        least_nanos=max(minimum, 1),
        most_nanos=max(bound, 1),
    )
    held = await teller.ask(order)
    if limit and held.amount_nanos < bound:
        limit = min(limit, _affordable(model_request, offer, held.amount_nanos, input_bound))
    charge = Charge(teller, model_request, offer, presented, order.request_id, held.amount_nanos, limit)
    charge.keep_alive()
    return charge


def _applied_limit(model_request: ModelRequest, offer: Offer) -> int:
    if not model_request.endpoint.limit_fields:
        return 0
    return min(model_request.limit or offer.default_output_tokens, offer.max_output_tokens)


def _bound_nanos(model_request: ModelRequest, offer: Offer, limit: int, input_bound: tuple[int, int]) -> int:
    body_bytes, media_nanos = input_bound
    return bound_nanos(
        offer.rate, body_bytes=body_bytes, choices=model_request.choices, output_tokens=limit, media_nanos=media_nanos
    )


def _affordable(model_request: ModelRequest, offer: Offer, available_nanos: int, input_bound: tuple[int, int]) -> int:
    body_bytes, media_nanos = input_bound
    tokens = affordable_output_tokens(
        offer.rate,
        available_nanos=available_nanos,
        body_bytes=body_bytes,
        choices=model_request.choices,
        media_nanos=media_nanos,
    )
    if tokens < 1:
        raise InsufficientQuota(available=available_nanos, amount=_bound_nanos(model_request, offer, 1, input_bound))
    return tokens


def _input_bound(model_request: ModelRequest, offer: Offer) -> tuple[int, int]:
    """(body bytes to price as tokens, upper bound of the media's cost in nanos)."""
    media = media_of(model_request.body, model_request.raw)
    body_bytes = model_request.body_bytes - media.body_bytes
    if _refers_to_stored_content(model_request):
        body_bytes = max(body_bytes, offer.context_tokens)
    nanos = media.images * offer.image_nanos_ceiling + media.audio_minutes * offer.audio_minute_nanos_ceiling
    return body_bytes, nanos


def _refers_to_stored_content(model_request: ModelRequest) -> bool:
    return any(map(model_request.body.get, _STORED_CONTEXT_FIELDS)) or any(
        map(model_request.raw.__contains__, _STORED_CONTENT_MARKERS)
    )
