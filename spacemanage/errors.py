from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def csrf_failed(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A stale form, most often after signing in elsewhere: say so, and that a reload mends it."""
    return render(request, "403_csrf.html", status=403)
