from __future__ import annotations

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_safe
from django.views.decorators.vary import vary_on_headers

from console.answers import page_or_piece
from console.export import log_csv
from console.guards import SpaceRequest, space_view
from console.tasks.log import TaskLog
from console.tasks.sheet import task_sheet


@require_safe
@vary_on_headers("HX-Request", "HX-Target")
@space_view
def task_log(request: SpaceRequest) -> HttpResponse:
    log = TaskLog(request.user, request.GET)
    context = {"log": log, "poll_url": log.poll_url(log.rows)}
    return page_or_piece(
        request,
        "console/tasks/task_log.html",
        context,
        piece="console/tasks/task_log.html#log",
        target="task-log",
        shown_url=log.shown_url,
    )


@require_safe
@space_view
def tasks_running(request: SpaceRequest) -> HttpResponse:
    """Answer a poll: the changing cells of rows that were running when they were shown, and the next URL to poll."""
    log = TaskLog(request.user, request.GET)
    rows = log.rows_of(request.GET.getlist("task"))
    has_ended = any(row.task.is_finished for row in rows)
    context = {"log": log, "rows": rows, "poll_url": log.poll_url(rows), "has_ended": has_ended}
    return render(request, "console/tasks/_tasks_running.html", context)


@require_GET
@space_view
def tasks_csv(request: SpaceRequest) -> HttpResponseBase:
    return log_csv(request, TaskLog(request.user, request.GET), task_sheet, "tasks")
