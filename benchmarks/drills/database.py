"""PostgreSQL is restarted, crashed and stopped under load: requests are refused in bounded time, and books balance."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.db import connection

from benchmarks.drills.asking import Answer, BackgroundLoad, tally
from benchmarks.drills.books import check_books
from benchmarks.drills.postgres import Postgres
from benchmarks.drills.processes import RelayServer, status_of, wait_until
from benchmarks.drills.stage import BY_TOKEN, FIXED, Browser, Stage, mixed

AWAY_S = 10.0
# A refusal takes as long as an attempt to connect. A response may also wait for the database to return.
REFUSED_WITHIN_S = 6.0
ANSWERED_WITHIN_S = AWAY_S + 12.0
BACK_WITHIN_S = 5.0


def run(stage: Stage, times: int) -> None:
    assert stage.postgres is not None
    upstream = stage.upstream()
    models = [stage.offer("fixed", FIXED, upstream.url), stage.offer("by-token", BY_TOKEN, upstream.url)]
    keys = [stage.key(stage.member()) for _ in range(8)]
    relay = stage.relay()
    slow = []
    with BackgroundLoad(mixed(relay.base, keys, *models)) as load:
        for number in range(times):
            time.sleep(2)
            slow += _restart(stage, stage.postgres, relay, is_crash=number % 2 == 1)
        stage.report.say(f"restarted {times} times, fast and crash in turn: {tally(load.answers)}")
        visits = _take_away(stage, stage.postgres, relay)
        time.sleep(2)
    connection.close()
    stage.report.say(f"all of it, 64 in flight: {tally(load.answers)}")
    stage.report.check(f"the relay is back within {BACK_WITHIN_S:.0f} s of its database", slow)
    _check_answers(stage, load.answers)
    _check_visits(stage, visits)
    check_books(stage.report, stage.space, load.answers, has_deaths=True)


def _restart(stage: Stage, postgres: Postgres, relay: RelayServer, *, is_crash: bool) -> list[str]:
    postgres.stop(is_crash=is_crash)
    postgres.start()
    return _return(stage, relay, "crash" if is_crash else "fast restart")


def _return(stage: Stage, relay: RelayServer, what: str) -> list[str]:
    started = time.monotonic()
    is_back = wait_until(lambda: status_of(f"{relay.base}/readyz") == 200, timeout_s=30)
    took_s = time.monotonic() - started
    stage.report.say(f"{what}: ready again after {took_s:.1f} s")
    return [] if is_back and took_s <= BACK_WITHIN_S else [f"{what}: {took_s:.1f} s"]


@dataclass
class Visits:
    """Responses of pages while the database was down: a count for each (path, status), and the longest time."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    slowest_s: float = 0.0


def _take_away(stage: Stage, postgres: Postgres, relay: RelayServer) -> Visits:
    browser = Browser(relay.base, stage.manager_name)
    visits = Visits()
    postgres.stop()
    with _visiting(visits, relay, browser):
        time.sleep(AWAY_S)
    postgres.start()
    _return(stage, relay, f"away for {AWAY_S:.0f} s")
    stage.report.say(f"pages meanwhile: {_counts(visits)}; the slowest took {visits.slowest_s:.1f} s")
    return visits


@contextmanager
def _visiting(visits: Visits, relay: RelayServer, browser: Browser) -> Iterator[None]:
    is_over = threading.Event()

    def visit() -> None:
        while not is_over.wait(0.2):
            for path in ("/healthz", "/readyz", "/login/", "/space/users/"):
                started = time.monotonic()
                status = browser.get(path).status_code if path == "/space/users/" else status_of(relay.base + path)
                visits.slowest_s = max(visits.slowest_s, time.monotonic() - started)
                visits.statuses[path, status] += 1

    visitor = threading.Thread(target=visit, name="visitor")
    visitor.start()
    yield
    is_over.set()
    visitor.join()


def _counts(visits: Visits) -> str:
    return ", ".join(f"{path} {status}: {count}" for (path, status), count in sorted(visits.statuses.items()))


def _check_answers(stage: Stage, answers: list[Answer]) -> None:
    check = stage.report.check
    allowed = {"200", "200 stream", "503 unavailable"}
    strange = Counter(answer.outcome for answer in answers if answer.outcome not in allowed)
    check("every request is answered completely or with 503 unavailable", sorted(strange.items()))
    refused = [answer for answer in answers if answer.status not in (0, 200)]
    check("some were refused at all", [] if refused else ["the fault was not felt"])
    wrong = [answer.headers for answer in refused if answer.headers.get("x-should-retry") != "true"]
    check("a refusal says that trying again helps", wrong)
    slow = [f"{one.seconds:.1f} s" for one in refused if one.seconds > REFUSED_WITHIN_S]
    check(f"a refusal takes {REFUSED_WITHIN_S:.0f} s at most", slow)
    slow = [f"{one.outcome}: {one.seconds:.1f} s" for one in answers if one.seconds > ANSWERED_WITHIN_S]
    check(f"an answer takes {ANSWERED_WITHIN_S:.0f} s at most", slow)


def _check_visits(stage: Stage, visits: Visits) -> None:
    check = stage.report.check
    rows = visits.statuses
    wrong = [row for row in rows if row[0] == "/healthz" and row[1] != 200]
    check("/healthz says 200 while the database is away", wrong)
    check("/readyz says 503", [row for row in rows if row[0] == "/readyz" and row[1] != 503])
    pages = [row for row in rows if row[0] in ("/login/", "/space/users/")]
    check("pages answer 200 or 503, never 500", [row for row in pages if row[1] not in (200, 503)])
    slow = [f"{visits.slowest_s:.1f} s"] if visits.slowest_s > REFUSED_WITHIN_S else []
    check(f"no page takes longer than {REFUSED_WITHIN_S:.0f} s", slow)
