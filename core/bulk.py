"""Bulk insert: COPY on PostgreSQL, executemany on SQLite. Only the table's constraints check the rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Model, UniqueConstraint


def write_rows(model: type[Model], rows: Iterable[tuple[Any, ...]]) -> None:
    """Insert rows that have every column of the model, in its order: a UUID as 32 hex digits, JSON as text."""
    columns = [f'"{field.column}"' for field in model._meta.concrete_fields]
    table, named = model._meta.db_table, ", ".join(columns)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY {table} ({named}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            return
        places = ", ".join(["%s"] * len(columns))
        statement = f"INSERT INTO {table} ({named}) VALUES ({places})"  # noqa: S608
        cursor.executemany(statement, [[_for_sqlite(value) for value in row] for row in rows])


@contextmanager
def deferred_indexes(*models: type[Model]) -> Iterator[None]:
    """Drop the models' indexes and unique constraints and create them again after the block (PostgreSQL).

    Primary keys stay. Call it in a transaction: the tables are locked against readers and writers until it ends.
    """
    if connection.vendor != "postgresql":
        yield
        return
    unique = [(model, each) for model in models for each in model._meta.constraints if type(each) is UniqueConstraint]
    others = [(model, each) for model in models for each in model._meta.indexes]
    with connection.schema_editor(atomic=False) as editor:
        for model, constraint in unique:
            editor.remove_constraint(model, constraint)
        for model, index in others:
            editor.remove_index(model, index)
    yield
    with connection.schema_editor(atomic=False) as editor:
        editor.execute("SET LOCAL maintenance_work_mem = '512MB'")
        for model, constraint in unique:
            editor.add_constraint(model, constraint)
        for model, index in others:
            editor.add_index(model, index)


def _for_sqlite(value: Any) -> Any:
    return connection.ops.adapt_datetimefield_value(value) if isinstance(value, datetime) else value
