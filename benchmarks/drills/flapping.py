"""An upstream that fails and recovers again and again under load, alone and before a healthy one."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from benchmarks.drills.asking import Answer, Ask, BackgroundLoad, tally
from benchmarks.drills.books import check_books
from benchmarks.drills.provider import SERVED, TOLD_AS_FAILURE, billing, check_bills
from benchmarks.drills.stage import BY_TOKEN, Stage
from tests.relay.provider.faults import FAULTS
from tests.relay.provider.server import FLAPPING

# Each fault lasts so long, and the health after it.
FLAP_S = 0.4


def run(stage: Stage, times: int) -> None:
    answers: list[Answer] = []
    with billing() as provider:
        failing, healthy = provider.urls(FLAPPING)
        alone = stage.offer("alone", BY_TOKEN, failing, timeout_s=10)
        twice = stage.offer("twice", BY_TOKEN, failing, healthy, timeout_s=10)
        provider.sell(alone, twice)
        base, key = stage.relay().base, stage.key(stage.member())
        for model in (alone, twice):
            with BackgroundLoad(_streams_and_others(base, key, model), in_flight=32) as load:
                for fault in itertools.chain.from_iterable([FAULTS] * times):
                    provider.fault = fault
                    time.sleep(FLAP_S)
                    provider.fault = ""
                    time.sleep(FLAP_S)
            answers += load.answers
            stage.report.say(f"{model}: {tally(load.answers)}")
            _check(stage, load.answers, is_alone=model == alone)
        check_books(stage.report, stage.space, answers)
        check_bills(stage, provider)


def _streams_and_others(base: str, key: str, model: str) -> Callable[[int], Ask]:
    return lambda number: Ask(base=base, key=key, model=model, is_stream=number % 2 == 0)


def _check(stage: Stage, answers: list[Answer], *, is_alone: bool) -> None:
    wanted = (*SERVED, *TOLD_AS_FAILURE) if is_alone else SERVED
    wrong = [one.outcome for one in answers if not one.outcome.startswith(wanted) or one.outcome.endswith(", cut")]
    rule = "a flapping upstream is told as a failure" if is_alone else "behind a flapping upstream the other serves"
    stage.report.check(rule, wrong)
    came_back = any(one.outcome.startswith(SERVED) for one in answers)
    stage.report.check("it is asked again when it is back", [] if came_back else ["never"])
