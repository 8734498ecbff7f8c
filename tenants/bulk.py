"""Many rows into a table at once: COPY on PostgreSQL, a prepared INSERT on SQLite. Only the table checks them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Model


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


def _for_sqlite(value: Any) -> Any:
    return connection.ops.adapt_datetimefield_value(value) if isinstance(value, datetime) else value
