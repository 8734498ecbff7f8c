"""A migration operation that installs a PostgreSQL function from a file of its own, which never changes afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.apps import apps
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState


class InstallFunction(Operation):
    """Install sql/<file> of an app on PostgreSQL; backwards, the version that it replaces, or none."""

    reversible = True

    def __init__(self, name: str, *, app: str, file: str, replaces: str | None = None) -> None:
        self.name = name
        self.app = app
        self.file = file
        self.replaces = replaces

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Models do not change."""

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
        # CREATE OR REPLACE alone would leave another signature's function beside this one.
        schema_editor.execute(f"DROP FUNCTION IF EXISTS {self.name}", params=None)
        if file is not None:
            # The app is named, because a migration of another app may install it, too.
            source = Path(apps.get_app_config(self.app).path) / "sql" / file
            schema_editor.execute(source.read_text(encoding="utf-8"), params=None)

    def describe(self) -> str:
        return f"Install the function {self.name} from {self.file}"
