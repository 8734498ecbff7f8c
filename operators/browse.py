from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from django.utils.translation import gettext as _

M = TypeVar("M", bound=Model)

MAX_LISTED_NAMES = 3


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are, so that a cell of a list stays small."""
    shown, more = ", ".join(names[:MAX_LISTED_NAMES]), len(names) - MAX_LISTED_NAMES
    return shown if more <= 0 else _("%(names)s and %(number)s more") % {"names": shown, "number": more}


class BrowseOnly(admin.ModelAdmin[M]):
    """A read-only admin page: nobody adds, edits or deletes rows here."""

    actions = None
    list_per_page = 50
    # COUNT(*) over a whole log, shown as "12,345,678 total", takes longer than the page.
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
