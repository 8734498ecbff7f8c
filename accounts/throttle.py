"""How many wrong passwords, for one name and from one address, before sign-in is refused for a while.

Every door tells axes who came, who went and who was refused, and so the trail is written from here.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from axes.handlers.database import AxesDatabaseHandler
from axes.handlers.proxy import AxesProxyHandler
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet, Sum
from django.http import HttpRequest, HttpResponse

from accounts.models import User
from accounts.services import record_refused_sign_in, record_sign_in, record_sign_out
from audit.services import record, record_refusal
from tenants.policies import can_unlock

NAME_LIMIT = 5
# An office shares one address.
ADDRESS_LIMIT = 20
COOL_OFF = timedelta(minutes=15)


class Throttle(AxesDatabaseHandler):
    """Axes with a limit of its own for addresses. A success forgives the name, never the address."""

    def get_failures(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        """Failures on the scale of NAME_LIMIT: the address's twenty weigh as much as the name's five."""
        by_name, by_address = (_failures(attempts) for attempts in self.get_user_attempts(request, credentials))
        return max(by_name, by_address * NAME_LIMIT // ADDRESS_LIMIT)

    def reset_user_attempts(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        return int(self.reset_attempts(username=throttled_name(request, credentials)))

    def user_login_failed(
        self, sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **more: Any
    ) -> None:
        # Before axes counts this one: its last allowed attempt was still looked at.
        is_locked = bool(getattr(request, "axes_locked_out", False))
        super().user_login_failed(sender, credentials, request, **more)
        if request is not None and sender != __name__:
            record_refused_sign_in(username=throttled_name(request, credentials), is_locked=is_locked)

    def user_logged_in(self, sender: Any, request: HttpRequest, user: User, **more: Any) -> None:
        super().user_logged_in(sender, request, user, **more)
        record_sign_in(user)

    def user_logged_out(self, sender: Any, request: HttpRequest, user: User | None, **more: Any) -> None:
        super().user_logged_out(sender, request, user, **more)
        if user is not None:
            record_sign_out(user)


def _failures(attempts: QuerySet[Any]) -> int:
    return int(attempts.aggregate(failures=Sum("failures_since_start", default=0))["failures"])


def failure_limit(request: HttpRequest, credentials: dict[str, Any] | None) -> int:
    return NAME_LIMIT


def cool_off(request: HttpRequest | None) -> timedelta:
    return COOL_OFF


def throttled_name(request: HttpRequest, credentials: dict[str, Any] | None = None) -> str:
    """One name however it is written, so that changing its case starts no new count."""
    source = credentials or request.POST
    return str(source.get("username", "")).lower().replace("\0", "")[:150]


def client_address(request: HttpRequest) -> str | None:
    """As the first middleware believed it; None where the server tells none."""
    return request.META.get("REMOTE_ADDR") or None


def is_right(
    request: HttpRequest, user: User, compare: Callable[[], bool], *, attempt: str, why: str = "wrong_password"
) -> bool:
    """Compare a secret of the user's under the limits of sign-in, whichever page asks for it.

    While locked nothing is compared, and axes' middleware turns the answer into a refusal that tells the wait. The
    trail keeps an attempt in vain by the kind of what was attempted.
    """
    actor = user if request.user.is_authenticated else None
    credentials = {"username": user.get_username()}
    if not AxesProxyHandler.is_allowed(request, credentials):
        request.axes_locked_out = True  # type: ignore[attr-defined]  # what axes' middleware looks at
        record_refusal(attempt, why="locked", space=user.space, actor=actor, target=user)
        return False
    if compare():
        return True
    AxesProxyHandler.user_login_failed(__name__, credentials, request)
    record_refusal(attempt, why=why, space=user.space, actor=actor, target=user)
    return False


@transaction.atomic
def unlock(*, user: User, actor: User | None) -> bool:
    """Let a name in again at once. False when it was not locked. Without an actor it is the command's."""
    if actor is not None and not can_unlock(actor):
        raise PermissionDenied
    forgotten = AxesProxyHandler.reset_attempts(username=throttled_name(HttpRequest(), {"username": user.username}))
    if forgotten:
        record("member.unlocked", space=user.space, actor=actor, target=user)
    return bool(forgotten)


def refuse(request: HttpRequest, response: HttpResponse | None = None, credentials: Any = None) -> HttpResponse:
    """The sign-in page again, or a page of its own for other doors, saying how long to wait."""
    from accounts.views import locked_out

    return locked_out(request, minutes=int(COOL_OFF.total_seconds() // 60))
