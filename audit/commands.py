"""Management commands whose deeds are in the trail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from core.origin import as_origin, current


class RecordedCommand:
    """Put before BaseCommand: what the command does without a person is recorded as done by the command, by name."""

    def execute(self, *args: Any, **options: Any) -> Any:
        name = type(self).__module__.rpartition(".")[2]
        with as_origin(replace(current(), command=name)):
            return super().execute(*args, **options)  # type: ignore[misc]  # BaseCommand's, the next class
