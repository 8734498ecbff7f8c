from __future__ import annotations

from typing import Any, TypeVar

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

M = TypeVar("M", bound=Model)


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
