"""The columns of the logs as files."""

from __future__ import annotations

from collections.abc import Iterator

from django.utils.translation import gettext as _

from quotas.models import Hold
from usage.export import Column, batches, count, moment, money, sheet, text
from usage.log import UsageLog
from usage.models import Task, UsageRecord
from usage.task_log import TaskLog


def usage_sheet(log: UsageLog, *, has_bom: bool = False) -> Iterator[str]:
    # The price snapshot stands in no column, and takes longer to read than all others.
    columns = _usage_columns(is_whole_space=log.is_whole_space)
    return sheet(columns, _whole(log), has_bom=has_bom, note=" ".join(filter(None, [log.cut_note, log.keys_note])))


def _whole(log: UsageLog) -> Iterator[list[UsageRecord]]:
    """Breaks off at the end, before any sums, where a month of it was pruned while it was read."""
    yield from batches(log.records.defer("price"))
    log.check_whole()


def task_sheet(log: TaskLog, *, has_bom: bool = False) -> Iterator[str]:
    records = log.records.defer("price", "answer")
    columns, groups = _task_columns(is_whole_space=log.is_whole_space), map(_with_holds, batches(records))
    return sheet(columns, groups, has_bom=has_bom, note=log.keys_note)


def _usage_columns(*, is_whole_space: bool) -> list[Column[UsageRecord]]:
    kinds = {kind.value: str(kind.label) for kind in UsageRecord.Kind}
    estimated = {True: _("estimated"), False: ""}
    return [
        moment(_("Time"), lambda record: record.at),
        *([text(_("User"), lambda record: record.username)] if is_whole_space else []),
        text(_("Token"), lambda record: record.key_name),
        text(_("Model"), lambda record: record.model),
        text(_("Type"), lambda record: kinds[record.kind]),
        count(_("Duration (ms)"), lambda record: record.duration_ms),
        count(_("First token (ms)"), lambda record: record.first_token_ms),
        count(_("Input tokens"), lambda record: record.input_tokens, is_summed=True),
        count(_("Cached input tokens"), lambda record: record.cached_tokens, is_summed=True),
        count(_("Output tokens"), lambda record: record.output_tokens, is_summed=True),
        count(_("Images"), lambda record: record.images, is_summed=True),
        count(_("Seconds"), lambda record: record.seconds, is_summed=True),
        money(_("Held (USD)"), lambda record: record.held),
        money(_("Cost (USD)"), lambda record: record.cost, is_summed=True),
        money(_("Available after (USD)"), lambda record: record.available_after),
        count(_("Status"), lambda record: record.status),
        text(_("Code"), lambda record: record.code),
        text(_("Estimated"), lambda record: estimated[record.is_estimated]),
        text(_("Request ID"), lambda record: record.request_id),
        text(_("Token ID"), lambda record: record.key_id),
    ]


class _HeldTask:
    """A task and what it holds now."""

    def __init__(self, task: Task, held_nanos: int) -> None:
        self.task = task
        self.held_nanos = held_nanos


def _with_holds(tasks: list[Task]) -> list[_HeldTask]:
    running = [task.pk for task in tasks if not task.is_finished]
    holds = Hold.objects.filter(space=tasks[0].space_id, pk__in=running) if running else Hold.objects.none()
    held = dict(holds.values_list("pk", "amount"))
    return [_HeldTask(task, held.get(task.pk, 0)) for task in tasks]


def _task_columns(*, is_whole_space: bool) -> list[Column[_HeldTask]]:
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
