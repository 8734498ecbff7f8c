"""The demo's models and its upstream, so that a request can be made and charged right after the first start."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from core.money import NANOS_PER_USD
from relay.models import Model, Upstream
from relay.prices import PriceList, Rate
from relay.services import audit_values, record_change, set_price

NAME = "demo"
# Nano-dollars per million tokens, about the price of a small chat model and an embedding model; videos per second.
RATES = {
    "demo-chat": Rate(input=2 * NANOS_PER_USD, cached_input=NANOS_PER_USD // 2, output=8 * NANOS_PER_USD),
    "demo-embedding": Rate(input=NANOS_PER_USD // 10, cached_input=NANOS_PER_USD // 10),
    "demo-video": Rate(per_second=NANOS_PER_USD // 10),
}


@transaction.atomic
def offer_demo_models(*, upstream_port: int) -> None:
    """Create the demo's models where they are missing, and save the port at which the demo upstream now listens."""
    before = audit_values(Upstream.objects.filter(name=NAME).first())
    upstream, _is_new = Upstream.objects.get_or_create(name=NAME)
    upstream.base_url = f"http://127.0.0.1:{upstream_port}/v1"
    upstream.save(update_fields=["base_url"])
    for name, rate in RATES.items():
        model, is_new = Model.objects.get_or_create(name=name)
        if is_new:
            record_change(model, before={}, actor=None)
            set_price(model=model, prices=PriceList(rate), starts_at=timezone.now(), actor=None)
            upstream.models.add(model)
    record_change(upstream, before=before, actor=None)
