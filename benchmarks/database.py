"""A PostgreSQL of the benchmark's own that keeps its word, and Django on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types

from tests import postgres

# What people run in earnest: a commit is on the disk when it is answered.
DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}


@dataclass(frozen=True)
class Database:
    """A running server with the product's tables."""

    url: str
    version: str
    pid: int
    programs: Path


@contextmanager
def postgresql() -> Iterator[Database]:
    """Django is set up on it, too; so nothing of the product may be imported before."""
    programs = next(postgres.available(), None)
    if programs is None:
        raise SystemExit("There is no PostgreSQL here: on Debian, apt-get install postgresql.")
    with postgres.server(programs, DURABLE) as url:
        os.environ |= {"DATABASE_URL": url, "DEMO": "true", "DJANGO_SETTINGS_MODULE": "spacemanage.settings"}
        yield Database(url, _set_up(), _pid_of_server(), programs)


def _set_up() -> str:
    import django
    from django.core.management import call_command
    from django.db import connection

    django.setup()
    call_command("migrate", interactive=False, verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        return str(cursor.fetchone()[0]).split(" ")[0]


def _pid_of_server() -> int:
    """The parent of the process that answers us; it starts one for each connection."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(psutil.Process(int(cursor.fetchone()[0])).ppid())
