"""An in-memory cache of models, prices and upstreams, refreshed from the database every CATALOGUE_REFRESH_S seconds.

Only operators change these, and there are few of them. Keys, users, spaces and wallets are never cached: the database
checks them for every request, so that a revoked key stops working immediately.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import structlog
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, connection
from django.utils import timezone

from relay.models import CostPrice, Model, Price, SpaceTerms, Upstream
from relay.prices import PriceList
from relay.profiles import ProfileError
from relay.upstreams import Target

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Offer:
    """A model on sale. `terms` are those of spaces, by space id; `cost_prices` are the operator's, by upstream id."""

    name: str
    prices: PriceList
    default_output_tokens: int
    max_output_tokens: int
    context_tokens: int
    image_nanos_ceiling: int
    audio_minute_nanos_ceiling: int
    task_timeout_s: int
    created: int
    targets: list[Target] = field(default_factory=list)
    terms: Mapping[int, PriceList] = field(default_factory=dict)
    cost_prices: Mapping[int, PriceList] = field(default_factory=dict)

    def prices_for(self, space_id: int) -> PriceList:
        return self.terms.get(space_id, self.prices)


class Catalogue:
    """Refreshes `offers` in a thread of its own. The dict is replaced, never mutated, so readers need no lock."""

    def __init__(self) -> None:
        self.offers: dict[str, Offer] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="catalogue", daemon=True)

    def start(self) -> None:
        self._refresh()
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.wait(settings.CATALOGUE_REFRESH_S):
            self._refresh()
        connection.close()

    def _refresh(self) -> None:
        try:
            self.offers = read_offers()
        except (DatabaseError, InterfaceError) as error:
            connection.close()
            log.warning("catalogue_not_refreshed", error=type(error).__name__)


def read_offers() -> dict[str, Offer]:
    served: dict[int, list[Target]] = {}
    for upstream in Upstream.objects.filter(is_enabled=True).prefetch_related("models"):
        if target := target_of(upstream):
            for model in upstream.models.all():
                served.setdefault(model.pk, []).append(target)
    now = timezone.now()
    prices = Price.objects.in_force(now).filter(model__in=served, model__is_enabled=True)
    terms, costs = SpaceTerms.objects.in_force(now), CostPrice.objects.in_force(now)
    return {
        price.model.name: _offer(
            price.model,
            price,
            served[price.model_id],
            terms=_terms_of(price, terms),
            costs={cost.upstream_id: cost.price_list for cost in costs if cost.model_id == price.model_id},
        )
        for price in prices.select_related("model")
    }


def _terms_of(price: Price, terms: Iterable[SpaceTerms]) -> dict[int, PriceList]:
    # Terms of the model come last, so that they replace the space's terms for all models.
    chosen = sorted(
        (each for each in terms if each.model_id in (None, price.model_id)), key=lambda each: each.model_id or 0
    )
    return {each.space_id: each.apply_to(price.price_list) for each in chosen}


def _offer(
    model: Model, price: Price, targets: list[Target], *, terms: dict[int, PriceList], costs: dict[int, PriceList]
) -> Offer:
    return Offer(
        name=model.name,
        prices=price.price_list,
        default_output_tokens=model.default_output_tokens,
        max_output_tokens=model.max_output_tokens,
        context_tokens=model.context_tokens,
        image_nanos_ceiling=model.image_nanos_ceiling,
        audio_minute_nanos_ceiling=model.audio_minute_nanos_ceiling,
        task_timeout_s=model.task_timeout_s,
        created=int(price.starts_at.timestamp()),
        targets=targets,
        terms=terms,
        cost_prices=costs,
    )


def target_of(upstream: Upstream) -> Target | None:
    """The upstream with its secrets decrypted; None if CREDENTIAL_KEYS does not decrypt them.

    Such an upstream is left out with an error in the log, so that the others keep serving.
    """
    try:
        return Target(
            id=upstream.pk,
            name=upstream.name,
            base_url=upstream.base_url,
            credential=upstream.unseal(),
            priority=upstream.priority,
            weight=upstream.weight,
            timeout_s=upstream.timeout_s,
            profile=upstream.profile,
            models=upstream.model_names,
            headers=upstream.unseal_headers(),
            query=tuple(upstream.query.items()),
            proxy=upstream.unseal_proxy(),
        )
    except (ImproperlyConfigured, ProfileError) as error:
        log.error("upstream_left_out", upstream=upstream.name, error=str(error))
        return None
