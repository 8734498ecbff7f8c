"""Tenant isolation: request.space is the signed-in user's own space, and every query of a page filters by it."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse


def space(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        # No query: the authentication backend loads the user with their space (select_related).
        request.space = getattr(request.user, "space", None)  # type: ignore[attr-defined]  # see console.guards.SpaceRequest
        return get_response(request)

    return middleware
