"""The audit trail of a space, and of one person: visible events, filters and pages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Q, QuerySet
from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import User
from audit.models import AuditEvent
from console import export
from console.choices import Choice
from console.logs import Log, LogFilters, people_called, text_in, uuid_of
from usage.figures import first_id

USER_TARGET = "user"

_QUOTA = Q(kind="member.quota_set") | Q(kind__startswith="pool.")
_SIGN_IN = Q(kind__startswith="session.") | Q(kind__contains="two_factor") | Q(kind__contains="recovery_code")
_PASSWORD = Q(kind__endswith=".password_set") | Q(kind="member.unlocked")
# Options of the kind filter: label, and the condition for the events of the group.
GROUPS: dict[str, tuple[Any, Q]] = {
    "members": (
        gettext_lazy("Members"),
        (Q(kind__startswith="member.") | Q(kind__startswith="manager.")) & ~_QUOTA & ~_PASSWORD & ~_SIGN_IN,
    ),
    "quota": (gettext_lazy("Quota"), _QUOTA),
    "keys": (gettext_lazy("API keys"), Q(kind__startswith="key.")),
    "sign-in": (gettext_lazy("Sign-in"), _SIGN_IN | Q(kind="member.unlocked")),
    "settings": (
        gettext_lazy("Settings"),
        (Q(kind__startswith="self.") | Q(kind="member.password_set")) & ~_SIGN_IN,
    ),
    "space": (gettext_lazy("Space"), Q(kind__startswith="space.")),
    "refused": (gettext_lazy("Refused attempts"), ~Q(refusal="")),
}


def of_space(user: User) -> QuerySet[AuditEvent]:
    # The operators' own events have no space, so they are never included.
    assert user.space_id is not None
    return AuditEvent.objects.filter(space=user.space_id)


def done_by(user: User) -> QuerySet[AuditEvent]:
    return of_space(user).filter(actor_id=user.pk)


def done_to(user: User) -> QuerySet[AuditEvent]:
    """Return the events whose target is the user, and refused sign-ins with their username.

    Other refusals are left out: they carry figures, like the pool's, that the user may not see.
    """
    events = of_space(user).filter(target_type=USER_TARGET, target_id=user.pk)
    return events.filter(Q(refusal="") | Q(actor_id=None))


@dataclass(frozen=True, kw_only=True)
class TrailFilters(LogFilters):
    kind: str

    @classmethod
    def parse(cls, query: QueryDict, *, today: date) -> dict[str, Any]:
        kind = text_in(query, "kind")
        return super().parse(query, today=today) | {"kind": kind if kind in GROUPS else ""}


class Trail(Log[AuditEvent, TrailFilters]):
    """The audit trail of a space, for the manager and admins.

    A person may be the actor or the target. These are two queries, because each has an index of its own; the results
    are merged in Python.
    """

    address = "/space/audit/"

    def _filters(self, query: QueryDict) -> TrailFilters:
        return TrailFilters.of(query, today=self.today)

    @property
    def is_own(self) -> bool:
        return False

    def batches(self) -> Iterator[list[AuditEvent]]:
        size = export.BATCH_ROWS
        batch = self._fetch("-id", size)
        while batch:
            yield batch
            batch = self._fetch("-id", size, id__lt=batch[-1].pk) if len(batch) == size else []

    @property
    def kinds(self) -> list[Choice]:
        options = [("", _("All activity")), *((name, str(label)) for name, (label, _which) in GROUPS.items())]
        return [Choice(name, label, name == self.filters.kind) for name, label in options]

    def _queries(self) -> list[QuerySet[AuditEvent]]:
        asked, events = self.filters, self._in_period(of_space(self.user))
        if asked.kind:
            events = events.filter(GROUPS[asked.kind][1])
        if not asked.user:
            return [events]
        people = people_called(asked.user, space_id=self.user.space_id)
        return [events.filter(actor_id__in=people), events.filter(target_type=USER_TARGET, target_id__in=people)]

    def _in_period(self, events: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        if self.filters.request_id:
            # Not restricted to the period: a request id is unique, and may be older than what is shown.
            identifier = uuid_of(self.filters.request_id)
            return events.filter(request_id=identifier.hex) if identifier else events.none()
        first, after = map(first_id, self.moments)
        return events.filter(id__gte=first, id__lt=after)

    @cached_property
    def _found_queries(self) -> list[QuerySet[AuditEvent]]:
        return self._queries()

    def _fetch(self, order: str, count: int, **bound: UUID) -> list[AuditEvent]:
        found = {
            event.pk: event for side in self._found_queries for event in side.filter(**bound).order_by(order)[:count]
        }
        return sorted(found.values(), key=lambda event: event.pk, reverse=order == "-id")[:count]


class OwnActivity(Trail):
    """All events, of all time, in which the user is the actor or the target."""

    address = "/me/activity/"

    @property
    def is_own(self) -> bool:
        return True

    def _queries(self) -> list[QuerySet[AuditEvent]]:
        return [done_by(self.user), done_to(self.user)]

    def url(self, **changes: Any) -> str:
        # This page has no filters.
        said = {name: value for name, value in self._query(**changes).items() if name in ("size", "cursor")}
        return f"{self.address}?{urlencode(said)}" if said else self.address
