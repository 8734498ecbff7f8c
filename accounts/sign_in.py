"""Signing in: the password first, then the second factor if the user has one.

Between the two steps the session only names the user; it grants no access.
"""

from __future__ import annotations

import time
from typing import Any

from django.contrib.auth import login
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare

from accounts.backends import LivingUserBackend
from accounts.models import User
from accounts.sessions import forget_old_sessions

SECOND_STEP_TIMEOUT_S = 600
# How long password and second factor can be changed after the current password was given.
CONFIRMATION_TIMEOUT_S = 600
BACKEND = "accounts.backends.LivingUserBackend"
_PENDING = "second_step"
_CONFIRMED = "password_confirmed_at"


def begin_second_step(request: HttpRequest, user: User, *, next_page: str) -> None:
    request.session.cycle_key()
    request.session[_PENDING] = {
        "user": user.pk,
        "proof": user.get_session_auth_hash(),
        "began_at": time.time(),
        "next": next_page,
    }


def pending_user(request: HttpRequest) -> User | None:
    """Return the user whose password was right but whose second step is still missing, or None.

    The step expires after SECOND_STEP_TIMEOUT_S, and when the user is disabled, suspended or gets another password.
    """
    pending = request.session.get(_PENDING)
    if not pending:
        return None
    user = LivingUserBackend().get_user(pending["user"])
    in_time = time.time() - pending["began_at"] < SECOND_STEP_TIMEOUT_S
    if user and in_time and constant_time_compare(pending["proof"], user.get_session_auth_hash()):
        return user
    del request.session[_PENDING]
    return None


def finish_second_step(request: HttpRequest, user: User) -> str:
    pending = request.session.pop(_PENDING)
    sign_in(request, user)
    return str(pending["next"])


def sign_in(request: HttpRequest, user: User) -> None:
    login(request, user, backend=BACKEND)
    confirm(request)
    forget_old_sessions(user)


def confirm(request: HttpRequest) -> None:
    request.session[_CONFIRMED] = time.time()


def is_confirmed(request: HttpRequest) -> bool:
    at: Any = request.session.get(_CONFIRMED, 0)
    return bool(time.time() - at < CONFIRMATION_TIMEOUT_S)
