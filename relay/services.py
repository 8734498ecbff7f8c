"""Change models, prices, terms and upstreams, and record each change in the audit trail, without credentials."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Q

from accounts.models import User
from audit.services import record
from relay.models import CostPrice, Model, Price, SpaceTerms, Upstream
from relay.price_models import columns_of
from relay.prices import PriceList
from tenants.models import Space

_MODEL_FIELDS = (
    *("name", "is_enabled", "default_output_tokens", "max_output_tokens", "context_tokens"),
    *("image_nanos_ceiling", "audio_minute_nanos_ceiling", "task_timeout_s"),
)
_UPSTREAM_FIELDS = (
    *("name", "kind", "base_url", "settings", "query", "proxy", "model_names"),
    *("priority", "weight", "timeout_s", "is_enabled"),
)


@transaction.atomic
def set_price(*, model: Model, prices: PriceList, starts_at: datetime, actor: User | None) -> bool:
    """Model.set_price with an audit event. Returns False if nothing changed. Raises PriceStarted."""
    before = model.price_at(starts_at)
    if not model.set_price(prices, starts_at):
        return False
    _record_prices("price.set", model, actor, starts_at, before={"price": _said(before)}, after={"price": str(prices)})
    return True


@transaction.atomic
def set_cost_price(
    *, upstream: Upstream, model: Model, prices: PriceList, starts_at: datetime, actor: User | None
) -> bool:
    """Set what a model costs the operator at an upstream. Returns False if nothing changed. Raises PriceStarted."""
    # Lock the upstream's row, so that two operators cannot set a cost price for the same moment.
    Upstream.objects.select_for_update(no_key=True).get(pk=upstream.pk)
    subject = {"upstream": upstream, "model": model}
    before = CostPrice.objects.filter(**subject).at(starts_at)
    if not CostPrice.objects.set_from(starts_at, subject, columns_of(prices)):
        return False
    facts = {"model": model.name, "price": str(prices)}
    _record_prices("upstream.cost_price_set", upstream, actor, starts_at, before={"price": _said(before)}, after=facts)
    return True


@transaction.atomic
def set_space_terms(
    *,
    space: Space,
    model: Model | None,
    starts_at: datetime,
    actor: User | None,
    factor_millionths: int | None = None,
    prices: PriceList | None = None,
) -> bool:
    """Set what a space pays for a model, or with `model=None` for all: a factor on the list price, or prices.

    A factor of 1 ends earlier terms. Returns False if nothing changed. Raises PriceStarted.
    """
    # Lock the space's row, so that two operators cannot set terms for the same moment.
    Space.objects.select_for_update(no_key=True).get(pk=space.pk)
    history = SpaceTerms.objects.filter(Q(space=space, model=model))
    before = history.at(starts_at)
    values = columns_of(prices or PriceList()) | {"factor_millionths": factor_millionths}
    if not SpaceTerms.objects.set_from(starts_at, {"space": space, "model": model}, values):
        return False
    facts = {"model": model.name if model else "", "price": history.at(starts_at).text}
    was = {"price": before.text if before else None}
    _record_prices("space.terms_set", space, actor, starts_at, before=was, after=facts)
    return True


def _said(price: Price | CostPrice | None) -> str | None:
    return str(price.price_list) if price else None


def _record_prices(
    kind: str,
    target: Model | Upstream | Space,
    actor: User | None,
    starts_at: datetime,
    *,
    before: dict[str, Any],
    after: dict[str, Any],
) -> None:
    space = target if isinstance(target, Space) else None
    after = after | {"starts_at": starts_at.isoformat()}
    record(kind, space=space, actor=actor, target=target, before=before, after=after)


def audit_values(row: Model | Upstream | None) -> dict[str, Any]:
    if row is None or row.pk is None:
        return {}
    if isinstance(row, Model):
        return dict(Model.objects.filter(pk=row.pk).values(*_MODEL_FIELDS).get())
    served = list(row.models.order_by("name").values_list("name", flat=True))
    # Names of headers alone: their values may be secret.
    headers = sorted(Upstream.objects.values_list("headers", flat=True).get(pk=row.pk))
    fields = Upstream.objects.filter(pk=row.pk).values(*_UPSTREAM_FIELDS).get()
    return {**fields, "headers": headers, "models": served}


def record_change(
    row: Model | Upstream,
    *,
    before: dict[str, Any],
    actor: User | None,
    is_credential_new: bool = False,
    new_headers: Iterable[str] = (),
) -> None:
    """Record the fields that differ from `before`, if any. Call it in the transaction that saved the row.

    `new_headers` are the names of headers whose values were entered; the values are never recorded.
    """
    after = audit_values(row)
    changed = {name: value for name, value in after.items() if name not in before or before[name] != value}
    more: dict[str, Any] = {"credential_changed": True} if is_credential_new else {}
    if entered := sorted(new_headers):
        more["headers_entered"] = entered
    if changed or more:
        record(
            f"{row._meta.model_name}.{'edited' if before else 'added'}",
            space=None,
            actor=actor,
            target=row,
            before={name: before[name] for name in changed if name in before},
            after=changed | more,
        )
