"""Brute-force protection: limit wrong passwords per username and per client address, on top of django-axes.

A failure is counted before the password is compared and taken back when the password was right. Concurrent guesses
therefore cannot race past the limit.

Every sign-in form reports to axes' handler, so this module also records sign-ins, sign-outs and refused sign-ins.
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
# Higher than the limit per name, because everybody in an office shares one address.
MAX_FAILURES_PER_ADDRESS = 20
COOL_OFF = timedelta(minutes=15)
# First key of the two-key advisory locks (PostgreSQL); the second key is the hash of the name or address.
_NAME_LOCK, _ADDRESS_LOCK = 1, 2

log = structlog.get_logger(__name__)


class Throttle(AxesDatabaseHandler):
    """Axes' handler with a separate limit for addresses.

    A sign-in resets the failures of its username, but not those of other usernames from the same address.
    """

    def get_failures(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        """Return the failures on the scale of MAX_FAILURES_PER_NAME, the only limit that axes compares them with.

        MAX_FAILURES_PER_ADDRESS failures of the address count as MAX_FAILURES_PER_NAME failures of the name.
        """
        by_name, by_address = (_failures(attempts) for attempts in self.get_user_attempts(request, credentials))
        return max(by_name, by_address * MAX_FAILURES_PER_NAME // MAX_FAILURES_PER_ADDRESS)

    def reset_user_attempts(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        return int(self.reset_attempts(username=throttled_name(request, credentials)))

    def is_allowed(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> bool:
        """Return whether one more password may be compared, and count it as a failure until `uncount_failure`."""
        self.clean_expired_user_attempts(request, credentials)
        with transaction.atomic():
            _lock_counters(throttled_name(request, credentials), client_address(request))
            if not super().is_allowed(request, credentials):
                return False
            self._count(request, credentials)
            return True

    def _count(self, request: Any, credentials: dict[str, Any] | None) -> None:
        row = _attempt_row(request, credentials)
        again = {"failures_since_start": F("failures_since_start") + 1, "attempt_time": request.axes_attempt_time}
        if not row.update(**again):
            row.create(
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
        # Read before it is overwritten: the attempt that reaches the limit was still compared, so it was not locked.
        is_locked = bool(getattr(request, "axes_locked_out", False))
        _mark_locked_out(request, credentials, is_locked or self.is_locked(request, credentials))
        log.warning("attempt_refused", address=client_address(request), path=request.path, locked=is_locked)
        # check_secret sends this module's name and records its own refusals.
        if sender != __name__:
            record_refused_sign_in(username=throttled_name(request, credentials), is_locked=is_locked)

    def user_logged_in(self, sender: Any, request: HttpRequest, user: User, **more: Any) -> None:
        super().user_logged_in(sender, request, user, **more)
        record_sign_in(user)

    def user_logged_out(self, sender: Any, request: HttpRequest, user: User | None, **more: Any) -> None:
        super().user_logged_out(sender, request, user, **more)
        if user is not None:
            record_sign_out(user)


def _lock_counters(name: str, address: str | None = None) -> None:
    if connection.vendor != "postgresql":
        # SQLite allows one writer at a time.
        return
    with connection.cursor() as cursor:
        # Held until the transaction ends. Lock names before addresses in every transaction, which prevents deadlocks.
        for kind, who in ((_NAME_LOCK, name), (_ADDRESS_LOCK, address)):
            if who is not None:
                cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [kind, who])


def _attempt_row(request: Any, credentials: dict[str, Any] | None) -> QuerySet[AccessAttempt]:
    name, address = throttled_name(request, credentials), request.axes_ip_address
    found: QuerySet[AccessAttempt] = AccessAttempt.objects.filter(
        username=name, ip_address=address, user_agent=request.axes_user_agent
    )
    return found


@transaction.atomic
def uncount_failure(request: HttpRequest, credentials: dict[str, Any]) -> None:
    _lock_counters(throttled_name(request, credentials))
    row = _attempt_row(request, credentials)
    row.update(failures_since_start=F("failures_since_start") - 1)
    row.filter(failures_since_start=0).delete()


def _mark_locked_out(request: Any, credentials: dict[str, Any], is_locked: bool = True) -> None:
    # Axes' middleware turns these attributes into the lock-out response.
    request.axes_locked_out, request.axes_credentials = is_locked, credentials


def _failures(attempts: QuerySet[Any]) -> int:
    return int(attempts.aggregate(failures=Sum("failures_since_start", default=0))["failures"])


def failure_limit(request: HttpRequest, credentials: dict[str, Any] | None) -> int:
    return MAX_FAILURES_PER_NAME


def cool_off(request: HttpRequest | None) -> timedelta:
    return COOL_OFF


def throttled_name(request: HttpRequest, credentials: dict[str, Any] | None = None) -> str:
    # In lower case, so that another spelling does not start a new count.
    source = credentials or request.POST
    return str(source.get("username", "")).lower().replace("\0", "")[:150]


def client_address(request: HttpRequest) -> str | None:
    # core.middleware.origin put the client address there; it is empty if the server gives none.
    return request.META.get("REMOTE_ADDR") or None


def check_secret(
    request: HttpRequest, user: User, compare: Callable[[], bool], *, attempt: str, why: str = "wrong_password"
) -> bool:
    """Call `compare` under the rate limits of sign-in and return whether the user's secret was right.

    While the name or address is locked out, `compare` is not called, and axes' middleware replaces the response with
    a 429 that states the remaining wait. A failure is recorded in the trail as a refusal of the kind `attempt`.
    """
    actor = user if request.user.is_authenticated else None
    credentials = {"username": user.get_username()}
    if not AxesProxyHandler.is_allowed(request, credentials):
        _mark_locked_out(request, credentials)
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
    """`actor` is None for a management command. False when there were no failures. Raises PermissionDenied."""
    if actor is not None and not can_unlock(actor):
        raise PermissionDenied
    forgotten = AxesProxyHandler.reset_attempts(username=throttled_name(HttpRequest(), {"username": user.username}))
    if forgotten:
        record("member.unlocked", space=user.space, actor=actor, target=user)
    return bool(forgotten)


def minutes_left(request: HttpRequest, credentials: Any) -> int:
    kept = AxesProxyHandler.get_implementation().get_user_attempts(request, credentials)
    ends = map(_end_of_lock, kept, (MAX_FAILURES_PER_NAME, MAX_FAILURES_PER_ADDRESS))
    left = max((end - timezone.now() for end in ends if end), default=timedelta())
    return max(1, -(-left // timedelta(minutes=1)))


def _end_of_lock(attempts: QuerySet[AccessAttempt], limit: int) -> datetime | None:
    # COOL_OFF after the attempt at which the sum of failures, counted from the newest, reaches the limit.
    counted = 0
    at: datetime
    for at, failures in attempts.order_by("-attempt_time").values_list("attempt_time", "failures_since_start"):
        counted += failures
        if counted >= limit:
            return at + COOL_OFF
    return None
