from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from core.money import MINUS, format_cost
from operators.browse import BrowseOnly
from usage.models import Task, UsageRecord


class HasShortfall(admin.SimpleListFilter):
    """Filters by whether a request used more than its hold and the wallet could pay."""

    title = _("shortfall")
    parameter_name = "shortfall"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        return [("yes", _("Has a shortfall")), ("no", _("Has none"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[UsageRecord]) -> QuerySet[UsageRecord]:
        match self.value():
            case "yes":
                return queryset.filter(shortfall__gt=0)
            case "no":
                return queryset.filter(shortfall=0)
        return queryset


@admin.register(UsageRecord)
class UsageRecordAdmin(BrowseOnly[UsageRecord]):
    list_display = (
        "at",
        "space",
        "username",
        "model",
        "kind",
        "input_tokens",
        "output_tokens",
        "cost_usd",
        "shortfall_usd",
        "margin_usd",
        "code",
    )
    list_filter = ("kind", HasShortfall)
    list_select_related = ("space",)
    search_fields = ("request_id",)

    @admin.display(description=_("Cost"))
    def cost_usd(self, record: UsageRecord) -> str:
        return format_cost(record.cost)

    @admin.display(description=_("Shortfall"), empty_value="")
    def shortfall_usd(self, record: UsageRecord) -> str | None:
        return format_cost(record.shortfall) if record.shortfall else None

    @admin.display(description=_("Margin"), empty_value="")
    def margin_usd(self, record: UsageRecord) -> str | None:
        """What was charged less what the request cost the operator, where that is known."""
        if record.upstream_cost is None:
            return None
        margin = record.cost - record.upstream_cost
        return format_cost(margin) if margin >= 0 else f"{MINUS}{format_cost(-margin)}"


@admin.register(Task)
class TaskAdmin(BrowseOnly[Task]):
    list_display = ("submitted_at", "space", "username", "platform", "model", "status", "progress", "cost_usd", "code")
    list_filter = ("status", "kind")
    list_select_related = ("space",)
    search_fields = ("id", "upstream_task_id")

    @admin.display(description=_("Cost"))
    def cost_usd(self, task: Task) -> str:
        return "" if task.cost is None else format_cost(task.cost)
