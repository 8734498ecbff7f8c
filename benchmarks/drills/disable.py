"""Disabled keys, members and spaces: a running stream is completed and charged, and the next request is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.drills.asking import Answer, Ask, ask
from benchmarks.drills.books import SETTLING_S, check_books, rows_of
from benchmarks.drills.processes import wait_until
from benchmarks.drills.stage import BY_TOKEN, Browser, Stage
from quotas.spaces import set_suspended

STREAM = "demo:pace=0.1 demo:tokens=20"


@dataclass(frozen=True)
class Stop:
    name: str
    act: Callable[[], None]
    outcome: str


def run(stage: Stage, times: int) -> None:
    model = stage.offer("by-token", BY_TOKEN, stage.upstream().url)
    one, other = stage.relay().base, stage.relay().base
    answers: list[Answer] = []
    for number in range(times):
        # Disabled through one process; the next request goes to the same one and to the other alternately.
        request = Ask(base=(one, other)[number % 2], key="", model=model)
        manager = Browser(one, stage.manager_name)
        for key, stop in [*_own_acts(stage, one), *_managers_acts(stage, manager), *_operators_acts(stage)]:
            answers += _drill(stage, stop, replace(request, key=key))
    check_books(stage.report, stage.space, answers)


def _own_acts(stage: Stage, base: str) -> list[tuple[str, Stop]]:
    member = stage.member()
    own = Browser(base, member.username)
    disabled, key = stage.key_row(member)
    rotated, old_key = stage.key_row(member)
    disable = _post(own, f"/console/tokens/{disabled.number}/status/", enabled="false")
    rotate = _post(own, f"/console/tokens/{rotated.number}/rotate/", grace="none")
    return [
        (key, Stop("key disabled", disable, "401 key_disabled")),
        (old_key, Stop("key rotated without grace", rotate, "401 invalid_api_key")),
    ]


def _managers_acts(stage: Stage, manager: Browser) -> list[tuple[str, Stop]]:
    member, leaver = stage.member(), stage.member()
    disable = _post(manager, f"/space/users/{member.number}/status/", enabled="false")
    delete = _post(manager, f"/space/users/{leaver.number}/delete/", confirm=leaver.username)
    return [
        (stage.key(member), Stop("member disabled", disable, "403 account_disabled")),
        (stage.key(leaver), Stop("member deleted", delete, "401 invalid_api_key")),
    ]


def _operators_acts(stage: Stage) -> list[tuple[str, Stop]]:
    def suspend() -> None:
        set_suspended(space=stage.space, is_suspended=True, actor=None)

    return [(stage.key(stage.member()), Stop("space suspended", suspend, "403 space_suspended"))]


def _post(browser: Browser, path: str, **fields: str) -> Callable[[], None]:
    def act() -> None:
        answer = browser.post(path, **fields)
        assert answer.status_code in (200, 303), f"{path}: {answer.status_code}"

    return act


def _drill(stage: Stage, stop: Stop, request: Ask) -> list[Answer]:
    streamed: list[Answer] = []
    stream = replace(request, is_stream=True, content=STREAM)
    client = threading.Thread(target=lambda: streamed.append(ask(stream)))
    before = ask(request)
    client.start()
    time.sleep(0.8)
    stop.act()
    after = ask(request)
    client.join()
    set_suspended(space=stage.space, is_suspended=False, actor=None)
    stage.report.say(f"{stop.name}: {before.outcome}, then {after.outcome}; the stream {streamed[0].outcome}")
    _check(stage, stop, before, after, streamed[0])
    return [before, after, *streamed]


def _check(stage: Stage, stop: Stop, before: Answer, after: Answer, stream: Answer) -> None:
    wrong = [f"before {before.outcome}"] if before.outcome != "200" else []
    wrong += [f"after {after.outcome}"] if after.outcome != stop.outcome else []
    stage.report.check(f"{stop.name}: the very next request is answered {stop.outcome}", wrong)
    wait_until(lambda: bool(rows_of(stage.space, [stream])[0]), timeout_s=SETTLING_S)
    charges = [(row.status, row.code, row.cost > 0) for row in rows_of(stage.space, [stream])[0]]
    wrong = [f"{stream.outcome}: {charges}"] if (stream.outcome, charges) != ("200 stream", [(200, "", True)]) else []
    stage.report.check(f"{stop.name}: the stream that runs comes to its end and is charged", wrong)
