"""The wall: request.space is the signed-in person's own, and every look-up of theirs starts from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from django.http import HttpRequest, HttpResponse

from tenants.models import Space

if TYPE_CHECKING:
    from django_htmx.middleware import HtmxDetails

    from accounts.models import User


class SpaceRequest(HttpRequest):
    """What a space's pages get: somebody signed in, and their space."""

    # The pages behind the guards are for signed-in people only.
    user: User
    space: Space
    htmx: HtmxDetails


def space(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        # The backend that found the user brought the space along: no query here.
        request.space = getattr(request.user, "space", None)  # type: ignore[attr-defined]  # see SpaceRequest
        return get_response(request)

    return middleware
