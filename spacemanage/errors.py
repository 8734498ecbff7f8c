from __future__ import annotations

import sys

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import get_template
from django.views.defaults import server_error

from console.guards import Refusal
from console.refusals import record_refused_request
from spacemanage.logs import DATABASE_AWAY


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    record_refused_request(request)
    reason = {"reason_title": exception.title, "reason_text": exception.text} if isinstance(exception, Refusal) else {}
    return render(request, "403.html", reason, status=403)


def csrf_failed(request: HttpRequest, reason: str = "") -> HttpResponse:
    # Most often the form is stale because the user signed in again elsewhere.
    return render(request, "403_csrf.html", status=403)


def failed(request: HttpRequest) -> HttpResponse:
    """Answer 503 with Retry-After while the database is unreachable, and 500 for every other exception."""
    if not isinstance(sys.exception(), DATABASE_AWAY):
        return server_error(request)
    # Rendered without the request, whose context processors would query the database for the signed-in user.
    page = get_template("503.html").render()
    return HttpResponse(page, status=503, headers={"Retry-After": "5"})
