from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from console.answers import is_htmx, page_or_piece
from console.dashboard.dashboard import Dashboard
from console.guards import SpaceRequest, manager_view, space_view


@require_safe
@vary_on_headers("HX-Request", "HX-Target")
@space_view
def dashboard(request: SpaceRequest) -> HttpResponse:
    shown = Dashboard(request.user, request.GET)
    return page_or_piece(
        request,
        "console/dashboard/dashboard.html",
        {"dashboard": shown},
        piece="console/dashboard/dashboard.html#figures",
        target="dashboard",
        shown_url=shown.shown_url,
    )


@require_safe
@vary_on_headers("HX-Request")
@manager_view
def dashboard_members(request: SpaceRequest) -> HttpResponse:
    """The piece with figures per member, which the dashboard fetches; a page of its own without JavaScript."""
    context = {"dashboard": Dashboard(request.user, request.GET)}
    template = "console/dashboard/dashboard_members.html"
    return render(request, f"{template}#members" if is_htmx(request) else template, context)
