"""Clients that disconnect: what was delivered is charged, the rest is released, and no hold is left."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from benchmarks.drills.asking import Answer, Ask, ask_at_once, tally
from benchmarks.drills.books import SETTLING_S, check_books, delivered_nanos, rows_of, token_nanos
from benchmarks.drills.processes import wait_until
from benchmarks.drills.stage import BY_TOKEN, Stage
from usage.models import UsageRecord

CROWD = 300
TOKENS = 200


def run(stage: Stage, times: int) -> None:
    model = stage.offer("by-token", BY_TOKEN, stage.upstream().url)
    base = stage.relay().base
    answers: list[Answer] = []
    for _ in range(times):
        answers += _mid_stream(stage, base, model)
        answers += _before_the_answer(stage, base, model)
        answers += _any_time(stage, base, model)
    check_books(stage.report, stage.space, answers)
    _check_mid_stream(stage, [one for one in answers if one.ask.max_reads])


def _mid_stream(stage: Stage, base: str, model: str) -> list[Answer]:
    key = stage.key(stage.member())
    content = f"demo:pace=0.03 demo:tokens={TOKENS}"
    asks = [
        Ask(
            base=base,
            key=key,
            model=model,
            content=content,
            is_stream=True,
            output_tokens=TOKENS,
            max_reads=random.randint(1, 20),
        )
        for _ in range(CROWD)
    ]
    answers = ask_at_once(asks)
    stage.report.say(f"{CROWD} hung up in mid-stream: {tally(answers)}")
    return answers


def _check_mid_stream(stage: Stage, answers: list[Answer]) -> None:
    """Run after all holds have ended, when each answer has its row. More may have been sent than the client read."""
    half = token_nanos(0, TOKENS // 2)
    wrong = []
    for answer, rows in zip(answers, rows_of(stage.space, answers), strict=True):
        if [(row.code, row.is_estimated) for row in rows] != [("client_gone", True)]:
            wrong.append(f"{answer.outcome}: {[(row.status, row.code) for row in rows]}")
        elif not delivered_nanos(answer) <= rows[0].cost <= delivered_nanos(answer) + half:
            wrong.append(f"charged {rows[0].cost}, {delivered_nanos(answer)} were read")
    rule = "who hangs up in mid-stream is charged an estimate of what was delivered, and not the whole"
    stage.report.check(rule, wrong)


def _before_the_answer(stage: Stage, base: str, model: str) -> list[Answer]:
    row, key = stage.key_row(stage.member())
    asks = [
        Ask(base=base, key=key, model=model, content="demo:delay=3", is_stream=number % 2 == 0, disconnect_after_s=1.5)
        for number in range(CROWD // 3)
    ]
    answers = ask_at_once(asks)
    stage.report.say(f"{len(asks)} hung up before the answer: {tally(answers)}")
    report = stage.report
    report.check("nobody was answered", [one.outcome for one in answers if one.status])
    found = UsageRecord.objects.filter(space=stage.space, key_id=row.pk)
    wait_until(lambda: found.count() >= len(asks), timeout_s=SETTLING_S)
    counted = Counter(found.values_list("status", "code", "cost"))
    wrong = sorted(counted.items()) if counted != {(499, "client_gone", 0): len(asks)} else []
    report.check("who hangs up before the answer is charged nothing, and logged as 499", wrong)
    return answers


def _any_time(stage: Stage, base: str, model: str) -> list[Answer]:
    """Clients disconnect at about the time of the response: each request is charged either completely or not at all."""
    row, key = stage.key_row(stage.member())
    patient = Ask(base=base, key=key, model=model, content="demo:delay=0.3")
    usual = ask_at_once([patient] * CROWD)
    asks = [replace(patient, disconnect_after_s=random.choice(usual).seconds * random.uniform(0.5, 1.5)) for _ in usual]
    answers = ask_at_once(asks)
    stage.report.say(f"{CROWD} hung up around the moment of the answer: {tally(answers)}")
    found = UsageRecord.objects.filter(space=stage.space, key_id=row.pk)
    strange = [one for one in found.values_list("status", "code", "cost") if (one[0] == 200) != (one[2] > 0)]
    stage.report.check("it is charged as a whole answer or not at all", strange)
    return [*usual, *answers]
