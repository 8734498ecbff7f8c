"""Transfers in both directions between pool and members, and deleted members, during charging: there is no deadlock."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from accounts.models import User
from benchmarks.drills.asking import Answer, BackgroundLoad, tally
from benchmarks.drills.books import check_books
from benchmarks.drills.stage import BY_TOKEN, FIXED, Browser, Stage, mixed
from quotas.models import Wallet

ROUND_S = 20.0
MEMBERS = 6
LEAVERS = 12
EDITORS = 3


def run(stage: Stage, times: int) -> None:
    upstream = stage.upstream()
    models = [stage.offer("fixed", FIXED, upstream.url), stage.offer("by-token", BY_TOKEN, upstream.url)]
    bases = [stage.relay().base, stage.relay().base]
    for _ in range(times):
        _round(stage, bases, models)


def _round(stage: Stage, bases: list[str], models: list[str]) -> None:
    members = [stage.member(usd=100) for _ in range(MEMBERS)]
    leavers = [stage.member(usd=100) for _ in range(LEAVERS)]
    keys = [stage.key(owner) for owner in [stage.manager, *members, *leavers]]
    statuses: Counter[str] = Counter()
    seen = len(stage.postgres.log) if stage.postgres else 0
    one, other = (BackgroundLoad(mixed(base, keys, *models), in_flight=32) for base in bases)
    with one, other, _editing(stage, bases, members, statuses):
        _delete(stage, bases[0], leavers, statuses)
    answers = one.answers + other.answers
    stage.report.say(f"edits and deletions: {dict(sorted(statuses.items()))}")
    stage.report.say(f"charging through two relays meanwhile, 64 in flight: {tally(answers)}")
    _check(stage, answers, statuses, seen)
    check_books(stage.report, stage.space, answers)
    stage.report.check("not a nano is made or lost", _lost(stage))


@contextmanager
def _editing(stage: Stage, bases: list[str], members: list[User], statuses: Counter[str]) -> Iterator[None]:
    is_over = threading.Event()

    def edit(browser: Browser) -> Callable[[], None]:
        def work() -> None:
            while not is_over.is_set():
                member = random.choice(members)
                remaining = str(random.randint(50, 150))
                answer = browser.post(f"/space/users/{member.number}/edit/", remaining=remaining)
                statuses[f"edit {answer.status_code}"] += 1

        return work

    browsers = [Browser(bases[number % len(bases)], stage.manager_name) for number in range(EDITORS)]
    threads = [threading.Thread(target=edit(browser)) for browser in browsers]
    for thread in threads:
        thread.start()
    yield
    is_over.set()
    for thread in threads:
        thread.join()


def _delete(stage: Stage, base: str, leavers: list[User], statuses: Counter[str]) -> None:
    browser = Browser(base, stage.manager_name)
    for leaver in leavers:
        time.sleep(ROUND_S / LEAVERS)
        answer = browser.post(f"/space/users/{leaver.number}/delete/", confirm=leaver.username)
        statuses[f"delete {answer.status_code}"] += 1


def _check(stage: Stage, answers: list[Answer], statuses: Counter[str], seen: int) -> None:
    check = stage.report.check
    allowed = {"200", "200 stream", "401 invalid_api_key"}
    strange = Counter(answer.outcome for answer in answers if answer.outcome not in allowed)
    check("every request is served, or its key is gone with its owner", sorted(strange.items()))
    wrong = [(deed, count) for deed, count in statuses.items() if deed not in ("edit 303", "edit 422", "delete 303")]
    check("every edit and deletion is done, or refused with its reason", wrong)
    check(
        "edits and deletions happened at all",
        [] if statuses["edit 303"] and statuses["delete 303"] else [dict(statuses)],
    )
    if stage.postgres:
        lines = [line for line in stage.postgres.log[seen:].splitlines() if "ERROR:  deadlock detected" in line]
        check("PostgreSQL's log knows of no deadlock", lines)


def _lost(stage: Stage) -> list[str]:
    pool = Wallet.objects.get(space=stage.space, kind=Wallet.Kind.POOL)
    members = Wallet.objects.filter(space=stage.space, kind=Wallet.Kind.MEMBER)
    theirs = sum(wallet.total for wallet in members)
    return [f"{pool.allocated} allocated, {theirs} received"] if pool.allocated != theirs else []
