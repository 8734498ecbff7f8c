"""The wall between spaces: request.space is the signed-in person's own space, and every look-up starts from it."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse


def space(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        # The authentication backend loaded the user together with their space: no query here.
        request.space = getattr(request.user, "space", None)  # type: ignore[attr-defined]  # see console.guards.SpaceRequest
        return get_response(request)

    return middleware
