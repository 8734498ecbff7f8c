"""A mixin for management commands that change data, which makes the command the actor in the audit trail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from core.origin import as_origin, current


class RecordedCommand:
    """Record events without a user as actor under the command's name. List it before BaseCommand in the bases."""

    def execute(self, *args: Any, **options: Any) -> Any:
        name = type(self).__module__.rpartition(".")[2]
        with as_origin(replace(current(), command=name)):
            return super().execute(*args, **options)  # type: ignore[misc]  # super() is BaseCommand
