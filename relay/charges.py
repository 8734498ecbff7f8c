"""The money side of one request: its hold, kept alive while the answer runs, and its one settlement."""

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
from relay.asks import Ask
from relay.catalogue import Offer
from relay.media import media_of
from relay.pricing import (
    Usage,
    affordable_output_tokens,
    bound_nanos,
    cost_nanos,
    estimate_tokens,
)
from relay.stream import Events
from relay.teller import Teller

# Content that the upstream keeps: how long it is we cannot know.
_KEPT_UPSTREAM = ("previous_response_id", "conversation")
_POINTERS = (b'"file_id"', b'"file_url"', b'"vector_store_ids"', b'"item_reference"')


@dataclass(eq=False)
class Charge:
    """An open hold. Exactly one of `settle` and `fail` ends it; a second end does nothing."""

    teller: Teller
    ask: Ask
    offer: Offer
    presented: Presented
    request_id: UUID
    held_nanos: int
    output_limit: int
    # What of a stream went by so far; an answer in one piece is delivered only when it is settled.
    events: Events | None = None
    started: float = field(default_factory=time.monotonic)
    first_token_ms: int | None = None
    is_ended: bool = False
    _renewal: asyncio.Task[None] | None = None

    def headers(self) -> dict[str, str]:
        return {"x-space-request-id": str(self.request_id)}

    def note_first(self) -> None:
        if self.first_token_ms is None:
            self.first_token_ms = self._elapsed_ms()

    async def settle(self, usage: Usage, *, is_estimated: bool, status: int = 200, code: str = "") -> Settled:
        """Charge what was used; an estimate never more than the hold."""
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
        """Release the hold; the log gets an Error row with the status."""
        if self.is_ended:
            return
        self._end()
        call = self._call(status=max(status, 400), code=code, usage=Usage(), is_estimated=False)
        order = ReleaseOrder(
            space_id=self.presented.space_id, request_id=self.request_id, call=call, presented=self.presented
        )
        await self.teller.ask(order)

    def keep_alive(self) -> None:
        """Renew the hold every few seconds with what was delivered so far, until it is ended."""
        self.teller.renewals.add(self)

    def renew(self) -> None:
        # Kept, because the loop itself holds on to no task.
        self._renewal = asyncio.ensure_future(self._ask_renewal())

    async def _ask_renewal(self) -> None:
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
        """What was used, where no usage tells it: bytes sent and delivered, a quarter of them tokens."""
        return Usage(input_tokens=estimate_tokens(self.ask.body_bytes), output_tokens=estimate_tokens(delivered_bytes))

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


def authorize(presented: Presented, address: str | None) -> CheckOrder:
    """Whether the key may be used at all: the models it is limited to, empty for all. Raises KeyRefused."""
    return CheckOrder(request_id=new_id(), presented=presented, address=address)


async def know(teller: Teller, presented: Presented, address: str | None) -> None:
    """Raises KeyRefused for a key that is nobody's; what else is wrong with one is told and logged with its request."""
    try:
        await teller.ask(authorize(presented, address))
    except KeyRefused as refused:
        if refused.code == "invalid_api_key":
            raise


def refusal(presented: Presented, address: str | None, *, model: str, status: int, code: str) -> CheckOrder:
    """As authorize; and the log keeps that the request was refused for another reason."""
    return CheckOrder(request_id=new_id(), presented=presented, address=address, model=model, status=status, code=code)


async def open_charge(teller: Teller, presented: Presented, address: str | None, ask: Ask, offer: Offer) -> Charge:
    """Hold the dearest that the request can cost, or as much of it as is there and covers one token of an answer.

    Raises what a HoldOrder is refused with.
    """
    limit = _limit(ask, offer)
    weight = _weigh(ask, offer)
    most, least = _bound(ask, offer, limit, weight), _bound(ask, offer, min(limit, 1), weight)
    order = HoldOrder(
        request_id=new_id(),
        presented=presented,
        model=offer.name,
        address=address,
        least_nanos=max(least, 1),
        most_nanos=max(most, 1),
    )
    held = await teller.ask(order)
    if limit and held.amount_nanos < most:
        limit = min(limit, _affordable(ask, offer, held.amount_nanos, weight))
    charge = Charge(teller, ask, offer, presented, order.request_id, held.amount_nanos, limit)
    charge.keep_alive()
    return charge


def _limit(ask: Ask, offer: Offer) -> int:
    if not ask.kind.limit_fields:
        return 0
    return min(ask.limit or offer.default_output_tokens, offer.max_output_tokens)


def _bound(ask: Ask, offer: Offer, limit: int, weight: tuple[int, int]) -> int:
    body_bytes, media_nanos = weight
    return bound_nanos(
        offer.rate, body_bytes=body_bytes, choices=ask.choices, output_tokens=limit, media_nanos=media_nanos
    )


def _affordable(ask: Ask, offer: Offer, available_nanos: int, weight: tuple[int, int]) -> int:
    body_bytes, media_nanos = weight
    tokens = affordable_output_tokens(
        offer.rate,
        available_nanos=available_nanos,
        body_bytes=body_bytes,
        choices=ask.choices,
        media_nanos=media_nanos,
    )
    if tokens < 1:
        raise InsufficientQuota(available=available_nanos, amount=_bound(ask, offer, 1, weight))
    return tokens


def _weigh(ask: Ask, offer: Offer) -> tuple[int, int]:
    """(bytes that may be tokens, nanos that the media may cost)."""
    media = media_of(ask.body, ask.raw)
    body_bytes = ask.body_bytes - media.body_bytes
    if _is_elsewhere(ask):
        body_bytes = max(body_bytes, offer.context_tokens)
    nanos = media.images * offer.image_nanos_ceiling + media.audio_minutes * offer.audio_minute_nanos_ceiling
    return body_bytes, nanos


def _is_elsewhere(ask: Ask) -> bool:
    """Whether it asks about content that is not in its body."""
    return any(map(ask.body.get, _KEPT_UPSTREAM)) or any(map(ask.raw.__contains__, _POINTERS))
