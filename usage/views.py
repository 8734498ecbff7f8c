from __future__ import annotations

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_safe
from django.views.decorators.vary import vary_on_headers

from tenants.answers import is_htmx
from tenants.guards import manager_view, space_view
from tenants.middleware import SpaceRequest
from usage.dashboard import Dashboard
from usage.export import csv_answer, file_name, wants_bom
from usage.log import UsageLog
from usage.receipt import receipt_of
from usage.sheets import task_sheet, usage_sheet
from usage.task_log import TaskLog


@require_safe
@vary_on_headers("HX-Request", "HX-Target")
@space_view
def usage_log(request: SpaceRequest) -> HttpResponse:
    log = UsageLog(request.user, request.GET)
    context = {"log": log, "receipts": [receipt_of(record) for record in log.page.records]}
    if is_htmx(request) and request.htmx.target == "usage-log":
        response = render(request, "usage/usage_log.html#log", context)
        # The address without the empty fields of the form.
        response["HX-Push-Url"] = log.shown_url
        return response
    return render(request, "usage/usage_log.html", context)


@require_safe
@vary_on_headers("HX-Request", "HX-Target")
@space_view
def task_log(request: SpaceRequest) -> HttpResponse:
    log = TaskLog(request.user, request.GET)
    context = {"log": log, "poll_url": log.poll_url(log.rows)}
    if is_htmx(request) and request.htmx.target == "task-log":
        response = render(request, "usage/task_log.html#log", context)
        response["HX-Push-Url"] = log.shown_url
        return response
    return render(request, "usage/task_log.html", context)


@require_safe
@space_view
def tasks_running(request: SpaceRequest) -> HttpResponse:
    """The cells that have changed of rows that ran when they were shown, and where to ask next."""
    log = TaskLog(request.user, request.GET)
    rows = log.rows_of(request.GET.getlist("task"))
    has_ended = any(row.task.is_finished for row in rows)
    context = {"log": log, "rows": rows, "poll_url": log.poll_url(rows), "has_ended": has_ended}
    return render(request, "usage/_tasks_running.html", context)


@require_safe
@vary_on_headers("HX-Request", "HX-Target")
@space_view
def dashboard(request: SpaceRequest) -> HttpResponse:
    shown = Dashboard(request.user, request.GET)
    if is_htmx(request) and request.htmx.target == "dashboard":
        response = render(request, "usage/dashboard.html#figures", {"dashboard": shown})
        # The address without the empty fields of the form.
        response["HX-Push-Url"] = shown.shown_url
        return response
    return render(request, "usage/dashboard.html", {"dashboard": shown})


@require_safe
@vary_on_headers("HX-Request")
@manager_view
def dashboard_members(request: SpaceRequest) -> HttpResponse:
    """What the dashboard of a space fetches after itself; without a script a page of its own."""
    context = {"dashboard": Dashboard(request.user, request.GET)}
    template = "usage/dashboard_members.html"
    return render(request, f"{template}#members" if is_htmx(request) else template, context)


@require_GET
@space_view
def usage_csv(request: SpaceRequest) -> HttpResponseBase:
    log = UsageLog(request.user, request.GET)
    pieces = usage_sheet(log, has_bom=wants_bom(request))
    return csv_answer(pieces, file_name(request.space, "usage", *log.filters.period))


@require_GET
@space_view
def tasks_csv(request: SpaceRequest) -> HttpResponseBase:
    log = TaskLog(request.user, request.GET)
    pieces = task_sheet(log, has_bom=wants_bom(request))
    return csv_answer(pieces, file_name(request.space, "tasks", *log.filters.period))
