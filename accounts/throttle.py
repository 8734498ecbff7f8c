"""How many wrong passwords, for one name and from one address, before sign-in is refused for a while.

An attempt is counted before it is looked at, and taken off the count when it was right: so a crowd of guesses at one
moment gets no more of them answered than one after the other would.

Every door tells axes who came, who went and who was refused, and so the trail is written from here.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import structlog
from axes.handlers.database import AxesDatabaseHandler
from axes.handlers.proxy import AxesProxyHandler
from axes.models import AccessAttempt
from django.core.exceptions import PermissionDenied
from django.db import connection, transaction
from django.db.models import F, QuerySet, Sum
from django.http import HttpRequest
from django.utils import timezone

from accounts.models import User
from accounts.services import record_refused_sign_in, record_sign_in, record_sign_out
from audit.services import record, record_refusal
from tenants.policies import can_unlock

MAX_FAILURES_PER_NAME = 5
# An office shares one address.
MAX_FAILURES_PER_ADDRESS = 20
COOL_OFF = timedelta(minutes=15)
# Of PostgreSQL's advisory locks with two numbers: the other one is a name's or an address's.
_NAMES, _ADDRESSES = 1, 2

log = structlog.get_logger(__name__)


class Throttle(AxesDatabaseHandler):
    """Axes with a limit of its own for addresses. A success forgives the name, never the address."""

    def get_failures(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        """Failures on the scale of MAX_FAILURES_PER_NAME: the address's twenty weigh as much as the name's five."""
        by_name, by_address = (_failures(attempts) for attempts in self.get_user_attempts(request, credentials))
        return max(by_name, by_address * MAX_FAILURES_PER_NAME // MAX_FAILURES_PER_ADDRESS)

    def reset_user_attempts(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        return int(self.reset_attempts(username=throttled_name(request, credentials)))

    def is_allowed(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> bool:
        """Whether one more may be looked at; it is counted as wrong until `uncount_failure` is told otherwise."""
        self.clean_expired_user_attempts(request, credentials)
        with transaction.atomic():
            _wait_in_line(throttled_name(request, credentials), client_address(request))
            if not super().is_allowed(request, credentials):
                return False
            self._count(request, credentials)
            return True

    def _count(self, request: Any, credentials: dict[str, Any] | None) -> None:
        counted = _counted(request, credentials)
        again = {"failures_since_start": F("failures_since_start") + 1, "attempt_time": request.axes_attempt_time}
        if not counted.update(**again):
            counted.create(
                username=throttled_name(request, credentials),
                ip_address=request.axes_ip_address,
                user_agent=request.axes_user_agent,
                http_accept=request.axes_http_accept,
                path_info=request.axes_path_info,
                failures_since_start=1,
            )

    def user_login_failed(
        self, sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **more: Any
    ) -> None:
        if request is None:
            return
        # As it was asked: the last attempt that is allowed was still looked at.
        is_locked = bool(getattr(request, "axes_locked_out", False))
        _lock_out(request, credentials, is_locked or self.is_locked(request, credentials))
        log.warning("attempt_refused", address=client_address(request), path=request.path, locked=is_locked)
        if sender != __name__:
            record_refused_sign_in(username=throttled_name(request, credentials), is_locked=is_locked)

    def user_logged_in(self, sender: Any, request: HttpRequest, user: User, **more: Any) -> None:
        super().user_logged_in(sender, request, user, **more)
        record_sign_in(user)

    def user_logged_out(self, sender: Any, request: HttpRequest, user: User | None, **more: Any) -> None:
        super().user_logged_out(sender, request, user, **more)
        if user is not None:
            record_sign_out(user)


def _wait_in_line(name: str, address: str | None = None) -> None:
    """Until the transaction ends nobody else counts of this name and address; SQLite lets only one write anyway."""
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        # Names before addresses, so that nobody waits in a circle.
        for kind, who in ((_NAMES, name), (_ADDRESSES, address)):
            if who is not None:
                cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [kind, who])


def _counted(request: Any, credentials: dict[str, Any] | None) -> QuerySet[AccessAttempt]:
    """The row of these attempts, if there is one."""
    name, address = throttled_name(request, credentials), request.axes_ip_address
    found: QuerySet[AccessAttempt] = AccessAttempt.objects.filter(
        username=name, ip_address=address, user_agent=request.axes_user_agent
    )
    return found


@transaction.atomic
def uncount_failure(request: HttpRequest, credentials: dict[str, Any]) -> None:
    """What was looked at was right."""
    _wait_in_line(throttled_name(request, credentials))
    counted = _counted(request, credentials)
    counted.update(failures_since_start=F("failures_since_start") - 1)
    counted.filter(failures_since_start=0).delete()


def _lock_out(request: Any, credentials: dict[str, Any], is_locked: bool = True) -> None:
    """What axes' middleware looks at."""
    request.axes_locked_out, request.axes_credentials = is_locked, credentials


def _failures(attempts: QuerySet[Any]) -> int:
    return int(attempts.aggregate(failures=Sum("failures_since_start", default=0))["failures"])


def failure_limit(request: HttpRequest, credentials: dict[str, Any] | None) -> int:
    return MAX_FAILURES_PER_NAME


def cool_off(request: HttpRequest | None) -> timedelta:
    return COOL_OFF


def throttled_name(request: HttpRequest, credentials: dict[str, Any] | None = None) -> str:
    """One name however it is written, so that changing its case starts no new count."""
    source = credentials or request.POST
    return str(source.get("username", "")).lower().replace("\0", "")[:150]


def client_address(request: HttpRequest) -> str | None:
    """As the first middleware believed it; None where the server tells none."""
    return request.META.get("REMOTE_ADDR") or None


def check_secret(
    request: HttpRequest, user: User, compare: Callable[[], bool], *, attempt: str, why: str = "wrong_password"
) -> bool:
    """Compare a secret of the user's under the limits of sign-in, whichever page asks for it.

    While locked nothing is compared, and axes' middleware turns the answer into a refusal that tells the wait. The
    trail keeps an attempt in vain by the kind of what was attempted.
    """
    actor = user if request.user.is_authenticated else None
    credentials = {"username": user.get_username()}
    if not AxesProxyHandler.is_allowed(request, credentials):
        _lock_out(request, credentials)
        record_refusal(attempt, why="locked", space=user.space, actor=actor, target=user)
        return False
    if compare():
        uncount_failure(request, credentials)
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


def minutes_left(request: HttpRequest, credentials: Any) -> int:
    """How long sign-in stays refused, in whole minutes, rounded up and at least one."""
    kept = AxesProxyHandler.get_implementation().get_user_attempts(request, credentials)
    ends = map(_end_of_lock, kept, (MAX_FAILURES_PER_NAME, MAX_FAILURES_PER_ADDRESS))
    left = max((end - timezone.now() for end in ends if end), default=timedelta())
    return max(1, -(-left // timedelta(minutes=1)))


def _end_of_lock(attempts: QuerySet[AccessAttempt], limit: int) -> datetime | None:
    """When those that reach the limit, counted from the newest on, are old enough to be fewer again."""
    counted = 0
    at: datetime
    for at, failures in attempts.order_by("-attempt_time").values_list("attempt_time", "failures_since_start"):
        counted += failures
        if counted >= limit:
            return at + COOL_OFF
    return None
