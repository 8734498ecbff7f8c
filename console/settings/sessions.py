"""Ends one or all other sessions of the signed-in user."""

from __future__ import annotations

from allauth.usersessions.models import UserSession
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from accounts.sessions import end_other_sessions, end_session
from console.answers import see_other
from console.guards import SpaceRequest, space_view


@require_POST
@space_view
def session_end(request: SpaceRequest, key_number: int) -> HttpResponse:
    """End another session of the user. The current one is ended by signing out."""
    others = UserSession.objects.filter(user=request.user).exclude(session_key=request.session.session_key)
    end_session(user=request.user, session=get_object_or_404(others, pk=key_number))
    messages.success(request, _("That session is signed out."))
    return see_other("/me/settings/#sessions-title")


@require_POST
@space_view
def sessions_end_others(request: SpaceRequest) -> HttpResponse:
    end_other_sessions(user=request.user)
    update_session_auth_hash(request, request.user)
    messages.success(request, _("You are signed out everywhere else."))
    return see_other("/me/settings/#sessions-title")
