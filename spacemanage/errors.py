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
    """403, with what the refusal has to say for itself; an act that was tried is in the trail."""
    record_refused_request(request)
    said = {"reason_title": exception.title, "reason_text": exception.text} if isinstance(exception, Refusal) else {}
    return render(request, "403.html", said, status=403)


def csrf_failed(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A stale form, most often after signing in elsewhere: say so, and that a reload mends it."""
    return render(request, "403_csrf.html", status=403)


def failed(request: HttpRequest) -> HttpResponse:
    """503 where the database cannot be reached, which mends itself; 500 for what is a fault of ours."""
    if not isinstance(sys.exception(), DATABASE_AWAY):
        return server_error(request)
    # Without the request: who is signed in would have to be asked of the database.
    page = get_template("503.html").render()
    return HttpResponse(page, status=503, headers={"Retry-After": "5"})
