from __future__ import annotations

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from quotas.money import format_cost
from spacemanage.browse import BrowseOnly
from usage.models import Task, UsageRecord


@admin.register(UsageRecord)
class UsageRecordAdmin(BrowseOnly[UsageRecord]):
    list_display = ("at", "space", "username", "model", "kind", "input_tokens", "output_tokens", "cost_usd", "code")
    list_filter = ("kind",)
    list_select_related = ("space",)
    search_fields = ("request_id",)

    @admin.display(description=_("Cost"))
    def cost_usd(self, record: UsageRecord) -> str:
        return format_cost(record.cost)


@admin.register(Task)
class TaskAdmin(BrowseOnly[Task]):
    list_display = ("submitted_at", "space", "username", "platform", "model", "status", "progress", "cost_usd", "code")
    list_filter = ("status", "kind")
    list_select_related = ("space",)
    search_fields = ("id", "upstream_task_id")

    @admin.display(description=_("Cost"))
    def cost_usd(self, task: Task) -> str:
        return "" if task.cost is None else format_cost(task.cost)
