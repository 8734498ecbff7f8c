"""SIGKILL for the relay's worker under load: answered requests are charged, others swept, none is charged twice."""

from __future__ import annotations

import random
import threading
import time

from benchmarks.drills.asking import Answer, Ask, BackgroundLoad, ask, ask_at_once, tally
from benchmarks.drills.books import SWEEP_S, SWEPT, check_books, delivered_nanos, overdue, rows_of
from benchmarks.drills.processes import wait_until
from benchmarks.drills.stage import BY_TOKEN, FIXED, Stage, mixed

# Longer than the interval between renewals, so that a hold has recorded an accrued cost.
RENEWED_S = 7.0
RESPAWN_WITHIN_S = 20.0
TOKENS = 500


def run(stage: Stage, times: int) -> None:
    upstream = stage.upstream()
    models = [stage.offer("fixed", FIXED, upstream.url), stage.offer("by-token", BY_TOKEN, upstream.url)]
    keys = [stage.key(stage.member()) for _ in range(8)]
    answers = _alone(stage, keys, models, times)
    cut = _renewed(stage, keys[0], models[1])
    answers += cut
    answers += _beside_another(stage, keys, models, max(1, times // 5))
    check_books(stage.report, stage.space, answers, has_deaths=True)
    _check_renewed(stage, cut)
    _check_outcomes(stage, answers)


def _alone(stage: Stage, keys: list[str], models: list[str], times: int) -> list[Answer]:
    relay = stage.relay()
    with BackgroundLoad(mixed(relay.base, keys, *models)) as load:
        for _ in range(times):
            _warm_up(load)
            relay.kill_worker()
        # The last server needs this long to sweep the holds that the killed ones left.
        time.sleep(SWEEP_S)
        late = overdue(stage.space)
    relay.close()
    stage.report.say(f"one worker, killed and replaced {times} times, 64 in flight: {tally(load.answers)}")
    stage.report.check(f"{SWEEP_S} s after the last no hold has outlived its expiry", late)
    return load.answers


def _warm_up(load: BackgroundLoad) -> None:
    load.wait_for_served(load.in_flight)
    time.sleep(random.uniform(0, 0.5))


def _renewed(stage: Stage, key: str, model: str) -> list[Answer]:
    relay = stage.relay()
    content = f"demo:pace=0.1 demo:tokens={TOKENS}"
    request = Ask(base=relay.base, key=key, model=model, content=content, is_stream=True, output_tokens=TOKENS)
    answers: list[Answer] = []
    crowd = threading.Thread(target=lambda: answers.extend(ask_at_once([request] * 8)))
    crowd.start()
    time.sleep(RENEWED_S)
    relay.kill()
    crowd.join()
    stage.report.say(f"long streams, killed after {RENEWED_S:.0f} s: {tally(answers)}")
    return answers


def _beside_another(stage: Stage, keys: list[str], models: list[str], times: int) -> list[Answer]:
    relay = stage.relay(workers=2)
    silent: list[str] = []
    with BackgroundLoad(mixed(relay.base, keys, *models)) as load:
        for number in range(1, times + 1):
            _warm_up(load)
            relay.kill_worker()
            tries = [_try_later(Ask(base=relay.base, key=keys[0], model=models[0])) for _ in range(4)]
            silent += [f"kill {number}: {tally(tries)}"] if any(one.status != 200 for one in tries) else []
            load.answers.extend(tries)
            wait_until(lambda: len(relay.workers()) == 2, timeout_s=RESPAWN_WITHIN_S)
    stage.report.say(f"two workers, one of them killed {times} times, 64 in flight: {tally(load.answers)}")
    stage.report.check("the other worker goes on answering", silent)
    return load.answers


def _try_later(request: Ask) -> Answer:
    # A killed worker's connections are refused only after a moment.
    time.sleep(1)
    return ask(request)


def _check_renewed(stage: Stage, cut: list[Answer]) -> None:
    """Run after the sweep: it charges the cost of the last renewal, which is at most that of what was delivered."""
    wrong = []
    for answer, rows in zip(cut, rows_of(stage.space, cut), strict=True):
        charges = [(row.code, row.cost) for row in rows]
        if [code for code, _ in charges] != [SWEPT] or not 0 < charges[0][1] <= delivered_nanos(answer):
            wrong.append(f"{charges}, delivered {len(answer.text)} bytes: {delivered_nanos(answer)} nanos")
    stage.report.check("a swept stream is charged by its last renewal, at most what was delivered", wrong)


def _check_outcomes(stage: Stage, answers: list[Answer]) -> None:
    allowed = {"200", "200, cut", "200 stream", "200 stream, cut", "no answer"}
    stage.report.check(
        "answered or cut off, never an error", [one.outcome for one in answers if one.outcome not in allowed]
    )
