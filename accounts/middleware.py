from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.http import HttpRequest, HttpResponseBase
from django.utils.http import urlencode
from django_htmx.http import HttpResponseClientRedirect


class SignInRequiredMiddleware(LoginRequiredMiddleware):
    """Every page asks for a sign-in unless it says otherwise; htmx is sent to the whole page, never a piece of it."""

    def handle_no_permission(self, request: HttpRequest, view_func: Any) -> HttpResponseBase:  # type: ignore[override]  # a 200 that tells htmx where to go
        htmx = getattr(request, "htmx", None)
        if not htmx:
            return super().handle_no_permission(request, view_func)
        try:
            came_from = htmx.current_url_abs_path or "/"
        except ValueError:  # a header can say anything
            came_from = "/"
        return HttpResponseClientRedirect(f"{settings.LOGIN_URL}?{urlencode({'next': came_from})}")
