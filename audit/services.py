"""The only code that writes the trail: acts in their own transaction, refusals after what was refused is undone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, transaction
from django.db.models import Model, QuerySet
from django.utils import timezone

from audit.models import COMMAND, AuditEvent
from core import origin
from core.errors import Refused
from core.ids import id_at
from core.money import format_exact
from tenants.models import Space
from tenants.people import Person

log = structlog.get_logger(__name__)

# A user, a space, a model or an upstream.
AuditTarget = Model

# A refused attempt changes nothing, and whoever repeats it in a loop must not fill a table that nobody may empty.
MAX_REFUSALS_PER_HOUR = 30
# Names that are nobody's, from everywhere together: guesses of a botnet.
MAX_UNKNOWN_NAME_REFUSALS_PER_HOUR = 1000
HOUR = timedelta(hours=1)
# More attempts followed, which are not written down one by one.
REFUSALS_OMITTED = "and_more"

# Words of a field's name whose value would be a secret.
_SECRET_NAMES = {
    *("password", "passwd", "secret", "secrets", "credential", "credentials", "hash", "hashes", "otp", "totp"),
    *("recovery", "codes", "session", "cookie", "authorization", "private"),
}
# What somebody may have typed where it does not belong: an API key, a hashed password, an authenticator's address.
_SECRET_TEXTS = re.compile(
    r"(sk-[0-9]{1,18}-)[A-Za-z0-9_-]{43}|(otpauth://)\S+|(argon2\$|pbkdf2_\w+\$)\S+|(gAAAAA)\S{40,}"
)


_WORDS = re.compile(r"[a-z0-9]+")
_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")

NOT_ALLOWED = "not_allowed"


class SecretInTrailError(Exception):
    """A mistake of ours: a field named like a secret was about to be written down."""


def record(
    kind: str,
    *,
    space: Space | None,
    actor: Person | None,
    target: AuditTarget,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> AuditEvent:
    """Write down an act, in the transaction of the act itself. Raises SecretInTrailError, and the act is undone.

    Without an actor the act is the command's that runs, or else the system's own (a sweep).
    """
    return _write(kind, refusal="", space=space, actor=actor, target=target, before=before, after=after)


def record_refusal(
    kind: str,
    *,
    why: str,
    space: Space | None,
    actor: Person | None,
    target: AuditTarget | None,
    after: dict[str, Any] | None = None,
    most: int = 0,
) -> AuditEvent | None:
    """Write down what somebody tried in vain, outside of the transaction that was undone.

    Of one actor, kind and reason MAX_REFUSALS_PER_HOUR at most, or `most`; the last of them says that more may have
    followed. A trail that cannot be written does not turn a refusal into a failure.
    """
    most = most or (MAX_REFUSALS_PER_HOUR if actor or target else MAX_UNKNOWN_NAME_REFUSALS_PER_HOUR)
    try:
        with transaction.atomic():
            count = _refusals_lately(kind, why, space, actor, target)[:most].count()
            if count == most:
                return None
            told = (after or {}) | ({REFUSALS_OMITTED: True} if count == most - 1 else {})
            return _write(kind, refusal=why, space=space, actor=actor, target=target, before=None, after=told)
    except DatabaseError as error:
        log.error("refusal_not_recorded", kind=kind, why=why, error=type(error).__name__)
        return None


def record_refused_deed(
    kind: str,
    error: Exception,
    *,
    actor: Person | None,
    target: AuditTarget | None,
    asked: Mapping[str, Any] | None = None,
) -> None:
    """Record that a service refused a deed, with the names that were asked for and the figures of the refusal.

    Call it where the refusal is answered (a view, a command), once the service's transaction has been rolled back: a
    row written inside would be rolled back with it. An error that is a failure and no refusal records nothing.
    """
    why = refusal_code(error)
    if not why:
        return
    space = target if isinstance(target, Space) else getattr(target, "space", None)
    if actor is not None and actor.space_id is not None and space is not None and actor.space_id != space.pk:
        # No page leads there. If one did, neither space's trail may tell of the other.
        space = None
    record_refusal(kind, why=why, space=space, actor=actor, target=target, after=_told_of(error, asked or {}))


def refusal_code(error: Exception) -> str:
    """`insufficient_pool` for InsufficientPool, `not_allowed` for PermissionDenied, empty for a failure."""
    if isinstance(error, PermissionDenied):
        return NOT_ALLOWED
    if isinstance(error, Refused):
        return _CAPITAL.sub("_", type(error).__name__.removesuffix("Error")).lower()
    return ""


def _told_of(error: Exception, asked: Mapping[str, Any]) -> dict[str, Any]:
    names = {name: value for name in ("name", "username", "manager_username") if (value := asked.get(name))}
    figures = {
        name: getattr(error, name)
        for name in ("amount", "available", "held", "room", "total", "remaining")
        if isinstance(getattr(error, name, None), int)
    }
    return names | {f"{name}_at_refusal": format_exact(nanos) for name, nanos in figures.items()}


def _refusals_lately(
    kind: str, why: str, space: Space | None, actor: Person | None, target: AuditTarget | None
) -> QuerySet[AuditEvent]:
    """By their reason: many of one kind do not hide the one that matters."""
    since = id_at(timezone.now() - HOUR)
    refused = AuditEvent.objects.filter(space=space, kind=kind, refusal=why, id__gte=since).order_by()
    if actor is not None:
        return refused.filter(actor_id=actor.pk)
    return refused.filter(actor_id=None, target_id=target.pk if target else None)


def _write(
    kind: str,
    *,
    refusal: str,
    space: Space | None,
    actor: Person | None,
    target: AuditTarget | None,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
) -> AuditEvent:
    here = origin.current()
    at = origin.now()
    return AuditEvent.objects.create(
        id=id_at(at),
        space=space,
        at=at,
        kind=kind,
        refusal=refusal,
        **_actor_fields(actor, here.command, is_refused=bool(refusal)),
        target_id=target.pk if target else None,
        target_name=str(target) if target else "",
        target_type=(target._meta.model_name or "") if target else "",
        before=_without_secrets(before or {}),
        after=_without_secrets(after or {}),
        address=here.address,
        request_id=here.request_id,
    )


def _actor_fields(actor: Person | None, command: str, *, is_refused: bool) -> dict[str, Any]:
    """Without a name: somebody who never got in."""
    if actor is not None:
        return {"actor_id": actor.pk, "actor_name": actor.get_username(), "actor_role": actor.role}
    if command:
        return {"actor_id": None, "actor_name": command, "actor_role": COMMAND}
    return {"actor_id": None, "actor_name": "" if is_refused else "system", "actor_role": ""}


def _without_secrets(value: Any) -> Any:
    """Refuses fields named like a secret that say more than whether or how many; masks texts that look like one."""
    if isinstance(value, str):
        return _SECRET_TEXTS.sub(lambda found: "".join(part or "" for part in found.groups()) + "…", value)
    if isinstance(value, list | tuple):
        return [_without_secrets(one) for one in value]
    if not isinstance(value, dict):
        return value
    for name, content in value.items():
        if not isinstance(content, bool | int | None) and _SECRET_NAMES & set(_WORDS.findall(str(name).lower())):
            raise SecretInTrailError(str(name))
    return {name: _without_secrets(content) for name, content in value.items()}
