"""Template tags for the second-factor and session cards of Personal Settings: `{% load sign_in %}`."""

from __future__ import annotations

from typing import Any

from django import template
from django.http import HttpRequest

from accounts import second_factor
from accounts.models import User
from accounts.second_factor import SecondFactorMethods
from accounts.sessions import OwnSession, sessions_of

register = template.Library()


@register.simple_tag
def second_factor_of(user: User) -> SecondFactorMethods:
    return second_factor.methods_of(user)


@register.simple_tag
def has_second_factor(user: User) -> bool:
    return second_factor.has_second_factor(user)


@register.simple_tag
def second_factor_is_possible() -> bool:
    return second_factor.is_possible()


@register.simple_tag(takes_context=True)
def own_sessions(context: Any) -> list[OwnSession]:
    request: HttpRequest = context["request"]
    assert isinstance(request.user, User)
    return sessions_of(request.user, this_key=request.session.session_key)
