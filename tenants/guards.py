"""Guards of a space's views: who may, and whose rows. A refusal is 403 in one's own space; strangers are 404."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404

from accounts.models import User
from tenants.middleware import SpaceRequest
from tenants.policies import can_manage_users

P = ParamSpec("P")
SpaceView = Callable[Concatenate[SpaceRequest, P], HttpResponse]
View = Callable[Concatenate[HttpRequest, P], HttpResponse]


def space_view(view: SpaceView[P]) -> View[P]:
    """For everybody of a space; operators belong to none."""

    @wraps(view)
    def guarded(request: Any, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if request.space is None:
            raise PermissionDenied
        return view(request, *args, **kwargs)

    return guarded


def manager_view(view: SpaceView[P]) -> View[P]:
    """For those who manage the space's users."""

    @wraps(view)
    def guarded(request: SpaceRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if not can_manage_users(request.user):
            raise PermissionDenied
        return view(request, *args, **kwargs)

    return space_view(guarded)


def member_view(may: Callable[[User, User], bool]) -> Callable[[Any], Any]:
    """Finds the member by number within the space and asks the policy; the view gets `member`."""

    def decorate(view: Callable[[SpaceRequest, User], HttpResponse]) -> View[[int]]:
        def guarded(request: SpaceRequest, number: int) -> HttpResponse:
            people = User.objects.select_related("space", "wallet").filter(space=request.space)
            member = get_object_or_404(people, number=number)
            if not may(request.user, member):
                raise PermissionDenied
            return view(request, member)

        return wraps(view)(manager_view(guarded))

    return decorate
