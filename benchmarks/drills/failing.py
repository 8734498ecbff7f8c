"""Two upstreams of which the first fails in every way: the second serves, and only what it billed is paid."""

from __future__ import annotations

from benchmarks.drills.asking import Answer, Ask, ask_at_once, tally
from benchmarks.drills.books import check_books, rows_of
from benchmarks.drills.provider import SERVED, TOLD_AS_FAILURE, billing, check_bills
from benchmarks.drills.stage import BY_TOKEN, Stage
from tests.relay.provider.faults import FAULTS

CROWD = 32


def run(stage: Stage, times: int) -> None:
    answers: list[Answer] = []
    with billing() as provider:
        models = {
            (fault, count): stage.offer(
                f"{fault.replace(' ', '-')}-{count}", BY_TOKEN, *provider.urls(fault)[:count], timeout_s=10
            )
            for fault in FAULTS
            for count in (1, 2)
        }
        for model in models.values():
            provider.sell(model)
        base, key = stage.relay().base, stage.key(stage.member())
        for (fault, count), model in models.items():
            one = Ask(base=base, key=key, model=model, is_stream=FAULTS[fault].is_stream)
            found = ask_at_once([one] * (CROWD * times))
            answers += found
            stage.report.say(f"{fault}, {'alone' if count == 1 else 'then a healthy one'}: {tally(found)}")
            _check(stage, fault, found, is_alone=count == 1)
        check_books(stage.report, stage.space, answers)
        check_bills(stage, provider)


def _check(stage: Stage, fault: str, answers: list[Answer], *, is_alone: bool) -> None:
    wanted = TOLD_AS_FAILURE if is_alone else SERVED
    wrong = [one.outcome for one in answers if not one.outcome.startswith(wanted) or one.outcome.endswith(", cut")]
    stage.report.check(f"{fault}: {'told as a failure' if is_alone else 'the other serves every request'}", wrong)
    if is_alone:
        costs = [row.cost for rows in rows_of(stage.space, answers) for row in rows if row.cost]
        stage.report.check(f"{fault}: free", costs)
