"""The most that a request can cost, and the completion limit that the money allows."""

from __future__ import annotations

import msgspec

from relay.bills import UNSAID, Pricing
from relay.catalogue import Offer
from relay.dialects import extent_of
from relay.dialects.ask import Ask
from relay.dialects.dialect import Dialect
from relay.prices import PriceList
from relay.pricing import Extent


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
    def of(
        cls, ask: Ask, dialect: Dialect, offer: Offer, prices: PriceList, *, sends_tier: bool, keeps_limit: bool = True
    ) -> Bound:
        """`sends_tier`: a request without a service tier is sent with the default one. Without `keeps_limit`, an
        upstream is known to generate more than the limit, and the whole context window is held instead of it.
        """
        extent = extent_of(
            ask,
            image_nanos_ceiling=offer.image_nanos_ceiling,
            audio_minute_nanos_ceiling=offer.audio_minute_nanos_ceiling,
            prices=prices,
        )
        pricing = Pricing.of(
            prices, extent, ask.facts, context_tokens=offer.context_tokens, unsaid=() if sends_tier else UNSAID
        )
        limit = min(ask.limit or offer.max_output_tokens, offer.max_output_tokens) if dialect.has_output else 0
        usual = min(offer.default_output_tokens, limit)
        if not keeps_limit and dialect.has_output:
            most = pricing.bound(max(limit, offer.context_tokens))
            return cls(pricing=pricing, extent=extent, limit=limit, least_nanos=most, usual_nanos=0, most_nanos=most)
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
