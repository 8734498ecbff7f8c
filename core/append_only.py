"""Append-only tables: a migration operation that creates triggers against UPDATE, DELETE and TRUNCATE.

SQLite drops a table's triggers when a later migration rebuilds the table. Such a migration must begin and end with
StillAppendOnly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

_POSTGRES_FUNCTION = """
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END $$
"""

_EACH_ROW = "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
_EACH_STATEMENT = "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"


def _install(connection: BaseDatabaseWrapper, table: str) -> list[str]:
    if connection.vendor == "postgresql":
        return [
            _POSTGRES_FUNCTION,
            # PostgreSQL clones a row trigger of a partitioned table to every partition, also to later ones. It does
            # not clone TRUNCATE triggers.
            f"CREATE OR REPLACE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table} {_EACH_ROW}",
            *(_no_truncate(each) for each in _with_partitions(connection, table)),
        ]
    return [
        f"CREATE TRIGGER IF NOT EXISTS {table}_no_{deed} BEFORE {deed} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: {deed} refused'); END"
        for deed in ("update", "delete")
    ]


def _remove(connection: BaseDatabaseWrapper, table: str) -> list[str]:
    if connection.vendor == "postgresql":
        truncates = [
            f"DROP TRIGGER IF EXISTS {each}_no_truncate ON {each}" for each in _with_partitions(connection, table)
        ]
        return [f"DROP TRIGGER IF EXISTS {table}_no_change ON {table}", *truncates]
    return [f"DROP TRIGGER IF EXISTS {table}_no_{what}" for what in ("update", "delete")]


def install(schema_editor: BaseDatabaseSchemaEditor, table: str) -> None:
    for statement in _install(schema_editor.connection, table):
        schema_editor.execute(statement, params=None)


def remove(schema_editor: BaseDatabaseSchemaEditor, table: str) -> None:
    for statement in _remove(schema_editor.connection, table):
        schema_editor.execute(statement, params=None)


@contextmanager
def without_append_only_triggers(connection: BaseDatabaseWrapper, table: str) -> Iterator[None]:
    """Drop the triggers of a table inside the `with` block. Call it in a transaction.

    In a transaction no other connection can use the table without its triggers, and a rollback restores them.
    """
    with connection.cursor() as cursor:
        for statement in _remove(connection, table):
            cursor.execute(statement)
        yield
        for statement in _install(connection, table):
            cursor.execute(statement)


def guard_partition(cursor: Any, partition: str) -> None:
    cursor.execute(_no_truncate(partition))


def partitions_of(cursor: Any, table: str) -> list[str]:
    cursor.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass", [table])
    return sorted(name for (name,) in cursor.fetchall())


def _with_partitions(connection: BaseDatabaseWrapper, table: str) -> list[str]:
    with connection.cursor() as cursor:
        return [table, *partitions_of(cursor, table)]


def _no_truncate(table: str) -> str:
    return f"CREATE OR REPLACE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} {_EACH_STATEMENT}"


class AppendOnly(Operation):
    """Refuse UPDATE, DELETE and (PostgreSQL) TRUNCATE on a model's table, in the database."""

    reversible = True

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        pass

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        install(schema_editor, to_state.apps.get_model(app_label, self.model_name)._meta.db_table)

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        remove(schema_editor, from_state.apps.get_model(app_label, self.model_name)._meta.db_table)

    def describe(self) -> str:
        return f"Make {self.model_name} append-only"


class StillAppendOnly(AppendOnly):
    """Install the triggers of a table that was append-only before, in both directions.

    Put one first and one last in a migration that rebuilds the table on SQLite, so that undoing it keeps them as well.
    """

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        self.database_forwards(app_label, schema_editor, from_state, to_state)

    def describe(self) -> str:
        return f"Keep {self.model_name} append-only"
