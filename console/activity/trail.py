"""The trail as somebody sees it: whose rows, what an address asks of them, and one page of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any, Self
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Q, QuerySet
from django.db.models.functions import Lower
from django.http import QueryDict
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import User
from audit.models import AuditEvent
from console.logs import (
    SIZES,
    SUGGESTIONS,
    USUAL_DAYS,
    Choice,
    Cursor,
    Link,
    Period,
    people_called,
    text_in,
    uuid_of,
)
from usage.figures import first_id

USER = "user"
BATCH = 2000

_QUOTA = Q(kind="member.quota_set") | Q(kind__startswith="pool.")
_SIGN_IN = Q(kind__startswith="session.") | Q(kind__contains="two_factor") | Q(kind__contains="recovery_code")
_PASSWORD = Q(kind__endswith=".password_set") | Q(kind="member.unlocked")
# What the kinds of acts are called on a screen, and which they are.
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
    """Every row of the user's space; operators' own, which are of no space, are never among them."""
    assert user.space_id is not None
    return AuditEvent.objects.filter(space=user.space_id)


def done_by(user: User) -> QuerySet[AuditEvent]:
    return of_space(user).filter(actor_id=user.pk)


def done_to(user: User) -> QuerySet[AuditEvent]:
    """What happened to the user, and who was refused at the door in their name.

    What somebody else tried in vain is not told to them: it carries figures that are not theirs.
    """
    events = of_space(user).filter(target_type=USER, target_id=user.pk)
    return events.filter(Q(refusal="") | Q(actor_id=None))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an address asks for. Ignored and no result: as in the other logs (console/logs.py)."""

    period: Period
    user: str
    kind: str
    request_id: str
    size: int
    cursor: Cursor | None

    @classmethod
    def of(cls, query: QueryDict, *, today: date) -> Self:
        size, kind = text_in(query, "size"), text_in(query, "kind")
        return cls(
            period=Period.of(text_in(query, "from"), text_in(query, "to"), today=today),
            user=text_in(query, "user"),
            kind=kind if kind in GROUPS else "",
            request_id=text_in(query, "request_id"),
            size=int(size) if size in {str(allowed) for allowed in SIZES} else SIZES[0],
            cursor=Cursor.of(text_in(query, "cursor")),
        )


@dataclass(frozen=True)
class Page:
    """Newest first. An address is empty where nothing is in its direction."""

    events: list[AuditEvent]
    newer_url: str
    older_url: str


class Trail:
    """What happened in a space, for those who manage it, under one address.

    A person is looked for among actors and among targets, each side by its own index; what is found is
    put in order here.
    """

    address = "/space/audit/"
    csv_address = "/space/audit.csv"

    def __init__(self, user: User, query: QueryDict, *, now: datetime | None = None) -> None:
        self.user = user
        self.zone = timezone.get_current_timezone()
        self._today = (now or datetime.now(UTC)).astimezone(self.zone).date()
        self._usual = Period.latest(USUAL_DAYS, today=self._today)
        self.filters = Asked.of(query, today=self._today)

    @property
    def is_own(self) -> bool:
        return False

    @cached_property
    def page(self) -> Page:
        """As quick at any depth: rows are counted from the cursor, never from the top."""
        cursor, size = self.filters.cursor, self.filters.size
        if cursor is not None and cursor.is_newer and (newer := self._fetch("id", size + 1, id__gt=cursor.id)):
            return self._page(newer[:size][::-1], has_newer=len(newer) > size, has_older=True)
        is_older = cursor is not None and not cursor.is_newer
        events = self._older_than(cursor.id if cursor and is_older else None, size + 1)
        return self._page(events[:size], has_newer=is_older, has_older=len(events) > size)

    def batches(self) -> Iterator[list[AuditEvent]]:
        """All rows of the filter, newest first, a batch at a time however many they are."""
        batch = self._older_than(None, BATCH)
        while batch:
            yield batch
            batch = self._older_than(batch[-1].pk, BATCH) if len(batch) == BATCH else []

    @property
    def periods(self) -> list[Link]:
        days = [(_("Today"), 1), (_("7 days"), USUAL_DAYS), (_("30 days"), 30)]
        choices = [(label, Period.latest(count, today=self._today)) for label, count in days]
        return [Link(label, self.url(period=period), period == self.filters.period) for label, period in choices]

    @property
    def kinds(self) -> list[Choice]:
        options = [("", _("All activity")), *((name, str(label)) for name, (label, _which) in GROUPS.items())]
        return [Choice(name, label, name == self.filters.kind) for name, label in options]

    @property
    def user_names(self) -> list[str]:
        people = User.objects.filter(space=self.user.space_id).order_by(Lower("username"))
        return list(people.values_list("username", flat=True)[:SUGGESTIONS])

    @property
    def is_filtered(self) -> bool:
        asked = self.filters
        return asked.period != self._usual or any((asked.user, asked.kind, asked.request_id, asked.cursor))

    @property
    def sizes(self) -> list[Link]:
        return [Link(str(size), self.url(size=size), size == self.filters.size) for size in SIZES]

    @property
    def newest_url(self) -> str:
        return self.url()

    @property
    def shown_url(self) -> str:
        return self.url(cursor=self.filters.cursor)

    @property
    def csv_url(self) -> str:
        return self._csv_url({})

    @property
    def csv_bom_url(self) -> str:
        return self._csv_url({"bom": 1})

    def url(self, **changes: Any) -> str:
        """The newest page of this filter with some of it changed."""
        said = self._said(**changes)
        return f"{self.address}?{urlencode(said)}" if said else self.address

    def _csv_url(self, more: dict[str, Any]) -> str:
        said = self._said(size=SIZES[0]) | more
        return f"{self.csv_address}?{urlencode(said)}" if said else self.csv_address

    def _said(self, **changes: Any) -> dict[str, Any]:
        """What an address says; what is as usual is left out."""
        asked: dict[str, Any] = vars(self.filters) | {"cursor": None} | changes
        period: Period = asked.pop("period")
        said = {"from": period.start, "to": period.end} if period != self._usual else {}
        return said | {name: value for name, value in asked.items() if value and (name, value) != ("size", SIZES[0])}

    def _sides(self) -> list[QuerySet[AuditEvent]]:
        """What is found apart and shown together."""
        asked, events = self.filters, self._in_period(of_space(self.user))
        if asked.kind:
            events = events.filter(GROUPS[asked.kind][1])
        if not asked.user:
            return [events]
        people = people_called(asked.user, space_id=self.user.space_id)
        return [events.filter(actor_id__in=people), events.filter(target_type=USER, target_id__in=people)]

    def _in_period(self, events: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        if self.filters.request_id:
            # Bound by the id itself: it may be older than the period that is shown.
            identifier = uuid_of(self.filters.request_id)
            return events.filter(request_id=identifier.hex) if identifier else events.none()
        first, after = map(first_id, self.filters.period.moments(self.zone))
        return events.filter(id__gte=first, id__lt=after)

    @cached_property
    def _found_sides(self) -> list[QuerySet[AuditEvent]]:
        return self._sides()

    def _older_than(self, identifier: UUID | None, count: int) -> list[AuditEvent]:
        return self._fetch("-id", count, **({"id__lt": identifier} if identifier else {}))

    def _fetch(self, order: str, count: int, **bound: UUID) -> list[AuditEvent]:
        found = {
            event.pk: event for side in self._found_sides for event in side.filter(**bound).order_by(order)[:count]
        }
        return sorted(found.values(), key=lambda event: event.pk, reverse=order == "-id")[:count]

    def _page(self, events: list[AuditEvent], *, has_newer: bool, has_older: bool) -> Page:
        if not events:
            return Page([], "", "")
        newer = self.url(cursor=Cursor(events[0].pk, is_newer=True)) if has_newer else ""
        older = self.url(cursor=Cursor(events[-1].pk, is_newer=False)) if has_older else ""
        return Page(events, newer, older)


class OwnActivity(Trail):
    """What somebody did and what was done to them, of all time."""

    address = "/me/activity/"

    @property
    def is_own(self) -> bool:
        return True

    def _sides(self) -> list[QuerySet[AuditEvent]]:
        return [done_by(self.user), done_to(self.user)]

    def url(self, **changes: Any) -> str:
        """Nothing is filtered here: the place alone."""
        said = {name: value for name, value in self._said(**changes).items() if name in ("size", "cursor")}
        return f"{self.address}?{urlencode(said)}" if said else self.address
