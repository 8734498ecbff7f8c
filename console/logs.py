"""The logs: whose rows somebody sees, what an address asks of them and one page of it; and the usage log itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cached_property
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Q, QuerySet
from django.db.models.functions import Lower
from django.http import QueryDict
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from accounts.models import ApiKey, User
from audit.models import AuditEvent
from core.ids import moment_of
from quotas.models import Transfer
from tenants.policies import can_manage_users
from usage import figures
from usage.figures import Figures, Scope, first_id
from usage.models import Task, UsageRecord
from usage.quarters import PrunedError, pruned_through

Row = TypeVar("Row", UsageRecord, Task, Transfer)
Asked = TypeVar("Asked", bound="Filters")
SIZES = (20, 50, 100)
USUAL_DAYS = 7
# Beyond these no UUIDv7 and no date plus one day.
FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(9999, 12, 30)
NAME_MAX = 64
# More would be a burden to the browser; any other can be typed.
SUGGESTIONS = 200
# Of a name that hundreds bear, the newest are looked up, each by its hours.
MAX_KEYS_OF_A_NAME = 500
# A moment told by an id is exact to this.
TICK = timedelta(microseconds=1)


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
        identifier = uuid_of(text.removeprefix("-"))
        return cls(identifier, text.startswith("-")) if identifier else None

    def __str__(self) -> str:
        return f"{'-' if self.is_newer else ''}{self.id}"


class Period(NamedTuple):
    """Whole days of whoever looks, the last one included."""

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

    def moments(self, zone: tzinfo) -> tuple[datetime, datetime]:
        """From the first moment of it to the first after it, in UTC. A day has 23 or 25 hours where clocks change."""
        return first_moment(self.start, zone), first_moment(self.end + timedelta(days=1), zone)


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What the address of any log asks for.

    Ignored: a `from` or `to` that is no date, a choice or `size` that there is not, a `cursor` that is none. No result:
    a `from` after `to`, a `request_id` that is none, a user, token or model that nobody ever used.
    """

    period: Period
    user: str
    token: str
    model: str
    request_id: str
    size: int
    cursor: Cursor | None

    @classmethod
    def of(cls, query: QueryDict, *, today: date) -> Self:
        return cls(**cls.asked(query, today=today))

    @classmethod
    def asked(cls, query: QueryDict, *, today: date) -> dict[str, Any]:
        size = text_in(query, "size")
        return {
            "period": Period.of(text_in(query, "from"), text_in(query, "to"), today=today),
            "user": text_in(query, "user"),
            "token": text_in(query, "token"),
            "model": text_in(query, "model"),
            "request_id": text_in(query, "request_id"),
            "size": int(size) if size in {str(allowed) for allowed in SIZES} else SIZES[0],
            "cursor": Cursor.of(text_in(query, "cursor")),
        }


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Newest first. An address is empty where nothing is in its direction."""

    records: list[Row]
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


class Log(ABC, Generic[Row, Asked]):
    """A log as one user sees it under one address."""

    address: ClassVar[str]
    filters: Asked

    def __init__(self, user: User, query: QueryDict, *, now: datetime | None = None) -> None:
        self._user = user
        # Asked once: what is streamed is written after the request, in nobody's zone.
        self.zone = timezone.get_current_timezone()
        self._today = (now or datetime.now(UTC)).astimezone(self.zone).date()
        self._usual = Period.latest(USUAL_DAYS, today=self._today)
        self.filters = self._filters(query)

    @abstractmethod
    def _filters(self, query: QueryDict) -> Asked:
        """What this log's address asks for."""

    @abstractmethod
    def _visible(self) -> QuerySet[Row]:
        """The rows that this user may know of."""

    @abstractmethod
    def _of_request(self, text: str) -> QuerySet[Row]:
        """Of these the one of a request, or none where it is no id."""

    @property
    def is_whole_space(self) -> bool:
        return sees_whole_space(self._user)

    @property
    def moments(self) -> tuple[datetime, datetime]:
        """From the first moment of the period to the first after it."""
        return self.filters.period.moments(self.zone)

    @cached_property
    def records(self) -> QuerySet[Row]:
        """Every row of the filter, whatever the page: what the totals count."""
        return self._matching()

    def _matching(self) -> QuerySet[Row]:
        asked = self.filters
        if asked.request_id:
            # Bound by the id itself: it may be older than the period that is shown.
            records = self._of_request(asked.request_id)
        else:
            first, after = map(first_id, self.moments)
            records = self._visible().filter(id__gte=first, id__lt=after)
        if asked.user:
            records = records.filter(Q(user_id__in=self._people))
        if self._keys:
            records = records.filter(self._keys.condition)
        return records.filter(Q(model=asked.model)) if asked.model else records

    @cached_property
    def _people(self) -> frozenset[int]:
        """Those whom the address names."""
        return frozenset(people_called(self.filters.user, space_id=self._user.space_id))

    @cached_property
    def _keys(self) -> Keys | None:
        """Those that the address names."""
        asked = self.filters.token
        if not asked:
            return None
        assert self._user.space_id is not None
        if not self.is_whole_space:
            owner_ids: frozenset[int] | None = frozenset({self._user.pk})
        else:
            owner_ids = self._people if self.filters.user else None
        return keys_called(asked, space_id=self._user.space_id, owner_ids=owner_ids)

    @property
    def keys_note(self) -> str:
        """For people to read, where a name is borne by more keys than are looked up."""
        if not self._keys or not self._keys.is_cut:
            return ""
        words = _(
            "More than %(count)d tokens are called “%(name)s”: these are requests of the newest %(count)d. "
            "Name a user as well, or a token’s ID, to see others."
        )
        return words % {"count": MAX_KEYS_OF_A_NAME, "name": self.filters.token}

    @cached_property
    def page(self) -> Page[Row]:
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
        asked = vars(self.filters) | {"size": None}
        return asked.pop("period") != self._usual or any(asked.values())

    @property
    def user_names(self) -> list[str]:
        people = User.objects.filter(space=self._user.space_id).order_by(Lower("username"))
        return list(people.values_list("username", flat=True)[:SUGGESTIONS])

    @property
    def tokens(self) -> list[Choice]:
        """The keys to choose from, and what the address names; empty where they are too many for a list."""
        asked: str = self.filters.token
        labels = self._key_labels(self._visible_keys.filter(deleted_at=None))
        if len(labels) > SUGGESTIONS:
            return []
        if asked and asked not in labels:
            identifier = uuid_of(asked)
            deleted = self._key_labels(self._visible_keys.filter(pk=identifier)) if identifier else {}
            labels[asked] = next(iter(deleted.values()), asked)
        listed: list[tuple[str, str]] = sorted(labels.items(), key=lambda item: item[1].lower())
        everything = Choice("", _("All tokens"), not asked)
        return [everything, *(Choice(value, label, value == asked) for value, label in listed)]

    @property
    def token_names(self) -> list[str]:
        """Some of many, offered while one types: to sort them all would be to read them all."""
        keys = self._visible_keys.filter(deleted_at=None)
        return sorted(set(keys.order_by().values_list("name", flat=True)[:SUGGESTIONS]))

    @property
    def _visible_keys(self) -> QuerySet[ApiKey]:
        """Every look-up of a key starts from here."""
        keys = ApiKey.with_deleted.filter(space=self._user.space_id)
        return keys if self.is_whole_space else keys.filter(user=self._user)

    def _key_labels(self, keys: QuerySet[ApiKey]) -> dict[str, str]:
        """By id, of one more than a list has. The owner is told where keys of several people are seen."""
        labels = {}
        for key in keys.order_by().select_related("user")[: SUGGESTIONS + 1]:
            owner: list[str] = [key.user.username] if self.is_whole_space else []
            labels[str(key.pk)] = " · ".join([key.name, *owner, f"…{key.last_four}"])
        return labels

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
        """All rows of the filter as a file, whatever the page."""
        return self._csv_url({})

    @property
    def csv_bom_url(self) -> str:
        return self._csv_url({"bom": 1})

    def url(self, **changes: Any) -> str:
        """The newest page of this filter with some of it changed."""
        said = self._said(**changes)
        return f"{self.address}?{urlencode(said)}" if said else self.address

    def _csv_url(self, more: dict[str, Any]) -> str:
        said = self._said(size=None) | more
        address = f"{self.address.removesuffix('/')}.csv"
        return f"{address}?{urlencode(said)}" if said else address

    def _said(self, **changes: Any) -> dict[str, Any]:
        """What an address says: the filter, then the place in it; what is as usual is left out."""
        asked: dict[str, Any] = vars(self.filters) | {"cursor": None} | changes
        period: Period = asked.pop("period")
        place = {name: asked.pop(name) for name in ("size", "cursor")}
        said = {"from": period.start, "to": period.end} if period != self._usual else {}
        return said | {
            name: value for name, value in (asked | place).items() if value and (name, value) != ("size", SIZES[0])
        }

    def _newer_than(self, cursor: Cursor) -> Page[Row] | None:
        """None when nothing is newer: the newest page then."""
        records = list(self._ordered("id", id__gt=cursor.id))
        has_newer = len(records) > self.filters.size
        nearest = records[: self.filters.size][::-1]
        return self._page(nearest, has_newer=has_newer, has_older=True) if nearest else None

    def _ordered(self, order: str, **bound: UUID) -> Iterable[Row]:
        """One row more than a page has, which tells whether there is another page."""
        return self.records.filter(**bound).order_by(order)[: self.filters.size + 1]

    def _page(self, records: list[Row], *, has_newer: bool, has_older: bool) -> Page[Row]:
        if not records:
            return Page([], "", "")
        newer = self.url(cursor=Cursor(records[0].pk, is_newer=True)) if has_newer else ""
        older = self.url(cursor=Cursor(records[-1].pk, is_newer=False)) if has_older else ""
        return Page(records, newer, older)


@dataclass(frozen=True, kw_only=True)
class UsageFilters(Filters):
    type: str

    @classmethod
    def asked(cls, query: QueryDict, *, today: date) -> dict[str, Any]:
        kind = text_in(query, "type")
        return super().asked(query, today=today) | {"type": kind if kind in UsageRecord.Kind.values else ""}


class UsageLog(Log[UsageRecord, UsageFilters]):
    address = "/console/usage/"

    def _filters(self, query: QueryDict) -> UsageFilters:
        return UsageFilters.of(query, today=self._today)

    def _visible(self) -> QuerySet[UsageRecord]:
        return visible_to(self._user)

    def _of_request(self, text: str) -> QuerySet[UsageRecord]:
        """Or the one row of a record's id."""
        identifier = uuid_of(text)
        named = Q(request_id=identifier) | Q(pk=identifier)
        return self._visible().filter(named) if identifier else UsageRecord.objects.none()

    def _matching(self) -> QuerySet[UsageRecord]:
        records = super()._matching()
        return records.filter(kind=self.filters.type) if self.filters.type else records

    @cached_property
    def kept_from(self) -> datetime | None:
        """Before this moment no row of the space is kept; None where all are."""
        assert self._user.space_id is not None
        return pruned_through(self._user.space_id)

    @property
    def moments(self) -> tuple[datetime, datetime]:
        """As much of the period as rows are kept of: list, totals and file are of these."""
        first, after = super().moments
        return (max(first, self.kept_from), max(after, self.kept_from)) if self.kept_from else (first, after)

    def check_whole(self) -> None:
        """For who has read the records one after another: raises PrunedError when some were pruned meanwhile.

        Checkpoints are written in the transaction in which rows go, so whoever missed some finds them.
        """
        assert self._user.space_id is not None
        pruned = pruned_through(self._user.space_id)
        if pruned is not None and pruned != self.kept_from and self.moments[0] < pruned:
            raise PrunedError(self.moments[0], pruned)

    @property
    def cut_at(self) -> datetime | None:
        """Where rows begin, if some that are asked for are no longer kept, or may be."""
        if self.filters.request_id:
            return None if self.page.records else self.kept_from
        return self.kept_from if self.kept_from and super().moments[0] < self.kept_from else None

    @property
    def cut_note(self) -> str:
        """For people to read, where something is cut off."""
        if self.cut_at is None:
            return ""
        moment = date_format(self.cut_at.astimezone(self.zone), "DATETIME_FORMAT")
        words = _("Requests before %(moment)s are no longer kept. Dashboard and statements still count them.")
        return words % {"moment": moment}

    @cached_property
    def totals(self) -> Figures:
        """The sum of the rows of the filter, as the dashboard adds up."""
        if self.filters.request_id:
            return figures.counted(self.records)
        found = figures.total(self._named, *self.moments)
        if self._keys and self._keys.others:
            return Figures.sum_of([found, figures.counted(self.records.filter(self._keys.others))])
        return found

    def _ordered(self, order: str, **bound: UUID) -> Iterable[UsageRecord]:
        """What is rare is looked for where the sums tell that it is."""
        asked, keys = self.filters, self._keys
        if asked.request_id or not (asked.model or asked.type or keys):
            return super()._ordered(order, **bound)
        first, after = self.moments
        first = max(first, moment_of(bound["id__gt"])) if "id__gt" in bound else first
        after = min(after, moment_of(bound["id__lt"]) + TICK) if "id__lt" in bound else after
        size = self.filters.size + 1
        spans = figures.busy(self._named, first, max(first, after), count=size, is_newest=order == "-id")
        found = self.records.filter(figures.ids_within(spans), **bound).order_by(order)
        if not keys or not keys.others:
            return found[:size]
        others = self.records.filter(keys.others, **bound).order_by(order)
        both = [*found.filter(keys.named)[:size], *others[:size]]
        return sorted(both, key=lambda row: row.pk, reverse=order == "-id")[:size]

    @property
    def _named(self) -> Scope:
        """What the filter says, of keys those that bear the name."""
        keys = self._keys
        if keys is None:
            return self._scope
        return self._scope.but(user_ids=self._among(keys.owner_ids), key_ids=keys.ids)

    @property
    def _scope(self) -> Scope:
        """What the filter says, but for keys."""
        asked = self.filters
        assert self._user.space_id is not None
        return Scope(space_id=self._user.space_id, user_ids=self._among(None), model=asked.model, kind=asked.type)

    def _among(self, people: frozenset[int] | None) -> frozenset[int] | None:
        """Of these people, or of all, those whom the address names and the viewer may know of."""
        sets = [people, self._people if self.filters.user else None]
        sets.append(None if self.is_whole_space else frozenset({self._user.pk}))
        named = [one for one in sets if one is not None]
        return frozenset.intersection(*named) if named else None

    @property
    def types(self) -> list[Choice]:
        options = [("", _("Any type")), *((kind.value, str(kind.label)) for kind in UsageRecord.Kind)]
        return [Choice(value, label, value == self.filters.type) for value, label in options]

    @property
    def models(self) -> list[Choice]:
        """What was used in the period, whatever else the filter says; and what the address names."""
        assert self._user.space_id is not None
        own = None if self.is_whole_space else frozenset({self._user.pk})
        found = figures.table(Scope(space_id=self._user.space_id, user_ids=own), self.moments, by="model")
        used = [model for _place, model, _figures in found][:SUGGESTIONS]
        return choices_of(used, everything=_("All models"), current=self.filters.model)


def choices_of(names: Iterable[str], *, everything: str, current: str) -> list[Choice]:
    """All, or one of these; or the one that the address names."""
    offered = sorted({*names, current} - {""})
    return [Choice("", everything, not current), *(Choice(name, name, name == current) for name in offered)]


def people_called(username: str, *, space_id: int | None) -> set[int]:
    """The ids of those of a space who bear a name or bore it once, the deleted among them; without case."""
    if len(username) > NAME_MAX:
        return set()
    people = User.everyone.filter(space=space_id)
    # Apart, since each has an index of its own.
    named = people.filter(deleted_at=None).alias(folded=Lower("username")).filter(folded=username.lower())
    deleted = people.filter(deleted_at__isnull=False).alias(folded=Lower("username")).filter(folded=username.lower())
    renamed = AuditEvent.objects.filter(
        space=space_id, kind="member.edited", before__username__iexact=username, target_id__isnull=False
    )
    former = [target for target in renamed.order_by().values_list("target_id", flat=True) if target is not None]
    return {*named.values_list("pk", flat=True), *deleted.values_list("pk", flat=True), *former}


@dataclass(frozen=True)
class Keys:
    """The keys that a text names, by id or by their name as it is, and rows by the name as it was at the time."""

    ids: frozenset[UUID]
    owner_ids: frozenset[int]
    # The rows that are named besides; empty where there are none.
    others: Q
    # More bear the name than are looked up.
    is_cut: bool

    @property
    def condition(self) -> Q:
        return self.named | self.others if self.others else self.named

    @property
    def named(self) -> Q:
        return Q(user_id__in=self.owner_ids, key_id__in=self.ids)


def keys_called(text: str, *, space_id: int, owner_ids: frozenset[int] | None = None) -> Keys:
    """The newest of a space, or of some owners. Whoever renamed a key is in the trail: only their rows are read."""
    named = ApiKey.with_deleted.filter(space=space_id)
    if owner_ids is not None:
        named = named.filter(user__in=owner_ids)
    identifier = uuid_of(text)
    named = named.filter(Q(name=text) | Q(pk=identifier)) if identifier else named.filter(name=text)
    found = list(named.order_by("-pk").values_list("pk", "user_id")[: MAX_KEYS_OF_A_NAME + 1])
    is_cut = len(found) > MAX_KEYS_OF_A_NAME
    found = found[:MAX_KEYS_OF_A_NAME]
    ids = frozenset(key for key, _owner in found)
    renamed = _edits(space_id, owner_ids, before__name=text).exclude(after__name=text)
    former = frozenset(target for target in renamed.values_list("target_id", flat=True) if target is not None)
    others = Q(user_id__in=former, key_name=text) & ~Q(key_id__in=ids) if former else Q()
    return Keys(ids, frozenset(owner for _key, owner in found), others, is_cut)


def _edits(space_id: int, owner_ids: frozenset[int] | None, **of: str) -> QuerySet[AuditEvent]:
    """Of keys."""
    edits = AuditEvent.objects.filter(space=space_id, kind="key.edited", target_id__isnull=False, **of).order_by()
    return edits.filter(target_id__in=owner_ids) if owner_ids is not None else edits


def text_in(query: QueryDict, name: str) -> str:
    # PostgreSQL takes no NUL; what stands in its place is in no name either.
    return (query.get(name) or "").replace("\0", "\N{REPLACEMENT CHARACTER}").strip()


def first_moment(day: date, zone: tzinfo) -> datetime:
    """Where clocks skip midnight, what they go on to; where they strike it twice, the first of it."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _day(text: str) -> date | None:
    try:
        return min(max(date.fromisoformat(text), FIRST_DAY), LAST_DAY)
    except ValueError:
        return None


def uuid_of(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
