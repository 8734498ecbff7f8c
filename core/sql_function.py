"""A migration operation that installs one version of a PostgreSQL function from an SQL file that never changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.apps import apps
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState


class InstallFunction(Operation):
    """Install sql/<file> of an app on PostgreSQL. Reversed, install `replaces`, or only drop the function."""

    reversible = True

    def __init__(self, name: str, *, app: str, file: str, replaces: str | None = None) -> None:
        self.name = name
        self.app = app
        self.file = file
        self.replaces = replaces

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        pass

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        self._install(schema_editor, self.file)

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        self._install(schema_editor, self.replaces)

    def _install(self, schema_editor: Any, file: str | None) -> None:
        if schema_editor.connection.vendor != "postgresql":
            return
        # CREATE OR REPLACE does not replace a function with another signature: both would exist.
        schema_editor.execute(f"DROP FUNCTION IF EXISTS {self.name}", params=None)
        if file is not None:
            # `app` is explicit, because a migration of another app may install the function, too.
            source = Path(apps.get_app_config(self.app).path) / "sql" / file
            schema_editor.execute(source.read_text(encoding="utf-8"), params=None)

    def describe(self) -> str:
        return f"Install the function {self.name} from {self.file}"
