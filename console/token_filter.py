"""Base of the usage and task logs, which are also filtered by model and by token (API key)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, TypeVar
from uuid import UUID

from django.db.models import Q, QuerySet
from django.http import QueryDict
from django.utils.translation import gettext as _

from accounts.models import ApiKey
from audit.models import AuditEvent
from console.choices import Choice
from console.logs import MAX_SUGGESTIONS, LogFilters, TableLog, text_in, uuid_of
from usage.models import Task, UsageRecord

Row = TypeVar("Row", UsageRecord, Task)
Filters = TypeVar("Filters", bound="RequestFilters")

# When more keys have the same name, only the newest ones are matched.
MAX_KEYS_OF_A_NAME = 500


@dataclass(frozen=True, kw_only=True)
class RequestFilters(LogFilters):
    token: str
    model: str

    @classmethod
    def parse(cls, query: QueryDict, *, today: date) -> dict[str, Any]:
        return super().parse(query, today=today) | {name: text_in(query, name) for name in ("token", "model")}


class RequestLog(TableLog[Row, Filters]):
    def _matching(self) -> QuerySet[Row]:
        asked = self.filters
        records: Any = super()._matching()
        if asked.user:
            records = records.filter(Q(user_id__in=self.people))
        if self.keys:
            records = records.filter(self.keys.condition)
        if asked.model:
            records = records.filter(Q(model=asked.model))
        matching: QuerySet[Row] = records
        return matching

    @cached_property
    def keys(self) -> Keys | None:
        asked = self.filters.token
        if not asked:
            return None
        assert self.user.space_id is not None
        if not self.is_whole_space:
            owner_ids: frozenset[int] | None = frozenset({self.user.pk})
        else:
            owner_ids = self.people if self.filters.user else None
        return keys_called(asked, space_id=self.user.space_id, owner_ids=owner_ids)

    @property
    def keys_note(self) -> str:
        if not self.keys or not self.keys.is_cut:
            return ""
        words = _(
            "More than %(count)d tokens are called “%(name)s”: these are requests of the newest %(count)d. "
            "Name a user as well, or a token’s ID, to see others."
        )
        return words % {"count": MAX_KEYS_OF_A_NAME, "name": self.filters.token}

    @property
    def tokens(self) -> list[Choice]:
        asked: str = self.filters.token
        labels = self._key_labels(self._visible_keys.filter(deleted_at=None))
        if len(labels) > MAX_SUGGESTIONS:
            return []  # Too many for a <select>: the page shows a text field with suggestions.
        identifier = uuid_of(asked)
        # An id may be written in capitals or without dashes.
        asked = str(identifier) if identifier else asked
        if asked and asked not in labels:
            deleted = self._key_labels(self._visible_keys.filter(pk=identifier)) if identifier else {}
            labels[asked] = next(iter(deleted.values()), asked)
        listed: list[tuple[str, str]] = sorted(labels.items(), key=lambda item: item[1].lower())
        everything = Choice("", _("All tokens"), not asked)
        return [everything, *(Choice(value, label, value == asked) for value, label in listed)]

    @property
    def token_names(self) -> list[str]:
        # LIMIT without ORDER BY: sorting by name would read every key.
        keys = self._visible_keys.filter(deleted_at=None)
        return sorted(set(keys.order_by().values_list("name", flat=True)[:MAX_SUGGESTIONS]))

    @property
    def _visible_keys(self) -> QuerySet[ApiKey]:
        """The keys that this user may see. Every query for a key must start from here."""
        keys = ApiKey.with_deleted.filter(space=self.user.space_id)
        return keys if self.is_whole_space else keys.filter(user=self.user)

    def _key_labels(self, keys: QuerySet[ApiKey]) -> dict[str, str]:
        labels = {}
        for key in keys.order_by().select_related("user")[: MAX_SUGGESTIONS + 1]:
            owner: list[str] = [key.user.username] if self.is_whole_space else []
            labels[str(key.pk)] = " · ".join([key.name, *owner, f"…{key.last_four}"])
        return labels


@dataclass(frozen=True)
class Keys:
    """The match of a token filter: keys by id or current name, and rows written while a key had that name."""

    ids: frozenset[UUID]
    owner_ids: frozenset[int]
    # Rows of keys that were renamed since. An empty Q if there are none.
    others: Q
    # Whether more than MAX_KEYS_OF_A_NAME keys have the name.
    is_cut: bool

    @property
    def condition(self) -> Q:
        return self.named | self.others if self.others else self.named

    @property
    def named(self) -> Q:
        return Q(user_id__in=self.owner_ids, key_id__in=self.ids)


def keys_called(text: str, *, space_id: int, owner_ids: frozenset[int] | None = None) -> Keys:
    """Return the newest keys of a space, or of some owners, that have this name or id.

    Renamed keys are found through the audit trail: `key.edited` events carry the former name and the owner.
    """
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
    edits = AuditEvent.objects.filter(space=space_id, kind="key.edited", target_id__isnull=False, **of).order_by()
    return edits.filter(target_id__in=owner_ids) if owner_ids is not None else edits
