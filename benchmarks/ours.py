"""The product as a gateway to measure: served as by `./run`, on PostgreSQL, with members who have money."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import requests

from benchmarks.database import Database
from benchmarks.peers import MODEL, Gateway
from benchmarks.processes import running, wait_for
from tests.postgres import free_port


@contextmanager
def relay(upstream: str, database: Database, *, members: int = 64) -> Iterator[Gateway]:
    """Serve with one worker. Each request is authenticated, held, settled and logged. Django must be set up before."""
    from benchmarks.seed import offer, space_of

    spenders = space_of(members, name="bench")
    offer(MODEL, upstream="fake", base_url=upstream, credential="sk-bench")
    with served(database) as (base, pid):
        headers = [{"authorization": f"Bearer {spender.key}"} for spender in spenders]
        wait_for("The relay", lambda: MODEL in requests.get(f"{base}/v1/models", headers=headers[0], timeout=5).text)
        about = f"one worker of uvicorn {version('uvicorn')}, {members} members, PostgreSQL {database.version}, durable"
        yield Gateway("Space Manage", about, f"{base}/v1/chat/completions", headers, (pid,), (database.pid,))


@contextmanager
def served(database: Database) -> Iterator[tuple[str, int]]:
    """Serve the product on that database with the same command as `./run`; yield (base URL, pid)."""
    port = free_port()
    command = [sys.executable, "-m", "spacemanage.serve", "--port", str(port)]
    with running("relay", *command, env={"DATABASE_URL": database.url, "DEMO": "true"}) as pid:
        base = f"http://127.0.0.1:{port}"
        wait_for("The relay", lambda: requests.get(f"{base}/healthz", timeout=5).status_code == 200)
        yield base, pid


def books(answered: int) -> str:
    """Check the books: raise SystemExit unless the log has one row per response; return a line for the report."""
    from django.core.management import call_command

    from quotas.models import Hold
    from usage.models import UsageRecord

    output = io.StringIO()
    call_command("reconcile", stdout=output, stderr=output)
    logged = UsageRecord.objects.filter(status=200).count()
    held = Hold.objects.count()
    line = f"{answered:,} answers, {logged:,} rows in the log, {held} holds left. {output.getvalue().strip()}"
    if logged != answered:
        raise SystemExit(f"WRONG: {line}")
    return line
