"""The function that writes a set on PostgreSQL: a migration operation that installs sql/charge_set.sql as it is now.

A migration that follows a change of the file, or of a column that it names, does it again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

SOURCE = Path(__file__).parent / "sql" / "charge_set.sql"
_DROP = "DROP FUNCTION IF EXISTS quotas_charge_set"


class ChargeSet(Operation):
    reversible = True

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """The tables stay as they are."""

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(_DROP, params=None)
            schema_editor.execute(SOURCE.read_text(), params=None)

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(_DROP, params=None)

    def describe(self) -> str:
        return "Install the function that writes a set of holds and settlements"
