"""Admit a request: check its key, and hold the most that it can cost."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from accounts.keys import Presented
from core.errors import InsufficientQuota, KeyRefused
from core.ids import new_id
from quotas.sets import CheckOrder, HoldOrder
from relay.bounds import Bound
from relay.catalogue import Catalogue
from relay.charges import Charge
from relay.dialects.ask import Ask
from relay.dialects.dialect import Dialect
from relay.exchange import Request
from relay.speeds import Speeds
from relay.targets import Target
from relay.teller import Teller


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


class Admission:
    """Opens charges. `breakers` are the upstreams, each with a model, known to generate more than their limit."""

    def __init__(self, teller: Teller, catalogue: Catalogue, breakers: AbstractSet[tuple[int, str]]) -> None:
        self._teller = teller
        self._catalogue = catalogue
        self._breakers = breakers
        self._speeds = Speeds()

    async def open(
        self, request: Request, presented: Presented, ask: Ask, dialect: Dialect, targets: Sequence[Target]
    ) -> Charge:
        """Hold what the request can cost at most. If only less is available, lower its completion limit to fit.

        `targets` are the upstreams that may get it. Raises KeyRefused, InsufficientQuota or KeyLimitReached; the
        refusal is logged.
        """
        offers = self._catalogue.offers
        offer = offers[ask.model]
        bound = Bound.of(
            ask,
            dialect,
            offer,
            offer.prices_for(presented.space_id),
            sends_tier=all(target.profile.knows_tiers for target in targets),
            keeps_limit=self._breakers.isdisjoint((target.id, offer.name) for target in targets),
        )
        client_request_id = request.client_request_id
        held = await self._teller.ask(
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
        is_limit_sent = dialect.has_output and (
            ask.limit is not None or limit < bound.limit or dialect.always_sends_limit
        )
        charge = Charge(
            teller=self._teller,
            speeds=self._speeds,
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
