"""The only code that writes the audit trail.

An event is written in the transaction of the change itself; a refusal after the refused change was rolled back.
"""

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

# Rate limit: a client that repeats a refused attempt in a loop must not fill an append-only table.
MAX_REFUSALS_PER_HOUR = 30
# Refusals without actor and target, over all client addresses: a botnet that guesses usernames.
MAX_UNKNOWN_NAME_REFUSALS_PER_HOUR = 1000
REFUSAL_WINDOW = timedelta(hours=1)
# Key in `after` of the last recorded refusal of an hour: further attempts are not recorded.
REFUSALS_OMITTED = "and_more"

# A field with one of these words in its name must not be written, because its value would be a secret.
_SECRET_NAMES = {
    *("password", "passwd", "secret", "secrets", "credential", "credentials", "hash", "hashes", "otp", "totp"),
    *("recovery", "codes", "session", "cookie", "authorization", "private"),
}
# Masked in every text, because a user may paste them into a name: API keys, TOTP URIs, password hashes, Fernet tokens.
_SECRET_TEXTS = re.compile(
    r"(sk-[0-9]{1,18}-)[A-Za-z0-9_-]{43}|(otpauth://)\S+|(argon2\$|pbkdf2_\w+\$)\S+|(gAAAAA)\S{40,}"
)


_WORDS = re.compile(r"[a-z0-9]+")
_CAPITALS = re.compile(r"(?<!^)(?=[A-Z])")

NOT_ALLOWED = "not_allowed"


class SecretInTrailError(Exception):
    """A bug in the caller: it passed a field that is named like a secret."""


def record(
    kind: str,
    *,
    space: Space | None,
    actor: Person | None,
    target: AuditTarget,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> AuditEvent:
    """Record an event, in the transaction of the change itself.

    If `actor` is None, the actor is the running management command, else the system (a sweep). Raises
    SecretInTrailError, which rolls the change back.
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
    limit: int = 0,
) -> AuditEvent | None:
    """Record a refused attempt, outside the transaction that was rolled back.

    At most `limit` refusals (default MAX_REFUSALS_PER_HOUR) are recorded an hour for one actor, kind and reason; the
    last of them carries REFUSALS_OMITTED. A database error is logged and not raised, so that a refusal does not
    become a server error.
    """
    limit = limit or (MAX_REFUSALS_PER_HOUR if actor or target else MAX_UNKNOWN_NAME_REFUSALS_PER_HOUR)
    try:
        with transaction.atomic():
            count = _recent_refusals(kind, why, space, actor, target)[:limit].count()
            if count == limit:
                return None
            details = (after or {}) | ({REFUSALS_OMITTED: True} if count == limit - 1 else {})
            return _write(kind, refusal=why, space=space, actor=actor, target=target, before=None, after=details)
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
    """Record that a service refused a deed, with the names in `asked` and the amounts of the error.

    Call it where the refusal is answered (a view, a command), after the service's transaction was rolled back: a row
    written inside would be rolled back with it. An error that is not a refusal records nothing.
    """
    why = refusal_code(error)
    if not why:
        return
    space = target if isinstance(target, Space) else getattr(target, "space", None)
    if actor is not None and actor.space_id is not None and space is not None and actor.space_id != space.pk:
        # No page allows this. If one did, the event must not appear in the trail of either space.
        space = None
    record_refusal(kind, why=why, space=space, actor=actor, target=target, after=_refusal_details(error, asked or {}))


def refusal_code(error: Exception) -> str:
    if isinstance(error, PermissionDenied):
        return NOT_ALLOWED
    if isinstance(error, Refused):
        # InsufficientPool gives insufficient_pool.
        return _CAPITALS.sub("_", type(error).__name__.removesuffix("Error")).lower()
    return ""


def _refusal_details(error: Exception, asked: Mapping[str, Any]) -> dict[str, Any]:
    names = {name: value for name in ("name", "username", "manager_username") if (value := asked.get(name))}
    figures = {
        name: getattr(error, name)
        for name in ("amount", "available", "held", "room", "total", "remaining")
        if isinstance(getattr(error, name, None), int)
    }
    return names | {f"{name}_at_refusal": format_exact(nanos) for name, nanos in figures.items()}


def _recent_refusals(
    kind: str, why: str, space: Space | None, actor: Person | None, target: AuditTarget | None
) -> QuerySet[AuditEvent]:
    # Counted by reason, so that many refusals for one reason do not use up the limit of another.
    since = id_at(timezone.now() - REFUSAL_WINDOW)
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
    fields = {
        "before": _without_secrets(before or {}),
        "after": _without_secrets(after or {}),
        **_actor_fields(actor, is_refused=bool(refusal)),
        **_target_fields(target),
    }
    here, at = origin.current(), origin.now()
    return AuditEvent.objects.create(
        id=id_at(at),
        space=space,
        at=at,
        kind=kind,
        refusal=refusal,
        **fields,
        address=here.address,
        request_id=here.request_id,
    )


def _actor_fields(actor: Person | None, *, is_refused: bool) -> dict[str, Any]:
    if actor is not None:
        return {"actor_id": actor.pk, "actor_name": actor.get_username(), "actor_role": actor.role}
    if command := origin.current().command:
        return {"actor_id": None, "actor_name": command, "actor_role": COMMAND}
    # A refusal without an actor is a refused sign-in: the client is not authenticated.
    return {"actor_id": None, "actor_name": "" if is_refused else "system", "actor_role": ""}


def _target_fields(target: AuditTarget | None) -> dict[str, Any]:
    if target is None:
        return {"target_id": None, "target_name": "", "target_type": ""}
    name = getattr(target, "username", None) or str(target)
    return {"target_id": target.pk, "target_name": name, "target_type": target._meta.model_name or ""}


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return _SECRET_TEXTS.sub(lambda found: "".join(part or "" for part in found.groups()) + "…", value)
    if isinstance(value, list | tuple):
        return [_without_secrets(one) for one in value]
    if not isinstance(value, dict):
        return value
    for name, content in value.items():
        # Booleans, numbers and None only say whether there is a secret, or how many.
        if not isinstance(content, bool | int | None) and _SECRET_NAMES & set(_WORDS.findall(str(name).lower())):
            raise SecretInTrailError(str(name))
    return {name: _without_secrets(content) for name, content in value.items()}
