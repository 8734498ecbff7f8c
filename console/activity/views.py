from __future__ import annotations

from django.http import HttpResponse, HttpResponseBase
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from console.activity.sentences import line_of
from console.activity.sheet import trail_sheet
from console.activity.trail import OwnActivity, Trail
from console.answers import page_or_piece
from console.export import log_csv
from console.guards import SpaceRequest, manager_view, space_view


@require_safe
@vary_on_headers("HX-Request", "HX-Target")
@manager_view
def activity(request: SpaceRequest) -> HttpResponse:
    return _shown(request, Trail(request.user, request.GET), "console/activity/activity.html")


@require_safe
@vary_on_headers("HX-Request", "HX-Target")
@space_view
def own_activity(request: SpaceRequest) -> HttpResponse:
    return _shown(request, OwnActivity(request.user, request.GET), "console/activity/own_activity.html")


@require_safe
@manager_view
def activity_csv(request: SpaceRequest) -> HttpResponseBase:
    return log_csv(request, Trail(request.user, request.GET), trail_sheet, "activity")


def _shown(request: SpaceRequest, trail: Trail, page: str) -> HttpResponse:
    context = {"log": trail, "lines": [line_of(event, request.user) for event in trail.page.records]}
    return page_or_piece(
        request,
        page,
        context,
        piece="console/activity/_activity_table.html",
        target="activity",
        shown_url=trail.shown_url,
    )
