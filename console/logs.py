"""Shared base of the usage, task, audit and transfer logs: filters in the URL, keyset pagination and links."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Model, QuerySet
from django.db.models.functions import Lower
from django.http import QueryDict
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.models import User
from audit.models import AuditEvent
from console.choices import Link
from console.periods import DEFAULT_DAYS, Period
from tenants.policies import can_manage_users
from usage.figures import first_id

Row = TypeVar("Row", bound=Model)
Filters = TypeVar("Filters", bound="LogFilters")

PAGE_SIZES = (20, 50, 100)
MAX_NAME_LENGTH = 64
# Bound of the options in a <datalist> or <select>: more would slow the browser down. Other names can still be typed.
MAX_SUGGESTIONS = 200


def sees_whole_space(user: User) -> bool:
    return can_manage_users(user)


class Cursor(NamedTuple):
    """Keyset pagination: the id of the row that a page starts after.

    In the URL, `-` before the id means that the page goes towards newer rows instead of older ones.
    """

    id: UUID
    is_newer: bool

    @classmethod
    def of(cls, text: str) -> Self | None:
        identifier = uuid_of(text.removeprefix("-"))
        return cls(identifier, text.startswith("-")) if identifier else None

    def __str__(self) -> str:
        return f"{'-' if self.is_newer else ''}{self.id}"


@dataclass(frozen=True, kw_only=True)
class LogFilters:
    """The filters in the query string of a log.

    Invalid dates, choices, sizes and cursors are ignored. A `from` after `to`, a `request_id` that is no UUID, and a
    user, token or model that was never used give an empty result instead.
    """

    period: Period
    user: str
    request_id: str
    size: int
    cursor: Cursor | None

    @classmethod
    def of(cls, query: QueryDict, *, today: date) -> Self:
        return cls(**cls.parse(query, today=today))

    @classmethod
    def parse(cls, query: QueryDict, *, today: date) -> dict[str, Any]:
        size = text_in(query, "size")
        return {
            "period": Period.of(text_in(query, "from"), text_in(query, "to"), today=today),
            "user": text_in(query, "user"),
            "request_id": text_in(query, "request_id"),
            "size": int(size) if size in {str(allowed) for allowed in PAGE_SIZES} else PAGE_SIZES[0],
            "cursor": Cursor.of(text_in(query, "cursor")),
        }


@dataclass(frozen=True)
class LogPage(Generic[Row]):
    """One page, newest row first. `newer_url` and `older_url` are empty at the ends of the log."""

    records: list[Row]
    newer_url: str
    older_url: str


class Log(ABC, Generic[Row, Filters]):
    """The rows of a log that one user may see, filtered and paged by one query string."""

    address: ClassVar[str]
    filters: Filters

    def __init__(self, user: User, query: QueryDict, *, now: datetime | None = None) -> None:
        self.user = user
        # Kept because a streamed CSV is rendered after the request, when the active time zone has been reset.
        self.zone = timezone.get_current_timezone()
        self.today = (now or datetime.now(UTC)).astimezone(self.zone).date()
        self.filters = self._filters(query)

    @abstractmethod
    def _filters(self, query: QueryDict) -> Filters: ...

    @abstractmethod
    def _fetch(self, order: str, count: int, **bound: UUID) -> list[Row]:
        """Return the first `count` matching rows ordered by `id` or `-id`, bounded by `id__lt` or `id__gt`."""

    @property
    def default_period(self) -> Period:
        return Period.latest(DEFAULT_DAYS, today=self.today)

    @property
    def is_whole_space(self) -> bool:
        return sees_whole_space(self.user)

    @property
    def moments(self) -> tuple[datetime, datetime]:
        return self.filters.period.moments(self.zone)

    @cached_property
    def page(self) -> LogPage[Row]:
        # Keyset pagination: equally fast at any depth, because rows are found by the cursor's id and not by OFFSET.
        cursor, size = self.filters.cursor, self.filters.size
        if cursor is not None and cursor.is_newer and (newer := self._fetch("id", size + 1, id__gt=cursor.id)):
            return self._page(newer[:size][::-1], has_newer=len(newer) > size, has_older=True)
        bound = {"id__lt": cursor.id} if cursor is not None and not cursor.is_newer else {}
        # One extra row is fetched to learn whether there is another page.
        records = self._fetch("-id", size + 1, **bound)
        return self._page(records[:size], has_newer=bool(bound), has_older=len(records) > size)

    @property
    def periods(self) -> list[Link]:
        days = [(_("Today"), 1), (_("7 days"), DEFAULT_DAYS), (_("30 days"), 30)]
        choices = [(label, Period.latest(count, today=self.today)) for label, count in days]
        shown = self.filters.period
        return [Link(label, self.url(period=period), period == shown) for label, period in choices]

    @property
    def is_filtered(self) -> bool:
        asked = vars(self.filters) | {"size": None}
        return asked.pop("period") != self.default_period or any(asked.values())

    @property
    def user_names(self) -> list[str]:
        people = User.objects.filter(space=self.user.space_id).order_by(Lower("username"))
        return list(people.values_list("username", flat=True)[:MAX_SUGGESTIONS])

    @property
    def sizes(self) -> list[Link]:
        return [Link(str(size), self.url(size=size), size == self.filters.size) for size in PAGE_SIZES]

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
        """The URL of the newest page with these filters, some of them changed."""
        query = self._query(**changes)
        return f"{self.address}?{urlencode(query)}" if query else self.address

    def _csv_url(self, more: dict[str, Any]) -> str:
        query = self._query(size=None) | more
        address = f"{self.address.removesuffix('/')}.csv"
        return f"{address}?{urlencode(query)}" if query else address

    def _query(self, **changes: Any) -> dict[str, Any]:
        asked: dict[str, Any] = vars(self.filters) | {"cursor": None} | changes
        period: Period = asked.pop("period")
        place = {name: asked.pop(name) for name in ("size", "cursor")}
        query = {"from": period.start, "to": period.end} if period != self.default_period else {}
        return query | {
            name: value for name, value in (asked | place).items() if value and (name, value) != ("size", PAGE_SIZES[0])
        }

    def _page(self, records: list[Row], *, has_newer: bool, has_older: bool) -> LogPage[Row]:
        if not records:
            return LogPage([], "", "")
        newer = self.url(cursor=Cursor(records[0].pk, is_newer=True)) if has_newer else ""
        older = self.url(cursor=Cursor(records[-1].pk, is_newer=False)) if has_older else ""
        return LogPage(records, newer, older)


class TableLog(Log[Row, Filters]):
    @abstractmethod
    def _visible(self) -> QuerySet[Row]:
        """Return the rows that this user may see. Every query must start from here."""

    @abstractmethod
    def _of_request(self, text: str) -> QuerySet[Row]:
        """Return the visible row with this request id, or an empty queryset if the text is no UUID."""

    @cached_property
    def records(self) -> QuerySet[Row]:
        return self._matching()

    @cached_property
    def people(self) -> frozenset[int]:
        return frozenset(people_called(self.filters.user, space_id=self.user.space_id))

    def _matching(self) -> QuerySet[Row]:
        if self.filters.request_id:
            # Not restricted to the period: a request id is unique, and its row may be older than what is shown.
            return self._of_request(self.filters.request_id)
        first, after = map(first_id, self.moments)
        return self._visible().filter(id__gte=first, id__lt=after)

    def _fetch(self, order: str, count: int, **bound: UUID) -> list[Row]:
        return list(self.records.filter(**bound).order_by(order)[:count])


def people_called(username: str, *, space_id: int | None) -> set[int]:
    """Return the ids of users who have or once had this username, deleted ones included, ignoring case."""
    if len(username) > MAX_NAME_LENGTH:
        return set()
    people = User.everyone.filter(space=space_id)
    # Two queries, because living and deleted users have a partial index each.
    named = people.filter(deleted_at=None).alias(folded=Lower("username")).filter(folded=username.lower())
    deleted = people.filter(deleted_at__isnull=False).alias(folded=Lower("username")).filter(folded=username.lower())
    renamed = AuditEvent.objects.filter(
        space=space_id, kind="member.edited", before__username__iexact=username, target_id__isnull=False
    )
    former = [target for target in renamed.order_by().values_list("target_id", flat=True) if target is not None]
    return {*named.values_list("pk", flat=True), *deleted.values_list("pk", flat=True), *former}


def text_in(query: QueryDict, name: str) -> str:
    # PostgreSQL rejects NUL in text. U+FFFD occurs in no name either, so such a filter matches nothing.
    return (query.get(name) or "").replace("\0", "\N{REPLACEMENT CHARACTER}").strip()


def uuid_of(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
