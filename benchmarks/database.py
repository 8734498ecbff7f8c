"""A durable PostgreSQL for a benchmark, with Django set up on it, and databases with a long usage log."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types
import psycopg

from benchmarks.processes import ROOT
from tests import postgres

# Durable commits, like production: on the disk before they are confirmed. tests/postgres.py turns this off.
DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}

# Every user of a database with a long log has it.
PASSWORD = "benchmark pages"


@dataclass(frozen=True)
class Size:
    name: str
    members: int
    rows: int
    days: int

    def __str__(self) -> str:
        return f"{self.members:,} members, {self.rows:,} rows"

    @property
    def database(self) -> str:
        return f"{self.name}_{self.members}_{self.rows}_{self.days}"


@dataclass(frozen=True)
class Database:
    url: str
    version: str
    pid: int
    programs: Path

    def url_of(self, name: str) -> str:
        return self.url.rpartition("/")[0] + f"/{name}"


@contextmanager
def postgresql(keep: Path | None = None) -> Iterator[Database]:
    """Run a PostgreSQL and set Django up on it, so none of the product's modules may be imported before.

    Data in the folder `keep` is kept and used again.
    """
    programs = next(postgres.available(), None)
    if programs is None:
        raise SystemExit("There is no PostgreSQL here: on Debian, apt-get install postgresql.")
    with postgres.server(programs, DURABLE, keep=keep) as url:
        os.environ |= {"DATABASE_URL": url, "DEMO": "true", "DJANGO_SETTINGS_MODULE": "spacemanage.settings"}
        yield Database(url, _set_up(), _pid_of_server(), programs)


def fill(size: Size, server: Database) -> str:
    """Return the URL of a database with a log of that size. It is made, unless an earlier run kept it."""
    url = server.url_of(size.database)
    with psycopg.connect(server.url, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [size.database]).fetchone():
            manage("migrate", "-v0", url=url)
            print(f"{size}: kept from before", flush=True)
            return url
        connection.execute(f"DROP DATABASE IF EXISTS {size.database}_unfinished".encode())
        connection.execute(f"CREATE DATABASE {size.database}_unfinished".encode())
    unfinished, begun = server.url_of(f"{size.database}_unfinished"), time.monotonic()
    numbers = [f"--members={size.members}", f"--rows={size.rows}", f"--days={size.days}"]
    manage("migrate", "-v0", url=unfinished)
    manage("load_test_data", "--space", size.name, "--password-stdin", *numbers, url=unfinished)
    print(f"{size}: made in {time.monotonic() - begun:,.0f} s", flush=True)
    with psycopg.connect(unfinished, autocommit=True) as connection:
        connection.execute("VACUUM")
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {size.database}_unfinished RENAME TO {size.database}".encode())
    return url


def manage(*command: str, url: str) -> None:
    program, env = [sys.executable, "manage.py", *command], os.environ | {"DATABASE_URL": url}
    # Its output goes to stderr to show progress; stdout is for the report.
    subprocess.run(program, check=True, cwd=ROOT, env=env, input=PASSWORD, text=True, stdout=sys.stderr)


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
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        # The postmaster is the parent of this connection's backend process.
        return int(psutil.Process(int(cursor.fetchone()[0])).ppid())
