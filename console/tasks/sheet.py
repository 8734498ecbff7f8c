"""CSV export of the task log."""

from __future__ import annotations

from collections.abc import Iterator

from django.utils.translation import gettext as _

from console.export import CsvColumn, batches, count, moment, money, sheet, text
from console.tasks.log import TaskLog
from quotas.models import Hold
from usage.models import Task


def task_sheet(log: TaskLog, *, has_bom: bool = False) -> Iterator[str]:
    records = log.records.defer("price", "answer")
    columns, groups = _task_columns(is_whole_space=log.is_whole_space), map(_with_holds, batches(records))
    return sheet(columns, groups, has_bom=has_bom, note=log.keys_note)


class _HeldTask:
    def __init__(self, task: Task, held_nanos: int) -> None:
        self.task = task
        self.held_nanos = held_nanos


def _with_holds(tasks: list[Task]) -> list[_HeldTask]:
    running = [task.pk for task in tasks if not task.is_finished]
    holds = Hold.objects.filter(space=tasks[0].space_id, pk__in=running) if running else Hold.objects.none()
    held = dict(holds.values_list("pk", "amount"))
    return [_HeldTask(task, held.get(task.pk, 0)) for task in tasks]


def _task_columns(*, is_whole_space: bool) -> list[CsvColumn[_HeldTask]]:
    kinds = {kind.value: str(kind.label) for kind in Task.Kind}
    statuses = {status.value: str(status.label) for status in Task.Status}
    return [
        moment(_("Submitted"), lambda row: row.task.submitted_at),
        moment(_("Finished"), lambda row: row.task.finished_at),
        *([text(_("User"), lambda row: row.task.username)] if is_whole_space else []),
        text(_("Platform"), lambda row: row.task.platform),
        text(_("Type"), lambda row: kinds[row.task.kind]),
        text(_("Task ID"), lambda row: row.task.public_id),
        text(_("Status"), lambda row: statuses[row.task.status]),
        count(_("Progress (%)"), lambda row: row.task.progress),
        text(_("Model"), lambda row: row.task.model),
        text(_("Token"), lambda row: row.task.key_name),
        count(_("Images"), lambda row: row.task.images),
        count(_("Seconds"), lambda row: row.task.seconds),
        money(_("Held (USD)"), lambda row: row.held_nanos),
        money(_("Cost (USD)"), lambda row: row.task.cost, is_summed=True),
        text(_("Code"), lambda row: row.task.code),
        text(_("Request ID"), lambda row: row.task.pk),
        text(_("Token ID"), lambda row: row.task.key_id),
    ]
