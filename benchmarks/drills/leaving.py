"""Clients that leave: the upstream's answer is read on without them, and what it used is paid within the hold."""

from __future__ import annotations

import random
from dataclasses import replace
from uuid import UUID

from benchmarks.drills.asking import Answer, Ask, ask, ask_at_once, tally
from benchmarks.drills.books import SETTLING_S, check_books, delivered_nanos, rows_of
from benchmarks.drills.processes import wait_until
from benchmarks.drills.stage import BY_TOKEN, Stage
from usage.models import UsageRecord

CROWD = 40
# Streams are read on for 10 s after their client left: the short ones end within that time, the long ones do not.
SHORT = "demo:pace=0.05 demo:tokens=100"
LONG = "demo:pace=0.25 demo:tokens=200"
MARKER = b"language"


def run(stage: Stage, times: int) -> None:
    scene = Scene(stage)
    for _ in range(times):
        scene.leave_before_the_answer()
        scene.leave_at_a_marker()
        scene.leave_a_long_stream()
        scene.leave_any_time()
    check_books(stage.report, stage.space, scene.answers)


class Scene:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.report = stage.report
        self.answers: list[Answer] = []
        self._key_ids: dict[str, UUID] = {}
        self.model = stage.offer("by-token", BY_TOKEN, stage.upstream().url)
        self.base = stage.relay().base

    def _ask(self, content: str, *, is_stream: bool = False, output_tokens: int = 40) -> Ask:
        """A request with a key of its own, by which `_rows` finds what became of all that are made from it."""
        row, key = self.stage.key_row(self.stage.member())
        self._key_ids[key] = row.pk
        return Ask(
            base=self.base,
            key=key,
            model=self.model,
            content=content,
            is_stream=is_stream,
            output_tokens=output_tokens,
        )

    def _usual_nanos(self, patient: Ask) -> int:
        """What the same request costs a client who stays."""
        stayed = ask(patient)
        self.answers.append(stayed)
        wait_until(lambda: bool(rows_of(self.stage.space, [stayed])[0]), timeout_s=SETTLING_S)
        return rows_of(self.stage.space, [stayed])[0][0].cost

    def _rows(self, key: str, count: int) -> list[UsageRecord]:
        """The rows of one of our keys, when there are so many."""
        found = UsageRecord.objects.filter(space=self.stage.space, key_id=self._key_ids[key])
        wait_until(lambda: found.count() >= count, timeout_s=SETTLING_S)
        return list(found)

    def _check_paid_as_told(self, rule: str, key: str, count: int, usual: int) -> None:
        """All `count` requests of the key were paid, and the one of the client who stayed."""
        rows = self._rows(key, count + 1)
        wrong = [f"{row.status} {row.code}: {row.cost} for {usual}" for row in rows if row.cost != usual]
        wrong += [f"{len(rows)} rows for {count + 1} requests"] if len(rows) != count + 1 else []
        self.report.check(rule, wrong)

    def leave_before_the_answer(self) -> None:
        patient = self._ask("demo:delay=3 demo:tokens=30")
        usual = self._usual_nanos(patient)
        asks = [replace(patient, disconnect_after_s=1.0) for _ in range(CROWD)]
        answers = ask_at_once(asks)
        self.report.say(f"{CROWD} left a second after they asked: {tally(answers)}")
        self.report.check("nobody was answered", [one.outcome for one in answers if one.status])
        self._check_paid_as_told("who leaves before the answer pays for it, 40 at once too", patient.key, CROWD, usual)

    def leave_at_a_marker(self) -> None:
        patient = self._ask(SHORT, is_stream=True, output_tokens=100)
        usual = self._usual_nanos(patient)
        asks = [replace(patient, until=MARKER) for _ in range(CROWD)]
        answers = ask_at_once(asks)
        self.answers += answers
        self.report.say(f"{CROWD} closed their streams at a marker: {tally(answers)}")
        self._check_paid_as_told("who closes a stream that ends soon pays for all of it", patient.key, CROWD, usual)

    def leave_a_long_stream(self) -> None:
        """Such a stream is cut after the grace, so stopping it stops its cost."""
        patient = self._ask(LONG, is_stream=True, output_tokens=200)
        asks = [replace(patient, until=MARKER) for _ in range(CROWD)]
        answers = ask_at_once(asks)
        self.answers += answers
        self.report.say(f"{CROWD} closed long streams: {tally(answers)}")
        self._rows(patient.key, CROWD)
        wrong = [
            f"{answer.outcome}: {[(row.cost, row.held) for row in rows]} for {delivered_nanos(answer)} received"
            for answer, rows in zip(answers, rows_of(self.stage.space, answers), strict=True)
            if len(rows) != 1 or not delivered_nanos(answer) <= rows[0].cost <= rows[0].held
        ]
        self.report.check("who closes a long stream pays what was delivered or more, and at most the hold", wrong)

    def leave_any_time(self) -> None:
        """Clients disconnect at about the time of the response; the upstream answered, so each request is paid."""
        patient = self._ask("demo:delay=0.3 demo:tokens=30")
        usual = self._usual_nanos(patient)
        stayed = ask_at_once([patient] * CROWD)
        self.answers += stayed
        asks = [replace(patient, disconnect_after_s=one.seconds * random.uniform(0.7, 1.3)) for one in stayed]
        answers = ask_at_once(asks)
        self.answers += answers
        self.report.say(f"{CROWD} left around the moment of the answer: {tally(answers)}")
        self._check_paid_as_told("it is paid as a whole answer", patient.key, 2 * CROWD, usual)
