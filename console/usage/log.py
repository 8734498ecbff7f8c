"""The usage log: one row per request, its totals and filters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet
from django.http import QueryDict
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from accounts.models import User
from console.choices import Choice, choices_of
from console.logs import MAX_SUGGESTIONS, sees_whole_space, text_in, uuid_of
from console.token_filter import RequestFilters, RequestLog
from core.ids import moment_of
from usage import figures
from usage.figures import Figures, Scope
from usage.models import UsageRecord
from usage.quarters import PrunedError, pruned_through

# Resolution of the timestamp in an id.
ID_RESOLUTION = timedelta(microseconds=1)


def visible_to(user: User) -> QuerySet[UsageRecord]:
    """Return the usage records that this user may see. Every query for a record must start from here."""
    records = UsageRecord.objects.filter(space=user.space_id)
    return records if sees_whole_space(user) else records.filter(user_id=user.pk)


@dataclass(frozen=True, kw_only=True)
class UsageFilters(RequestFilters):
    type: str

    @classmethod
    def parse(cls, query: QueryDict, *, today: date) -> dict[str, Any]:
        kind = text_in(query, "type")
        return super().parse(query, today=today) | {"type": kind if kind in UsageRecord.Kind.values else ""}


class UsageLog(RequestLog[UsageRecord, UsageFilters]):
    address = "/console/usage/"

    def _filters(self, query: QueryDict) -> UsageFilters:
        return UsageFilters.of(query, today=self.today)

    def _visible(self) -> QuerySet[UsageRecord]:
        return visible_to(self.user)

    def _of_request(self, text: str) -> QuerySet[UsageRecord]:
        identifier = uuid_of(text)
        named = Q(request_id=identifier) | Q(pk=identifier)
        return self._visible().filter(named) if identifier else UsageRecord.objects.none()

    def _matching(self) -> QuerySet[UsageRecord]:
        records = super()._matching()
        return records.filter(kind=self.filters.type) if self.filters.type else records

    @cached_property
    def kept_from(self) -> datetime | None:
        assert self.user.space_id is not None
        return pruned_through(self.user.space_id)

    @property
    def moments(self) -> tuple[datetime, datetime]:
        # The pruned part of the period is left out, so that list, totals and CSV file agree.
        first, after = super().moments
        return (max(first, self.kept_from), max(after, self.kept_from)) if self.kept_from else (first, after)

    def check_complete(self) -> None:
        """Raise PrunedError if rows of the period were pruned while the caller read them batch by batch.

        A checkpoint is written in the same transaction that deletes the rows, so no missed row goes unnoticed.
        """
        assert self.user.space_id is not None
        pruned = pruned_through(self.user.space_id)
        if pruned is not None and pruned != self.kept_from and self.moments[0] < pruned:
            raise PrunedError(self.moments[0], pruned)

    @property
    def cut_at(self) -> datetime | None:
        """The time before which rows are missing from this result because they were pruned; None if it is complete."""
        if self.filters.request_id:
            return None if self.page.records else self.kept_from
        return self.kept_from if self.kept_from and super().moments[0] < self.kept_from else None

    @property
    def cut_note(self) -> str:
        if self.cut_at is None:
            return ""
        moment = date_format(self.cut_at.astimezone(self.zone), "DATETIME_FORMAT")
        words = _("Requests before %(moment)s are no longer kept. Dashboard and statements still count them.")
        return words % {"moment": moment}

    @cached_property
    def totals(self) -> Figures:
        if self.filters.request_id:
            return figures.sum_records(self.records)
        found = figures.total(self._named, *self.moments)
        if self.keys and self.keys.others:
            return Figures.sum_of([found, figures.sum_records(self.records.filter(self.keys.others))])
        return found

    def _fetch(self, order: str, count: int, **bound: UUID) -> list[UsageRecord]:
        # Roll-ups serve as an index: only hours that have matching rows are scanned, so rare rows are found quickly.
        asked, keys = self.filters, self.keys
        if asked.request_id or not (asked.model or asked.type or keys):
            return super()._fetch(order, count, **bound)
        first, after = self.moments
        first = max(first, moment_of(bound["id__gt"])) if "id__gt" in bound else first
        after = min(after, moment_of(bound["id__lt"]) + ID_RESOLUTION) if "id__lt" in bound else after
        spans = figures.spans_with_records(self._named, first, max(first, after), count=count, is_newest=order == "-id")
        found = self.records.filter(figures.ids_in_spans(spans), **bound).order_by(order)
        if not keys or not keys.others:
            return list(found[:count])
        others = self.records.filter(keys.others, **bound).order_by(order)
        both = [*found.filter(keys.named)[:count], *others[:count]]
        return sorted(both, key=lambda row: row.pk, reverse=order == "-id")[:count]

    @property
    def _named(self) -> Scope:
        # This leaves out rows of keys that had the name of the token filter before they were renamed.
        keys = self.keys
        if keys is None:
            return self._scope
        return self._scope.replace(user_ids=self._among(keys.owner_ids), key_ids=keys.ids)

    @property
    def _scope(self) -> Scope:
        asked = self.filters
        assert self.user.space_id is not None
        return Scope(space_id=self.user.space_id, user_ids=self._among(None), model=asked.model, kind=asked.type)

    def _among(self, people: frozenset[int] | None) -> frozenset[int] | None:
        """Return the user ids that `people`, the `user` filter and the viewer's permissions share; None means all."""
        sets = [people, self.people if self.filters.user else None]
        sets.append(None if self.is_whole_space else frozenset({self.user.pk}))
        named = [one for one in sets if one is not None]
        return frozenset.intersection(*named) if named else None

    @property
    def types(self) -> list[Choice]:
        options = [("", _("Any type")), *((kind.value, str(kind.label)) for kind in UsageRecord.Kind)]
        return [Choice(value, label, value == self.filters.type) for value, label in options]

    @property
    def models(self) -> list[Choice]:
        # The other filters are ignored, so that each model used in the period stays on offer.
        assert self.user.space_id is not None
        own = None if self.is_whole_space else frozenset({self.user.pk})
        found = figures.totals_by(Scope(space_id=self.user.space_id, user_ids=own), self.moments, by="model")
        used = [model for _place, model, _figures in found][:MAX_SUGGESTIONS]
        return choices_of(used, everything=_("All models"), current=self.filters.model)
