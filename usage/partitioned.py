"""The migration operation that partitions the usage log by month on PostgreSQL, keeping its rows, and reverses it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from core import append_only, origin
from core.ids import moment_of
from usage.partitions import MONTHS_AHEAD, TABLE, Month, make_default_partition, make_month, months_from

_OLD = f"{TABLE}_old"


class Partitioned(Operation):
    """Rebuild the usage log as a partitioned table; on SQLite, do nothing.

    All rows are copied in the migration's transaction: some minutes for ten million, during which charges wait.
    """

    reversible = True

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        pass  # Django sees the same table.

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
        _create_table(schema_editor, model, is_partitioned=is_partitioned)
        if is_partitioned:
            _make_partitions(cursor)
        columns = ", ".join(schema_editor.quote_name(field.column) for field in model._meta.concrete_fields)
        cursor.execute(f"INSERT INTO {TABLE} ({columns}) SELECT {columns} FROM {_OLD}")  # noqa: S608
        for index in model._meta.indexes:
            schema_editor.add_index(model, index)
        cursor.execute(f"DROP TABLE {_OLD}")
    append_only.install(schema_editor, TABLE)


def _free_names(cursor: Any) -> None:
    # The new table's indexes need the same names.
    cursor.execute(f"ALTER TABLE {_OLD} DROP CONSTRAINT {TABLE}_pkey")
    cursor.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = %s::regclass", [_OLD])
    for (name,) in cursor.fetchall():
        cursor.execute(f"DROP INDEX {name}")


def _create_table(schema_editor: Any, model: Any, *, is_partitioned: bool) -> None:
    sql, parameters = schema_editor.table_sql(model)
    schema_editor.execute(f"{sql} PARTITION BY RANGE (id)" if is_partitioned else sql, parameters or None)


def _make_partitions(cursor: Any) -> None:
    make_default_partition(cursor)
    this = Month.of(origin.now())
    for month in months_from(min(this, _first_month(cursor, this.start)), this.plus(MONTHS_AHEAD)):
        make_month(cursor, month)


def _first_month(cursor: Any, otherwise: datetime) -> Month:
    cursor.execute(f"SELECT id FROM {_OLD} ORDER BY id LIMIT 1")  # noqa: S608
    first = cursor.fetchone()
    return Month.of(moment_of(first[0]) if first else otherwise)
