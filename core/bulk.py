"""Many rows into a table at once: COPY on PostgreSQL, a prepared INSERT on SQLite. Only the table checks them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Model, UniqueConstraint


def write_rows(model: type[Model], rows: Iterable[tuple[Any, ...]]) -> None:
    """Each with every column of the model in its order; a UUID as 32 digits, JSON as text."""
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
    """Within a transaction: on PostgreSQL their indexes, but for primary keys, are made once all rows are there.

    Nobody else reads or writes these tables until the transaction ends.
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
