"""Response times of pages in a large space compared with a small one: python -m benchmarks.pages

Each size is a database on one PostgreSQL server, filled by load_test_data and served as by `./run`. Signed-in clients
request the same page from both alternately, one request at a time. A CSV export of --csv-rows rows is measured as well:
its time to first byte, and how much the server's memory grows.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

import psutil  # type: ignore[import-untyped]  # it ships no types
import psycopg
import requests

from benchmarks.database import PASSWORD, Database, Size, fill, manage, postgresql
from benchmarks.machine import machine
from benchmarks.ours import served
from benchmarks.processes import unwind_on_sigterm

RATIO_GOAL = 1.5
REMAINING_GOAL_MS = 300
FIRST_BYTE_GOAL_S, GROWTH_GOAL_MB = 1.0, 50
WARM_UP = 2
TOKEN = "laptop"
# The first member whose requests of a week with that token fill more than a page, so that both sizes show full pages.
BUSY = """
SELECT username FROM accounts_user JOIN (
    SELECT user_id, count(*) AS requests FROM usage_usagerecord WHERE key_name = %s AND id > %s GROUP BY user_id
) AS used ON used.user_id = accounts_user.id
WHERE role = 'normal' AND is_active AND requests BETWEEN 30 AND 60 ORDER BY number LIMIT 1
"""

KEY = """
SELECT accounts_apikey.id FROM accounts_apikey JOIN accounts_user ON accounts_user.id = accounts_apikey.user_id
WHERE name = %s AND username = %s ORDER BY accounts_apikey.id LIMIT 1
"""


@dataclass(frozen=True)
class Page:
    name: str
    role: str
    # A function, because names and ids differ between the spaces.
    path: Callable[[ServedSpace], str]
    most_ms: float | None = None


@dataclass(frozen=True)
class ServedSpace:
    size: Size
    base: str
    pid: int
    # Role → signed-in session.
    sessions: dict[str, requests.Session]
    username: str
    token: str
    key_id: str
    request_id: str
    middle_id: str

    @property
    def last_days(self) -> dict[str, str]:
        today = datetime.now(UTC).date()
        return _period(today - timedelta(days=29), today)

    @property
    def all_days(self) -> dict[str, str]:
        today = datetime.now(UTC).date()
        return _period(today - timedelta(days=self.size.days + 1), today)


def main() -> None:
    options = read_options()
    unwind_on_sigterm()
    (few, short), (many, long) = options.small, options.large
    sizes = [Size("small", few, short, options.days), Size("large", many, long, options.days)]
    with postgresql(options.keep) as database, ExitStack() as stack:
        print(f"{machine()}; PostgreSQL {database.version}", flush=True)
        manage("collectstatic", "--noinput", "-v0", url=database.url)
        urls = [fill(size, database) for size in sizes]
        print(f"Load average when the pages are asked for: {os.getloadavg()[0]:.1f}", flush=True)
        small, large = (stack.enter_context(serve(size, database, url)) for size, url in zip(sizes, urls, strict=True))
        print(f"\n{table(small, large, options)}", flush=True)
        print(f"\n{csv(large, options.csv_rows)}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    two = {"type": int, "nargs": 2, "metavar": ("MEMBERS", "ROWS")}
    parser.add_argument("--small", default=[1_000, 100_000], **two)  # type: ignore[arg-type]
    parser.add_argument("--large", default=[100_000, 10_000_000], **two)  # type: ignore[arg-type]
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--rounds", type=int, default=11, help="how often each page is asked for")
    parser.add_argument("--csv-rows", type=int, default=1_000_000)
    parser.add_argument("--only", default="", metavar="TEXT", help="only pages whose name contains it")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to keep the databases for the next run")
    return parser.parse_args()


# -- Setting up ---------------------------------------------------------------------------------------------------


@contextmanager
def serve(size: Size, database: Database, url: str) -> Iterator[ServedSpace]:
    from usage.figures import first_id

    with psycopg.connect(url) as connection:
        people = {
            "manager": _one(connection, "SELECT username FROM accounts_user WHERE number = 1"),
            "admin": _one(connection, "SELECT username FROM accounts_user WHERE number = 2"),
            "member": _one(connection, BUSY, TOKEN, first_id(datetime.now(UTC) - timedelta(days=6))),
        }
        middle = (
            "SELECT {} FROM usage_usagerecord WHERE kind = 'consume' ORDER BY id OFFSET"
            " (SELECT count(*) / 2 FROM usage_usagerecord) LIMIT 1"
        )
        found = {name: _one(connection, middle.format(name)) for name in ("id", "request_id")}
        key_id = _one(connection, KEY, TOKEN, people["member"])
    with served(replace(database, url=url)) as (base, pid):
        sessions = {role: signed_in(base, username) for role, username in people.items()}
        yield ServedSpace(size, base, pid, sessions, people["member"], TOKEN, key_id, found["request_id"], found["id"])


def _one(connection: psycopg.Connection[Any], sql: str, *given: object) -> str:
    row = connection.execute(sql.encode(), given or None).fetchone()
    assert row is not None
    return str(row[0])


def signed_in(base: str, username: str) -> requests.Session:
    session = requests.Session()
    page = session.get(f"{base}/login/", timeout=30).text
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert token is not None
    fields = {"username": username, "password": PASSWORD, "csrfmiddlewaretoken": token[1]}
    answer = session.post(f"{base}/login/", data=fields, timeout=60, allow_redirects=False)
    if answer.status_code not in (302, 303):
        raise SystemExit(f"{username} could not sign in: {answer.status_code}")
    return session


# -- Pages --------------------------------------------------------------------------------------------------------


def pages() -> Iterator[Page]:
    yield from users("manager")
    yield from users("admin")
    for role in ("manager", "admin", "member"):
        yield from logs(role)
        yield from dashboards(role)


def users(role: str) -> Iterator[Page]:
    def listed(**query: object) -> Callable[[ServedSpace], str]:
        return lambda _served: _path("/space/users/", query)

    yield Page("users: first page", role, listed())
    yield Page("users: search, one found", role, lambda served: _path("/space/users/", {"q": served.username}))
    yield Page("users: search, nobody found", role, listed(q="nobody-of-that-name"))
    yield Page("users: search, a tenth found", role, listed(q="sato"))
    yield Page("users: sorted by id, downwards", role, listed(sort="-id"))
    yield Page("users: sorted by name", role, listed(sort="username"))
    yield Page("users: last page", role, listed(page=9_999_999))
    yield Page("users: by remaining", role, listed(sort="remaining"), REMAINING_GOAL_MS)


def logs(role: str) -> Iterator[Page]:
    def usage(name: str, query: Callable[[ServedSpace], dict[str, Any]]) -> Page:
        return Page(f"usage: {name}", role, lambda served: _path("/console/usage/", query(served)))

    yield usage("first page, 7 days", lambda _served: {})
    yield usage("first page, 30 days", lambda served: served.last_days)
    yield usage("deep page, all days", lambda served: served.all_days | {"cursor": served.middle_id})
    yield usage("by model", lambda served: served.last_days | {"model": "gpt-4.1"})
    yield usage("by a model that nobody used", lambda served: served.last_days | {"model": "none-such"})
    yield usage("by type", lambda served: served.last_days | {"type": "error"})
    yield usage("by token", lambda served: served.last_days | {"token": served.key_id})
    yield usage("by the name of tokens", lambda served: served.last_days | {"token": served.token})
    yield usage("by request id", lambda served: {"request_id": served.request_id})
    if role != "member":
        yield usage("by user", lambda served: served.last_days | {"user": served.username})


def dashboards(role: str) -> Iterator[Page]:
    scopes = ["me"] if role == "member" else ["space", "me"]
    for scope in scopes:
        query = {"period": "30d"} | ({"scope": "me"} if scope == "me" and role != "member" else {})
        yield Page(f"dashboard, 30 days, {scope}", role, _constantly(_path("/console/", query)))
    yield Page("credits", role, _constantly("/me/credits/"))


def _constantly(path: str) -> Callable[[ServedSpace], str]:
    return lambda _served: path


def _period(first: date, last: date) -> dict[str, str]:
    return {"from": first.isoformat(), "to": last.isoformat()}


def _path(path: str, query: dict[str, Any]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


# -- Measuring ----------------------------------------------------------------------------------------------------


def table(small: ServedSpace, large: ServedSpace, options: argparse.Namespace) -> str:
    lines = [
        f"Median of {options.rounds} (least to most), ms: {small.size}; {large.size}",
        "",
        "| page | as | small | large | large ÷ small | goal | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for page in pages():
        if options.only in page.name:
            lines.append(line(page, *alternate(page, small, large, options.rounds)))
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def alternate(page: Page, small: ServedSpace, large: ServedSpace, rounds: int) -> tuple[list[float], list[float]]:
    """Request both alternately and return their times in ms, without the WARM_UP first ones."""
    samples: tuple[list[float], list[float]] = ([], [])
    for _round in range(rounds + WARM_UP):
        for found, at in zip(samples, (small, large), strict=True):
            found.append(ask_ms(page, at))
    return samples[0][WARM_UP:], samples[1][WARM_UP:]


def ask_ms(page: Page, at: ServedSpace) -> float:
    begun = time.perf_counter()
    answer = at.sessions[page.role].get(f"{at.base}{page.path(at)}", timeout=300, allow_redirects=False)
    taken = time.perf_counter() - begun
    if answer.status_code != 200:
        raise SystemExit(f"{page.name} as {page.role}: {answer.status_code}")
    return taken * 1000


def line(page: Page, small: list[float], large: list[float]) -> str:
    ratio = median(large) / median(small)
    if page.most_ms:
        goal, is_reached = f"{page.most_ms:.0f} ms", median(large) <= page.most_ms
    else:
        goal, is_reached = f"{RATIO_GOAL} ×", ratio <= RATIO_GOAL
    reached = "reached" if is_reached else "**not reached**"
    return f"| {page.name} | {page.role} | {spread(small)} | {spread(large)} | {ratio:.2f} | {goal} | {reached} |"


def spread(found: list[float]) -> str:
    return f"{median(found):,.1f} ({min(found):,.1f} to {max(found):,.1f})"


def csv(served: ServedSpace, rows: int) -> str:
    """Measure an export of about that many rows, or of all if there are fewer."""
    share = min(1.0, rows / max(served.size.rows, 1))
    today = datetime.now(UTC).date()
    days = max(1, round(served.size.days * share))
    path = _path("/console/usage.csv", _period(today - timedelta(days=days), today))
    with watched(served.pid) as grown:
        begun = time.perf_counter()
        answer = served.sessions["manager"].get(f"{served.base}{path}", timeout=900, stream=True)
        if answer.status_code == 404:
            return "CSV: missing (404)"
        chunks = answer.iter_content(1 << 16)
        head = next(chunks)
        first_s = time.perf_counter() - begun
        lines = head.count(b"\n") + sum(chunk.count(b"\n") for chunk in chunks)
        taken_s = time.perf_counter() - begun
    return (
        f"CSV of {lines:,} lines in {taken_s:.1f} s: first byte after {first_s:.2f} s (goal {FIRST_BYTE_GOAL_S} s), "
        f"the serving process grew by {grown():.1f} MB at most (goal {GROWTH_GOAL_MB} MB)"
    )


@contextmanager
def watched(pid: int) -> Iterator[Callable[[], float]]:
    """Sample the memory of a process and its children; yield a function that returns the largest growth in MB."""
    before, most, ended = memory_mb(pid), 0.0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.05):
            most = max(most, memory_mb(pid) - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: most
    finally:
        ended.set()
        watcher.join()


def memory_mb(pid: int) -> float:
    first = psutil.Process(pid)
    return sum(float(process.memory_info().rss) for process in [first, *first.children(recursive=True)]) / 1e6


if __name__ == "__main__":
    main()
