from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from tenants.guards import Refusal


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """403, with what the refusal has to say for itself."""
    said = {"reason_title": exception.title, "reason_text": exception.text} if isinstance(exception, Refusal) else {}
    return render(request, "403.html", said, status=403)


def csrf_failed(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A stale form, most often after signing in elsewhere: say so, and that a reload mends it."""
    return render(request, "403_csrf.html", status=403)
