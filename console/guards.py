"""View decorators that authorise and load: 403 for a forbidden deed, 404 for a member of another space."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods
from django_htmx.middleware import HtmxDetails

from accounts.models import User
from quotas.models import Wallet
from tenants.models import Space
from tenants.policies import can_manage_users

View = Callable[..., HttpResponseBase]


class SpaceRequest(HttpRequest):
    """A request that passed these decorators: its user is signed in and belongs to a space."""

    user: User
    space: Space
    htmx: HtmxDetails
    # Set by console.frame.pool_of_request, and by views whose service returned the locked pool.
    pool: Wallet | None


get_or_post = require_http_methods(["GET", "HEAD", "POST"])


class Refusal(PermissionDenied):
    """A 403 with a title and an explanation, which the 403 page shows."""

    def __init__(self, *, title: str, text: str) -> None:
        super().__init__(title)
        self.title = title
        self.text = text


def space_view(view: View) -> View:
    """Allow members of a space. Operators belong to no space and get 403."""

    @wraps(view)
    def guarded(request: SpaceRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.space_id:
            raise PermissionDenied
        return view(request, *args, **kwargs)

    # no-store keeps money and passwords out of HTTP caches and of the browser's back/forward cache.
    return never_cache(guarded)


def manager_view(view: View) -> View:
    @wraps(view)
    def guarded(request: SpaceRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not can_manage_users(request.user):
            raise _managers_only(request)
        return view(request, *args, **kwargs)

    return space_view(guarded)


def member_view(may: Callable[[User, User], bool]) -> Callable[[View], View]:
    """Load the member by number within the space (else 404), check the policy `may` (else 403), pass `member` on."""

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
