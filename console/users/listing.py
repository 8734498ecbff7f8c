"""The list of a space's members: search, filters, sorting and pages from the query string."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, cast
from urllib.parse import urlencode

from django.core.paginator import Page, Paginator
from django.db.models import F, QuerySet
from django.db.models.functions import Lower
from django.http import QueryDict
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import User
from console.choices import Choice, Link
from tenants.models import Space
from tenants.roles import Role

USERS_URL = "/space/users/"
MEMBER_PAGE_SIZES = (10, 20, 50, 100)
SORTS: dict[str, tuple[Any, Any]] = {
    "id": (gettext_lazy("ID"), F("number")),
    "username": (gettext_lazy("Username"), Lower("username")),
    "status": (gettext_lazy("Status"), F("is_active")),
    "remaining": (gettext_lazy("Remaining / Total"), F("wallet__total") - F("wallet__spent")),
    "role": (gettext_lazy("Role"), F("role")),
}
STATUSES = {"enabled": gettext_lazy("Enabled"), "disabled": gettext_lazy("Disabled")}
ROLES = {role.value: role.label for role in (Role.ADMIN, Role.NORMAL)}
_DEFAULTS = {"q": "", "status": "", "role": "", "sort": "id", "page": 1, "size": MEMBER_PAGE_SIZES[0]}


class SortableColumn(NamedTuple):
    key: str
    label: str
    sort_url: str
    direction: str


class _Pages(Paginator[User]):
    """Sorts ids only, and in the second half of the list from its end, because OFFSET reads all rows it skips."""

    def page(self, number: int | str) -> Page[User]:
        number = self.validate_number(number)
        first = (number - 1) * self.per_page
        last = min(first + self.per_page, self.count)
        members = cast("QuerySet[User]", self.object_list)
        ids = members.values_list("pk", flat=True)
        if first <= self.count // 2:
            shown = list(ids[first:last])
        else:
            shown = list(ids.reverse()[self.count - last : self.count - first])[::-1]
        found = members.order_by().in_bulk(shown)
        return Page([found[pk] for pk in shown if pk in found], number, self)


class Listing:
    """One state of the list. `first`, a member just added, is shown on top regardless of the sort order."""

    def __init__(self, space: Space, query: QueryDict, *, first: User | None = None) -> None:
        self._space = space
        self._query = query
        self.first = first
        # PostgreSQL rejects NUL in text. No username has one, so such a search has no result.
        self._has_nul = "\0" in query.get("q", "")
        self.q: str = query.get("q", "").replace("\0", "").strip()
        self.status = _one_of(STATUSES, query.get("status"))
        self.role = _one_of(ROLES, query.get("role"))
        self.sort = _one_of({sign + key for key in SORTS for sign in ("", "-")}, query.get("sort"), usual="id")
        self.size = int(
            _one_of({str(size) for size in MEMBER_PAGE_SIZES}, query.get("size"), usual=str(MEMBER_PAGE_SIZES[0]))
        )

    @cached_property
    def page(self) -> Page[User]:
        page = _Pages(self._ordered(), self.size).get_page(self._query.get("page"))
        if self.first is not None:
            others = [member for member in page.object_list if member != self.first]
            page.object_list = [self.first, *others]
        return page

    @property
    def is_filtered(self) -> bool:
        return bool(self.q or self.status or self.role)

    @property
    def columns(self) -> list[SortableColumn]:
        current, descending = self.sort.lstrip("-"), self.sort.startswith("-")
        columns = []
        for key, (label, _expression) in SORTS.items():
            is_current = key == current
            direction = ("descending" if descending else "ascending") if is_current else ""
            toggled = f"-{key}" if is_current and not descending else key
            columns.append(SortableColumn(key, str(label), self.url(sort=toggled, page=1), direction))
        return columns

    @property
    def choices_status(self) -> list[Choice]:
        return _choices({"": _("Any status"), **STATUSES}, self.status)

    @property
    def choices_role(self) -> list[Choice]:
        return _choices({"": _("Any role"), **ROLES}, self.role)

    @property
    def sizes(self) -> list[Link]:
        return [Link(str(size), self.url(size=size, page=1), size == self.size) for size in MEMBER_PAGE_SIZES]

    @property
    def pages(self) -> list[tuple[int | None, str, bool]]:
        """(page number, URL, is current); the number is None for an ellipsis."""
        page = self.page
        numbers = page.paginator.get_elided_page_range(page.number, on_each_side=1, on_ends=1)
        return [
            (number, self.url(page=number), number == page.number) if isinstance(number, int) else (None, "", False)
            for number in numbers
        ]

    @property
    def previous_url(self) -> str:
        return self.url(page=self.page.previous_page_number()) if self.page.has_previous() else ""

    @property
    def next_url(self) -> str:
        return self.url(page=self.page.next_page_number()) if self.page.has_next() else ""

    @property
    def clear_url(self) -> str:
        return self.url(q="", status="", role="", page=1)

    def url(self, **changes: Any) -> str:
        state = {name: getattr(self, name) for name in ("q", "status", "role", "sort", "size")} | changes
        query = {name: value for name, value in state.items() if value != _DEFAULTS[name]}
        return f"{USERS_URL}?{urlencode(query)}" if query else USERS_URL

    def _found(self) -> QuerySet[User]:
        # The search is literal: icontains escapes the wildcards % and _.
        members = members_of(self._space)
        if self._has_nul:
            return members.none()
        if self.q:
            members = members.filter(username__icontains=self.q)
        if self.status:
            members = members.filter(is_active=self.status == "enabled")
        return members.filter(role=self.role) if self.role else members

    def _ordered(self) -> QuerySet[User]:
        key, descending = self.sort.lstrip("-"), self.sort.startswith("-")
        expression = SORTS[key][1]
        members = self._found()
        if key == "id":
            return members.order_by("-number" if descending else "number")
        if key == "remaining":
            # Every member has a wallet; saying so turns LEFT JOIN into INNER JOIN: half the query time.
            members = members.filter(wallet__isnull=False)
        return members.order_by(expression.desc() if descending else expression.asc(), "number")


def members_of(space: Space) -> QuerySet[User]:
    return User.objects.filter(space=space, number__gt=1).select_related("wallet")


def _one_of(allowed: Collection[str], asked: str | None, *, usual: str = "") -> str:
    return asked if asked is not None and asked in allowed else usual


def _choices(options: Mapping[str, Any], current: str) -> list[Choice]:
    return [Choice(value, str(label), value == current) for value, label in options.items()]
