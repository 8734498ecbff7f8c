"""The trail of all spaces in Django admin. Searches use indexes, and counts are bounded."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import timedelta
from functools import cached_property
from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.db.models.functions import Upper
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from audit.models import AuditEvent
from console.activity.trail import GROUPS
from console.logs import uuid_of
from core.ids import id_at
from operators.browse import BrowseOnly
from tenants.models import Space

# The paginator counts no further, because COUNT(*) over the whole trail takes longer than the page. Older events are
# found by a filter.
MAX_COUNTED_EVENTS = 10_000
# A search by name finds this many of the newest events per column (actor and target).
MAX_SEARCH_RESULTS = 1000
MAX_LISTED_SPACES = 200

Events = QuerySet[AuditEvent]


class BoundedPaginator(Paginator[AuditEvent]):
    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[:MAX_COUNTED_EVENTS].count())


class ByPeriod(admin.SimpleListFilter):
    """Defaults to the last 30 days, so that a filter by a rare kind does not scan the whole trail."""

    title = _("period")
    parameter_name = "days"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        return [("1", _("24 hours")), ("7", _("7 days")), ("all", _("All time"))]

    def choices(self, changelist: Any) -> Any:
        default, *others = super().choices(changelist)
        return [{**default, "display": _("30 days")}, *others]

    def queryset(self, request: HttpRequest, queryset: Events) -> Events:
        # A search has an index of its own, so it need not be bounded by time.
        if self.value() == "all" or (self.value() is None and request.GET.get("q")):
            return queryset
        days = {"1": 1, "7": 7}.get(self.value() or "", 30)
        return queryset.filter(id__gte=id_at(timezone.now() - timedelta(days=days)))


class ByKind(admin.SimpleListFilter):
    title = _("kind")
    parameter_name = "group"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        named = [(name, label) for name, (label, _which) in GROUPS.items()]
        return [*named, ("operators", _("Operators’ own"))]

    def queryset(self, request: HttpRequest, queryset: Events) -> Events:
        if self.value() == "operators":
            return queryset.filter(space=None)
        group = GROUPS.get(self.value() or "")
        return queryset.filter(group[1]) if group else queryset


class BySpace(admin.SimpleListFilter):
    title = _("space")
    parameter_name = "space"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        spaces = Space.objects.filter(Q(pk__in=self._requested(request))).order_by("name")
        more = Space.objects.order_by("name")[:MAX_LISTED_SPACES]
        return [(str(space.pk), space.name) for space in dict.fromkeys([*spaces, *more])]

    def _requested(self, request: HttpRequest) -> list[int]:
        text = request.GET.get("space", "")
        return [int(text)] if text.isascii() and text.isdigit() and len(text) < 18 else []

    def queryset(self, request: HttpRequest, queryset: Events) -> Events:
        requested = self._requested(request)
        return queryset.filter(space=requested[0]) if requested else queryset


@admin.register(AuditEvent)
class AuditEventAdmin(BrowseOnly[AuditEvent]):
    list_display = ("at", "space", "actor_name", "kind", "target_name", "refusal", "address")
    list_filter = (ByPeriod, ByKind, BySpace)
    list_select_related = ("space",)
    search_fields = ("actor_name", "target_name", "request_id", "address")
    search_help_text = _("A name, a request ID or an address, in full.")
    paginator = BoundedPaginator
    # Sorting by a column and facet counts would each scan the whole table.
    sortable_by = ()
    show_facets = admin.ShowFacets.NEVER

    def get_search_results(self, request: HttpRequest, queryset: Events, search_term: str) -> tuple[Events, bool]:
        term = search_term.strip().replace("\0", "")
        if not term:
            return queryset, False
        if identifier := uuid_of(term):
            return queryset.filter(request_id=identifier.hex), False
        if address := _address(term):
            return queryset.filter(address=address), False
        return queryset.filter(
            pk__in=[*_named(queryset, "actor_name", term), *_named(queryset, "target_name", term)]
        ), False


def _address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def _named(events: Events, field: str, name: str) -> list[Any]:
    """Find the newest events with this name, case-insensitively, in the order of an index on (UPPER(name), id)."""
    found = events.alias(folded=Upper(field)).filter(folded=name.upper())
    return list(found.order_by("-id").values_list("pk", flat=True)[:MAX_SEARCH_RESULTS])
