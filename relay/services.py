"""Change models, prices and upstreams, and record each change in the audit trail, without credentials."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import transaction

from accounts.models import User
from audit.services import record
from relay.models import Model, Upstream
from relay.pricing import Rate

_MODEL_FIELDS = (
    *("name", "is_enabled", "default_output_tokens", "max_output_tokens", "context_tokens"),
    *("image_nanos_ceiling", "audio_minute_nanos_ceiling", "task_timeout_s"),
)
_UPSTREAM_FIELDS = (
    *("name", "kind", "base_url", "settings", "query", "proxy", "model_names"),
    *("priority", "weight", "timeout_s", "is_enabled"),
)


@transaction.atomic
def set_price(*, model: Model, rate: Rate, starts_at: datetime, actor: User | None) -> bool:
    """Model.set_price with an audit event. Returns False if nothing changed. Raises PriceStarted."""
    before = model.price_at(starts_at)
    if not model.set_price(rate, starts_at):
        return False
    record(
        "price.set",
        space=None,
        actor=actor,
        target=model,
        before={"price": str(before.rate) if before else None},
        after={"price": str(rate), "starts_at": starts_at.isoformat()},
    )
    return True


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
