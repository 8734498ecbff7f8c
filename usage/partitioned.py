"""A migration operation that turns the usage log into one by months on PostgreSQL, with all its rows, and back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from core import append_only, origin
from core.ids import moment_of
from usage.partitions import MONTHS_AHEAD, TABLE, Month, make_month, make_rest, months_from

_OLD = f"{TABLE}_old"


class Partitioned(Operation):
    """SQLite keeps its one table. Rows are copied: a few minutes for ten million, in which nobody is charged."""

    reversible = True

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Django sees the same table."""

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        if schema_editor.connection.vendor == "postgresql":
            _rebuild(schema_editor, to_state.apps.get_model(app_label, "UsageRecord"), is_partitioned=True)

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        if schema_editor.connection.vendor == "postgresql":
            _rebuild(schema_editor, to_state.apps.get_model(app_label, "UsageRecord"), is_partitioned=False)

    def describe(self) -> str:
        return "Keep the usage log by months"


def _rebuild(schema_editor: Any, model: Any, *, is_partitioned: bool) -> None:
    schema_editor.execute(f"ALTER TABLE {TABLE} RENAME TO {_OLD}", params=None)
    with schema_editor.connection.cursor() as cursor:
        _free_names(cursor)
        _create(schema_editor, model, is_partitioned=is_partitioned)
        if is_partitioned:
            _make_partitions(cursor)
        columns = ", ".join(schema_editor.quote_name(field.column) for field in model._meta.concrete_fields)
        cursor.execute(f"INSERT INTO {TABLE} ({columns}) SELECT {columns} FROM {_OLD}")  # noqa: S608
        for index in model._meta.indexes:
            schema_editor.add_index(model, index)
        cursor.execute(f"DROP TABLE {_OLD}")
    append_only.install(schema_editor, TABLE)


def _free_names(cursor: Any) -> None:
    """The old table's indexes go, and their names are the new one's."""
    cursor.execute(f"ALTER TABLE {_OLD} DROP CONSTRAINT {TABLE}_pkey")
    cursor.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = %s::regclass", [_OLD])
    for (name,) in cursor.fetchall():
        cursor.execute(f"DROP INDEX {name}")


def _create(schema_editor: Any, model: Any, *, is_partitioned: bool) -> None:
    sql, parameters = schema_editor.table_sql(model)
    schema_editor.execute(f"{sql} PARTITION BY RANGE (id)" if is_partitioned else sql, parameters or None)


def _make_partitions(cursor: Any) -> None:
    """From the first row's month to those ahead; what is beyond goes to the rest."""
    make_rest(cursor)
    this = Month.of(origin.now())
    for month in months_from(min(this, _first_month(cursor, this.start)), this.plus(MONTHS_AHEAD)):
        make_month(cursor, month)


def _first_month(cursor: Any, otherwise: datetime) -> Month:
    cursor.execute(f"SELECT id FROM {_OLD} ORDER BY id LIMIT 1")  # noqa: S608
    first = cursor.fetchone()
    return Month.of(moment_of(first[0]) if first else otherwise)
