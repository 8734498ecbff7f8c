"""The sessions of a user: list them by device and address, and end them.

Each has a UserSession row (allauth's) beside Django's own Session row.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from accounts.devices import Device, device_of
from accounts.models import User
from audit.services import record

LAST_SEEN_INTERVAL_S = 60
MAX_USER_AGENT_LENGTH = 200
# Stored when the server gives no client address, because the column is NOT NULL.
UNKNOWN_ADDRESS = "0.0.0.0"  # noqa: S104


class SignedOutError(User.DoesNotExist):
    """The user was deleted, disabled or signed out during the request.

    SignInRequiredMiddleware redirects them to the sign-in page.
    """


@dataclass(frozen=True)
class OwnSession:
    pk: int
    device: Device
    address: str
    began_at: datetime
    seen_at: datetime
    is_this: bool


def note_seen(request: HttpRequest, user: User) -> None:
    key = request.session.session_key
    # The cache is the process's own: at most one write a minute per process.
    if not key or not cache.add(f"seen:{key}", True, LAST_SEEN_INTERVAL_S):
        return
    seen = UserSession(
        session_key=key,
        user_id=user.pk,
        ip=request.META.get("REMOTE_ADDR") or UNKNOWN_ADDRESS,
        user_agent=request.headers.get("User-Agent", "")[:MAX_USER_AGENT_LENGTH],
    )
    fields = ["user_id", "ip", "user_agent", "last_seen_at"]
    UserSession.objects.bulk_create([seen], update_conflicts=True, unique_fields=["session_key"], update_fields=fields)


def forget_old_sessions(user: User) -> None:
    expired_before = timezone.now() - timedelta(seconds=settings.SESSION_COOKIE_AGE)
    UserSession.objects.filter(user=user, last_seen_at__lt=expired_before).delete()


def sessions_of(user: User, *, this_key: str | None) -> list[OwnSession]:
    rows = list(UserSession.objects.filter(user=user))
    live = _live_keys(user, [row.session_key for row in rows])
    rows = [row for row in rows if row.session_key in live]
    rows.sort(key=lambda row: (row.session_key != this_key, -row.last_seen_at.timestamp()))
    return [_own_session(row, is_this=row.session_key == this_key) for row in rows]


def lock_user(user: User, **expected: object) -> User:
    """Lock the user's row until the transaction ends, and return it as it is stored now.

    Raises SignedOutError when the user was deleted since the request began, or no longer matches `expected`.
    """
    try:
        return User.objects.select_for_update(no_key=True).get(pk=user.pk, **expected)
    except User.DoesNotExist as error:
        raise SignedOutError from error


@transaction.atomic
def end_session(*, user: User, session: Any) -> None:
    # Two concurrent requests can get here; only the one that deletes the row records the event.
    if UserSession.objects.filter(pk=session.pk).delete()[0]:
        session.end()
        before = {"device": device_of(session.user_agent).names, "address": session.ip}
        record("session.ended", space=user.space, actor=user, target=user, before=before)


@transaction.atomic
def end_other_sessions(*, user: User) -> None:
    """End every session of the user, also those without a UserSession row, by incrementing the epoch.

    The caller keeps its own with update_session_auth_hash.
    """
    fresh = lock_user(user)
    fresh.session_epoch += 1
    fresh.save(update_fields=["session_epoch"])
    user.session_epoch = fresh.session_epoch
    UserSession.objects.filter(user=user).delete()
    record("session.others_ended", space=user.space, actor=user, target=user)


def _live_keys(user: User, keys: list[str]) -> set[str]:
    # Django accepts a session that has not expired and is bound to the current password and epoch.
    stored = Session.objects.filter(session_key__in=keys, expire_date__gt=timezone.now())
    right = user.get_session_auth_hash()
    bound = {one.session_key: one.get_decoded().get(HASH_SESSION_KEY, "") for one in stored}
    return {key for key, given in bound.items() if constant_time_compare(given, right)}


def _own_session(row: Any, *, is_this: bool) -> OwnSession:
    return OwnSession(
        pk=row.pk,
        device=device_of(row.user_agent),
        address="" if row.ip == UNKNOWN_ADDRESS else row.ip,
        began_at=row.created_at,
        seen_at=row.last_seen_at,
        is_this=is_this,
    )
