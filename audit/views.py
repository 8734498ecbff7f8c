from __future__ import annotations

from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from audit.sentences import line_of
from audit.sheet import sheet_of
from audit.trail import OwnActivity, Trail
from tenants.answers import is_htmx
from tenants.guards import manager_view, space_view
from tenants.middleware import SpaceRequest


@require_safe
@vary_on_headers("HX-Request", "HX-Target")
@manager_view
def activity(request: SpaceRequest) -> HttpResponse:
    return _shown(request, Trail(request.user, request.GET), "audit/activity.html")


@require_safe
@vary_on_headers("HX-Request", "HX-Target")
@space_view
def own_activity(request: SpaceRequest) -> HttpResponse:
    return _shown(request, OwnActivity(request.user, request.GET), "audit/own_activity.html")


@require_safe
@manager_view
def activity_csv(request: SpaceRequest) -> HttpResponse:
    """The rows of exactly that filter, whatever the page."""
    trail = Trail(request.user, request.GET)
    response = StreamingHttpResponse(sheet_of(trail), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="activity-{trail.filters.period.start}.csv"'
    return response  # type: ignore[return-value]  # the guards pass on what has headers


def _shown(request: SpaceRequest, trail: Trail, page: str) -> HttpResponse:
    context = {"log": trail, "lines": [line_of(event, request.user) for event in trail.page.events]}
    if is_htmx(request) and request.htmx.target == "activity":
        response = render(request, "audit/_activity_table.html", context)
        # The address without the empty fields of the form.
        response["HX-Push-Url"] = trail.shown_url
        return response
    return render(request, page, context)
