"""What Django admin calls apps, models and their columns. Only its pages show these names, so they are here.

Names that Django derives from code could not be translated.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

APPS: dict[str, Promise] = {
    "accounts": _("Accounts"),
    "audit": _("Audit"),
    "quotas": _("Quotas"),
    "relay": _("Relay"),
    "tenants": _("Tenants"),
    "usage": _("Usage"),
}
# Model → (one, several).
MODELS: dict[str, tuple[Promise, Promise]] = {
    "accounts.ApiKey": (_("API key"), _("API keys")),
    "accounts.User": (_("user"), _("users")),
    "audit.AuditEvent": (_("audit event"), _("audit events")),
    "quotas.Hold": (_("hold"), _("holds")),
    "quotas.Reconciliation": (_("reconciliation"), _("reconciliations")),
    "quotas.Transfer": (_("transfer"), _("transfers")),
    "quotas.Wallet": (_("wallet"), _("wallets")),
    "relay.CostPrice": (_("cost price"), _("cost prices")),
    "relay.Model": (_("model"), _("models")),
    "relay.Price": (_("price"), _("prices")),
    "relay.SpaceTerms": (_("terms of a space"), _("terms of a space")),
    "relay.Upstream": (_("upstream"), _("upstreams")),
    "tenants.Space": (_("space"), _("spaces")),
    "usage.Task": (_("task"), _("tasks")),
    "usage.UsageRecord": (_("usage record"), _("usage records")),
}
# Columns that mean the same in every model.
COLUMNS: dict[str, Promise] = {
    "accrued": _("accrued"),
    "actor": _("actor"),
    "actor_id": _("actor ID"),
    "actor_name": _("actor"),
    "actor_role": _("role of the actor"),
    "address": _("address"),
    "after": _("after"),
    "allocated": _("allocated"),
    "amount": _("amount"),
    "answer": _("answer"),
    "at": _("time"),
    "available_after": _("available after"),
    "base_url": _("base URL"),
    "before": _("before"),
    "cached_tokens": _("cached tokens"),
    "code": _("code"),
    "context_tokens": _("context tokens"),
    "cost": _("cost"),
    "created_at": _("created"),
    "deadline_at": _("deadline"),
    "default_output_tokens": _("default output tokens"),
    "deleted_at": _("deleted"),
    "delivered_bytes": _("delivered bytes"),
    "details": _("details"),
    "differences": _("differences"),
    "display_name": _("display name"),
    "duration_ms": _("duration (ms)"),
    "expires_at": _("expires"),
    "finished_at": _("finished"),
    "first_token_ms": _("first token (ms)"),
    "held": _("held"),
    "id": _("ID"),
    "idempotency_key": _("idempotency key"),
    "images": _("images"),
    "input_tokens": _("input tokens"),
    "ips_allowed": _("allowed IP ranges"),
    "is_active": _("active"),
    "is_balanced": _("balanced"),
    "is_closed": _("closed"),
    "is_enabled": _("enabled"),
    "is_estimated": _("estimated"),
    "key_id": _("API key ID"),
    "key_name": _("API key"),
    "kind": _("kind"),
    "last_login": _("last sign-in"),
    "last_used_at": _("last used"),
    "limit": _("limit"),
    "max_output_tokens": _("max output tokens"),
    "member_name": _("member"),
    "member_number": _("number of the member"),
    "member_remaining_after": _("remaining for the member after"),
    "member_total_after": _("total of the member after"),
    "misses": _("failed polls"),
    "model": _("model"),
    "models": _("models"),
    "models_allowed": _("allowed models"),
    "name": _("name"),
    "next_poll_at": _("next poll"),
    "number": _("number"),
    "old_until": _("old key works until"),
    "output_tokens": _("output tokens"),
    "platform": _("platform"),
    "polled_at": _("polled"),
    "pool_available_after": _("available in the pool after"),
    "pool_total_after": _("total of the pool after"),
    "prefix": _("prefix"),
    "last_four": _("last four characters"),
    "price": _("price"),
    "priority": _("priority"),
    "progress": _("progress"),
    "quantities": _("quantities"),
    "reason": _("reason"),
    "refusal": _("refusal"),
    "request_id": _("request ID"),
    "role": _("role"),
    "seconds": _("seconds"),
    "shortfall": _("shortfall"),
    "source": _("source"),
    "space": _("space"),
    "spent": _("spent"),
    "starts_at": _("starts"),
    "status": _("status"),
    "submitted_at": _("submitted"),
    "suspended_at": _("suspended"),
    "target": _("target"),
    "target_id": _("target ID"),
    "target_name": _("target"),
    "target_type": _("kind of target"),
    "total": _("total"),
    "upstream": _("upstream"),
    "upstream_cost": _("cost at the upstream"),
    "upstream_id": _("upstream ID"),
    "upstream_task_id": _("task ID at the upstream"),
    "user": _("user"),
    "user_id": _("user ID"),
    "username": _("username"),
    "wallet": _("wallet"),
    "wallet_id": _("wallet ID"),
    "weight": _("weight"),
}


def give_names() -> None:
    """Call it before Django admin imports its pages, whose forms take their labels from the columns."""
    for label, name in APPS.items():
        config: Any = apps.get_app_config(label)
        config.verbose_name = name
    for label, names in MODELS.items():
        options: Any = apps.get_model(label)._meta
        options.verbose_name, options.verbose_name_plural = names
        for column in (*options.concrete_fields, *options.many_to_many):
            column.verbose_name = COLUMNS.get(column.name, column.verbose_name)
