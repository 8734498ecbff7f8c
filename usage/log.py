"""The usage log: whose rows somebody sees, what an address asks of them, one page of it and its totals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import Lower
from django.http import QueryDict
from django.utils.translation import gettext as _

from accounts.models import ApiKey, User
from audit.models import AuditEvent
from tenants.ids import id_at
from tenants.policies import can_manage_users
from usage.models import HourlyUsage, UsageRecord

ADDRESS = "/console/usage/"
SIZES = (20, 50, 100)
USUAL_DAYS = 7
# Beyond these no UUIDv7 and no date plus one day.
FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(9999, 12, 30)
NAME_MAX = 64
# More would be a burden to the browser; any other can be typed.
SUGGESTIONS = 200


def sees_whole_space(user: User) -> bool:
    """Managers and admins see what everybody of their space spends, normal users their own alone."""
    return can_manage_users(user)


def visible_to(user: User) -> QuerySet[UsageRecord]:
    """The rows that this user may know of: every look-up starts from here."""
    records = UsageRecord.objects.filter(space=user.space_id)
    return records if sees_whole_space(user) else records.filter(user_id=user.pk)


class Cursor(NamedTuple):
    """The row that a page starts behind, on its older or (`-` before the id) on its newer side."""

    id: UUID
    is_newer: bool

    @classmethod
    def of(cls, text: str) -> Self | None:
        identifier = _uuid(text.removeprefix("-"))
        return cls(identifier, text.startswith("-")) if identifier else None

    def __str__(self) -> str:
        return f"{'-' if self.is_newer else ''}{self.id}"


class Period(NamedTuple):
    """Whole UTC days, the last one included."""

    start: date
    end: date

    @classmethod
    def of(cls, start: str, end: str, *, today: date) -> Self:
        """What is no date is as if it were not there; one day alone is completed to today, or to a usual period."""
        last = _day(end) or today
        first = _day(start) or max(FIRST_DAY, last - timedelta(days=USUAL_DAYS - 1))
        return cls(first, last)

    @classmethod
    def latest(cls, days: int, *, today: date) -> Self:
        return cls(today - timedelta(days=days - 1), today)

    @property
    def moments(self) -> tuple[datetime, datetime]:
        """From the first moment of it to the first after it."""
        day_after = self.end + timedelta(days=1)
        return datetime.combine(self.start, time(), UTC), datetime.combine(day_after, time(), UTC)

    @property
    def ids(self) -> tuple[UUID, UUID]:
        """The least id of the period and the least after it."""
        first, after = (UUID(int=id_at(moment).int >> 62 << 62) for moment in self.moments)
        return first, after


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What the address asks for.

    Ignored: a `from` or `to` that is no date, a `type` or `size` that there is not, a `cursor` that is none. No result:
    a `from` after `to`, a `request_id` that is no UUID, a user, token or model that nobody ever used.
    """

    period: Period
    user: str
    token: str
    model: str
    type: str
    request_id: str
    size: int
    cursor: Cursor | None

    @classmethod
    def of(cls, query: QueryDict, *, today: date) -> Self:
        def text(name: str) -> str:
            # PostgreSQL takes no NUL; what stands in its place is in no name either.
            return (query.get(name) or "").replace("\0", "\N{REPLACEMENT CHARACTER}").strip()

        kind, size = text("type"), text("size")
        return cls(
            period=Period.of(text("from"), text("to"), today=today),
            user=text("user"),
            token=text("token"),
            model=text("model"),
            type=kind if kind in UsageRecord.Kind.values else "",
            request_id=text("request_id"),
            size=int(size) if size in {str(allowed) for allowed in SIZES} else SIZES[0],
            cursor=Cursor.of(text("cursor")),
        )


@dataclass(frozen=True)
class Totals:
    requests: int
    input_tokens: int
    output_tokens: int
    cost_nanos: int


@dataclass(frozen=True)
class Page:
    """Newest first. An address is empty where nothing is in its direction."""

    records: list[UsageRecord]
    newer_url: str
    older_url: str


class Choice(NamedTuple):
    value: str
    label: str
    is_current: bool


class Link(NamedTuple):
    label: str
    url: str
    is_current: bool


class UsageLog:
    """The log as one user sees it under one address."""

    def __init__(self, user: User, query: QueryDict, *, now: datetime | None = None) -> None:
        self._user = user
        self._today = (now or datetime.now(UTC)).date()
        self._usual = Period.latest(USUAL_DAYS, today=self._today)
        self.filters = Filters.of(query, today=self._today)

    @property
    def is_whole_space(self) -> bool:
        return sees_whole_space(self._user)

    @cached_property
    def records(self) -> QuerySet[UsageRecord]:
        """Every row of the filter, whatever the page: what the totals count."""
        asked = self.filters
        records = visible_to(self._user)
        if asked.request_id:
            # Bound by the id itself: it may be older than the period that is shown.
            identifier = _uuid(asked.request_id)
            records = records.filter(request_id=identifier) if identifier else records.none()
        else:
            first, after = asked.period.ids
            records = records.filter(id__gte=first, id__lt=after)
        if asked.user:
            records = records.filter(user_id__in=people_called(asked.user, space_id=self._user.space_id))
        if asked.token:
            records = records.filter(_of_token(asked.token, space_id=self._user.space_id))
        if asked.model:
            records = records.filter(model=asked.model)
        return records.filter(kind=asked.type) if asked.type else records

    @cached_property
    def totals(self) -> Totals:
        found = self.records.aggregate(
            requests=Count("id"), input=Sum("input_tokens"), output=Sum("output_tokens"), cost=Sum("cost")
        )
        return Totals(found["requests"], found["input"] or 0, found["output"] or 0, found["cost"] or 0)

    @cached_property
    def page(self) -> Page:
        """As quick at any depth: rows are counted from the cursor, never from the top."""
        cursor = self.filters.cursor
        if cursor is not None and cursor.is_newer and (page := self._newer_than(cursor)):
            return page
        after = cursor if cursor is not None and not cursor.is_newer else None
        records = list(self._ordered("-id", id__lt=after.id) if after else self._ordered("-id"))
        has_older = len(records) > self.filters.size
        return self._page(records[: self.filters.size], has_newer=after is not None, has_older=has_older)

    @property
    def periods(self) -> list[Link]:
        days = [(_("Today"), 1), (_("7 days"), USUAL_DAYS), (_("30 days"), 30)]
        choices = [(label, Period.latest(count, today=self._today)) for label, count in days]
        shown = self.filters.period
        return [Link(label, self.url(period=period), period == shown) for label, period in choices]

    @property
    def is_filtered(self) -> bool:
        asked = self.filters
        is_named = any([asked.user, asked.token, asked.model, asked.type, asked.request_id])
        return is_named or asked.period != self._usual or asked.cursor is not None

    @property
    def types(self) -> list[Choice]:
        options = [("", _("Any type")), *((kind.value, str(kind.label)) for kind in UsageRecord.Kind)]
        return [Choice(value, label, value == self.filters.type) for value, label in options]

    @property
    def models(self) -> list[Choice]:
        """What was used in the period, of the hourly figures; and what the address names."""
        first, after = self.filters.period.moments
        hours = HourlyUsage.objects.filter(space=self._user.space_id, hour__gte=first, hour__lt=after)
        if not self.is_whole_space:
            hours = hours.filter(user_id=self._user.pk)
        used = set(hours.order_by().values_list("model", flat=True).distinct()[:SUGGESTIONS])
        names = sorted(used | {self.filters.model} - {""})
        return [Choice("", _("All models"), not self.filters.model)] + [
            Choice(name, name, name == self.filters.model) for name in names
        ]

    @property
    def user_names(self) -> list[str]:
        people = User.objects.filter(space=self._user.space_id).order_by(Lower("username"))
        return list(people.values_list("username", flat=True)[:SUGGESTIONS])

    @property
    def token_names(self) -> list[str]:
        keys = ApiKey.objects.filter(space=self._user.space_id)
        if not self.is_whole_space:
            keys = keys.filter(user=self._user)
        return list(keys.order_by("name").values_list("name", flat=True).distinct()[:SUGGESTIONS])

    @property
    def sizes(self) -> list[Link]:
        return [Link(str(size), self.url(size=size), size == self.filters.size) for size in SIZES]

    @property
    def newest_url(self) -> str:
        return self.url()

    @property
    def shown_url(self) -> str:
        return self.url(cursor=self.filters.cursor)

    def url(self, **changes: Any) -> str:
        """The newest page of this filter with some of it changed; what is as usual is left out."""
        asked: dict[str, Any] = vars(self.filters) | {"cursor": None} | changes
        period: Period = asked.pop("period")
        said = {"from": period.start, "to": period.end} if period != self._usual else {}
        said |= {name: value for name, value in asked.items() if value and (name, value) != ("size", SIZES[0])}
        return f"{ADDRESS}?{urlencode(said)}" if said else ADDRESS

    def _newer_than(self, cursor: Cursor) -> Page | None:
        """None when nothing is newer: the newest page then."""
        records = list(self._ordered("id", id__gt=cursor.id))
        has_newer = len(records) > self.filters.size
        nearest = records[: self.filters.size][::-1]
        return self._page(nearest, has_newer=has_newer, has_older=True) if nearest else None

    def _ordered(self, order: str, **bound: UUID) -> QuerySet[UsageRecord]:
        """One row more than a page has, which tells whether there is another page."""
        return self.records.filter(**bound).order_by(order)[: self.filters.size + 1]

    def _page(self, records: list[UsageRecord], *, has_newer: bool, has_older: bool) -> Page:
        if not records:
            return Page([], "", "")
        newer = self.url(cursor=Cursor(records[0].pk, is_newer=True)) if has_newer else ""
        older = self.url(cursor=Cursor(records[-1].pk, is_newer=False)) if has_older else ""
        return Page(records, newer, older)


def people_called(username: str, *, space_id: int | None) -> set[int]:
    """The ids of those of a space who bear a name or bore it once, the deleted among them; without case."""
    if len(username) > NAME_MAX:
        return set()
    people = User.everyone.alias(folded=Lower("username")).filter(space=space_id, folded=username.lower())
    renamed = AuditEvent.objects.filter(
        space=space_id, kind="member.edited", before__username__iexact=username, target_id__isnull=False
    )
    former = [target for target in renamed.order_by().values_list("target_id", flat=True) if target is not None]
    return {*people.values_list("pk", flat=True), *former}


def _of_token(text: str, *, space_id: int | None) -> Q:
    """By a key's id, by its name as it is, and by its name as it was at the time."""
    named = ApiKey.with_deleted.filter(space=space_id, name=text)
    found = Q(key_name=text) | Q(key_id__in=named.values("pk"))
    identifier = _uuid(text)
    return found | Q(key_id=identifier) if identifier else found


def _day(text: str) -> date | None:
    try:
        return min(max(date.fromisoformat(text), FIRST_DAY), LAST_DAY)
    except ValueError:
        return None


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
