"""Guards of a space's views: who may, and whose rows. A refusal is 403 in one's own space; strangers are 404."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils.cache import add_never_cache_headers
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods
from django_htmx.middleware import HtmxDetails

from accounts.models import User
from quotas.models import Wallet
from tenants.models import Space
from tenants.policies import can_manage_users

View = Callable[..., HttpResponseBase]


class SpaceRequest(HttpRequest):
    """The request of a page behind these guards: somebody is signed in, and belongs to a space."""

    user: User
    space: Space
    htmx: HtmxDetails
    # Set by console.frame.pool_of_request, and by deeds that have just locked the pool.
    pool: Wallet | None


get_or_post = require_http_methods(["GET", "HEAD", "POST"])


class Refusal(PermissionDenied):
    """A refusal that says what, and who may; the 403 page shows it."""

    def __init__(self, *, title: str, text: str) -> None:
        super().__init__(title)
        self.title = title
        self.text = text


def space_view(view: View) -> View:
    """For everybody of a space; operators belong to none."""

    @wraps(view)
    def guarded(request: SpaceRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.space_id:
            raise PermissionDenied
        response = view(request, *args, **kwargs)
        # Money and passwords stay out of caches and of what a browser keeps for its Back button.
        add_never_cache_headers(response)
        return response

    return guarded


def manager_view(view: View) -> View:
    """For those who manage the space's users."""

    @wraps(view)
    def guarded(request: SpaceRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not can_manage_users(request.user):
            raise _managers_only(request)
        return view(request, *args, **kwargs)

    return space_view(guarded)


def member_view(may: Callable[[User, User], bool]) -> Callable[[View], View]:
    """Finds the member by number within the space and asks the policy; the view gets `member`."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: SpaceRequest, number: int, **place: Any) -> HttpResponseBase:
            people = User.objects.select_related("space", "wallet").filter(space=request.space)
            member = get_object_or_404(people, number=number)
            if not may(request.user, member):
                raise PermissionDenied
            return view(request, member, **place)

        return manager_view(guarded)

    return decorate


def _managers_only(request: SpaceRequest) -> Refusal:
    text = _(
        "Only Space Managers and Admins of %(space)s can see and change users. "
        "You are signed in as %(name)s (%(role)s)."
    )
    facts = {
        "space": request.space.name,
        "name": request.user.username,
        "role": request.user.get_role_display(),
    }
    return Refusal(title=_("You can’t open User Management"), text=text % facts)
