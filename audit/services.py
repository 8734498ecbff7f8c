from __future__ import annotations

from typing import TYPE_CHECKING, Any

from audit import origin
from audit.models import AuditEvent
from tenants.ids import id_at
from tenants.models import Space

if TYPE_CHECKING:
    from accounts.models import User


def record(
    kind: str,
    *,
    space: Space | None,
    actor: User | None,
    target: User | Space,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> AuditEvent:
    """Write down an act, in the transaction of the act itself. Secrets never go into `before` or `after`.

    Without an actor the act is the system's own (a command, a sweep).
    """
    here = origin.current()
    at = origin.now()
    return AuditEvent.objects.create(
        id=id_at(at),
        space=space,
        at=at,
        kind=kind,
        actor_id=actor.pk if actor else None,
        actor_name=actor.get_username() if actor else "system",
        target_id=target.pk,
        target_name=str(target),
        before=before or {},
        after=after or {},
        address=here.address,
        request_id=here.request_id,
    )
