"""The task log: asynchronous jobs with their hold or charge, and the polling of those that still run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Count, Q, QuerySet, Sum
from django.http import QueryDict
from django.utils.translation import gettext as _

from accounts.models import User
from console.choices import Choice, choices_of
from console.logs import MAX_SUGGESTIONS, PAGE_SIZES, sees_whole_space, text_in, uuid_of
from console.token_filter import RequestFilters, RequestLog
from console.usage.receipt import Receipt, receipt_of
from core import origin
from quotas.models import Hold
from relay.tasks import GONE_UPSTREAM, NOT_SUBMITTED, TIMED_OUT
from usage.figures import first_id
from usage.models import Task, UsageRecord

RUNNING = [Task.Status.QUEUED, Task.Status.IN_PROGRESS]
# Task ids are truncated in the middle, and this many characters of the end are kept: UUIDv7 ids of the same time
# share their start.
TAIL_LENGTH = 8
# Options of the model and platform filters come from this many of the newest tasks. Others work in the URL.
MAX_TASKS_FOR_CHOICES = 2000


def tasks_visible_to(user: User) -> QuerySet[Task]:
    """Return the tasks that this user may see. Every query for a task must start from here."""
    tasks = Task.objects.filter(space=user.space_id)
    return tasks if sees_whole_space(user) else tasks.filter(user_id=user.pk)


@dataclass(frozen=True, kw_only=True)
class TaskFilters(RequestFilters):
    """Filters of the task log. `request_id` also accepts the public task id, like `video_0193…`."""

    status: str
    platform: str

    @classmethod
    def parse(cls, query: QueryDict, *, today: date) -> dict[str, Any]:
        status = text_in(query, "status")
        return super().parse(query, today=today) | {
            "status": status if status in Task.Status.values else "",
            "platform": text_in(query, "platform"),
        }


@dataclass(frozen=True)
class TaskTotals:
    tasks: int
    running: int
    failed: int
    cost_nanos: int


@dataclass(frozen=True)
class TaskRow:
    """A task with its hold while it runs, and with its receipt once it has ended."""

    task: Task
    held_nanos: int
    receipt: Receipt | None
    now: datetime

    @property
    def duration(self) -> timedelta:
        return max((self.task.finished_at or self.now) - self.task.submitted_at, timedelta())

    @property
    def id_head(self) -> str:
        return self.task.public_id[:-TAIL_LENGTH]

    @property
    def id_tail(self) -> str:
        return self.task.public_id[-TAIL_LENGTH:]

    @property
    def failure(self) -> str:
        if not self.task.code:
            return ""
        words = {
            NOT_SUBMITTED: _("The provider did not accept it."),
            GONE_UPSTREAM: _("The provider no longer knows it."),
            TIMED_OUT: _("Not finished in time."),
            "upstream_error": _("The provider’s answer was not valid."),
            "upstream_failed": _("The provider failed."),
        }
        return words.get(self.task.code) or _("The provider’s error code: %(code)s") % {"code": self.task.code}


class TaskLog(RequestLog[Task, TaskFilters]):
    address = "/console/tasks/"

    def _filters(self, query: QueryDict) -> TaskFilters:
        return TaskFilters.of(query, today=self.today)

    def _visible(self) -> QuerySet[Task]:
        return tasks_visible_to(self.user)

    def _of_request(self, text: str) -> QuerySet[Task]:
        prefix, _underscore, rest = text.partition("_")
        identifier = uuid_of(rest if prefix in Task.Kind.values else text)
        return self._visible().filter(pk=identifier) if identifier else Task.objects.none()

    def _matching(self) -> QuerySet[Task]:
        tasks = super()._matching()
        if self.filters.platform:
            tasks = tasks.filter(platform=self.filters.platform)
        return tasks.filter(status=self.filters.status) if self.filters.status else tasks

    @cached_property
    def totals(self) -> TaskTotals:
        found = self.records.aggregate(
            tasks=Count("id"),
            running=Count("id", filter=Q(status__in=RUNNING)),
            failed=Count("id", filter=Q(status=Task.Status.FAILED)),
            cost=Sum("cost"),
        )
        return TaskTotals(found["tasks"], found["running"], found["failed"], found["cost"] or 0)

    @cached_property
    def rows(self) -> list[TaskRow]:
        return self._rows(self.page.records)

    def rows_of(self, ids: list[str]) -> list[TaskRow]:
        known = [found for text in ids[: PAGE_SIZES[-1]] if (found := uuid_of(text))]
        return self._rows(list(self._visible().filter(pk__in=known))) if known else []

    def poll_url(self, rows: list[TaskRow]) -> str:
        running = [("task", row.task.pk.hex) for row in rows if not row.task.is_finished]
        return f"{self.address}running/?{urlencode([*self._query().items(), *running])}" if running else ""

    @property
    def statuses(self) -> list[Choice]:
        options = [("", _("Any status")), *((status.value, str(status.label)) for status in Task.Status)]
        return [Choice(value, label, value == self.filters.status) for value, label in options]

    @property
    def models(self) -> list[Choice]:
        models = {model for model, _platform in self._used}
        return choices_of(models, everything=_("All models"), current=self.filters.model)

    @property
    def platforms(self) -> list[Choice]:
        platforms = {platform for _model, platform in self._used}
        return choices_of(platforms, everything=_("All platforms"), current=self.filters.platform)

    @cached_property
    def _used(self) -> list[tuple[str, str]]:
        # The other filters are ignored, so that each option stays on offer.
        first, after = map(first_id, self.moments)
        tasks = self._visible().filter(id__gte=first, id__lt=after).order_by("-id")
        return sorted(set(tasks.values_list("model", "platform")[:MAX_TASKS_FOR_CHOICES]))[:MAX_SUGGESTIONS]

    def _rows(self, tasks: list[Task]) -> list[TaskRow]:
        held = self._held([task.pk for task in tasks if not task.is_finished])
        receipts = self._receipts([task.pk for task in tasks if task.is_finished])
        now = origin.now()
        return [TaskRow(task, held.get(task.pk, 0), receipts.get(task.pk), now) for task in tasks]

    def _held(self, ids: list[UUID]) -> dict[UUID, int]:
        holds = Hold.objects.filter(space=self.user.space_id, pk__in=ids)
        return dict(holds.values_list("pk", "amount")) if ids else {}

    def _receipts(self, ids: list[UUID]) -> dict[UUID, Receipt]:
        # A swept hold leaves two records; the older one, the sweep's, has the hold. It comes last, so it wins.
        records = UsageRecord.objects.filter(space=self.user.space_id, request_id__in=ids).order_by("-id")
        return {record.request_id: receipt_of(record) for record in records} if ids else {}
