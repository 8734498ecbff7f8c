"""Upstreams that break off, die, hang, drip or refuse: nothing is charged that was not delivered, and nobody hangs."""

from __future__ import annotations

import time

from benchmarks.drills.asking import Answer, Ask, Load, ask_at_once, tally
from benchmarks.drills.bad_upstreams import DRIPPED, DRIPPED_USAGE, dripping, hanging, refusing
from benchmarks.drills.books import check_books, delivered_nanos, rows_of
from benchmarks.drills.processes import DemoUpstream
from benchmarks.drills.stage import BY_TOKEN, Stage, mixed
from relay.pricing import cost_nanos
from tests.postgres import free_port
from usage.models import UsageRecord

CROWD = 64
TIMEOUT_S = 2
GIVEN_UP_WITHIN_S = TIMEOUT_S + 2.0


def run(stage: Stage, times: int) -> None:
    upstream = stage.upstream()
    with hanging() as hangs, dripping() as drips, refusing() as refuses:
        scene = Scene(stage)
        scene.offer("plain", upstream.url)
        scene.offer("impatient", upstream.url)
        scene.offer("hangs", hangs)
        scene.offer("drips", drips)
        scene.offer("one is dead", f"http://127.0.0.1:{free_port()}/v1", upstream.url)
        scene.offer("one refuses", refuses, upstream.url)
        scene.offer("one hangs", hangs, upstream.url)
        scene.base = stage.relay().base
        for _ in range(times):
            _break_off(scene)
            _hang(scene)
            _drip(scene)
            _fail_over(scene)
    _die(scene, upstream)
    check_books(stage.report, stage.space, scene.answers)


class Scene:
    """One member's key and a model for each kind of trouble; `answers` are all that came."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.report = stage.report
        self.answers: list[Answer] = []
        self.models: dict[str, str] = {}
        self.key = stage.key(stage.member())
        self.base = ""

    def offer(self, kind: str, *urls: str) -> None:
        timeout_s = 600 if kind == "plain" else TIMEOUT_S
        self.models[kind] = self.stage.offer(kind.replace(" ", "-"), BY_TOKEN, *urls, timeout_s=timeout_s)

    def at_once(self, what: str, kind: str, content: str = "Hello", *, is_stream: bool = False) -> list[Answer]:
        asked = Ask(base=self.base, key=self.key, model=self.models[kind], content=content, is_stream=is_stream)
        answers = ask_at_once([asked] * CROWD)
        self.answers += answers
        self.report.say(f"{what}: {tally(answers)}; the slowest took {max(one.seconds for one in answers):.1f} s")
        return answers

    def charged(self, answers: list[Answer]) -> list[tuple[Answer, list[tuple[int, str]]]]:
        """Each answer with (cost, code) of its rows."""
        rows = rows_of(self.stage.space, answers)
        return [(one, [_told(row) for row in found]) for one, found in zip(answers, rows, strict=True)]

    def check_free(self, rule: str, answers: list[Answer]) -> None:
        found = [
            f"{one.outcome}: {told}"
            for one, told in self.charged(answers)
            if one.outcome != "502 upstream_error" or [cost for cost, _ in told] != [0]
        ]
        self.report.check(rule, found)


def _told(row: UsageRecord) -> tuple[int, str]:
    return row.cost, row.code


def _break_off(scene: Scene) -> None:
    streams = scene.at_once("cut in mid-stream", "plain", "demo:break=12 demo:tokens=40", is_stream=True)
    wrong = [
        f"{one.outcome} of {len(one.text)} bytes: {told} for {delivered_nanos(one)}"
        for one, told in scene.charged(streams)
        if told != [(delivered_nanos(one), "upstream_broke_off")] or one.is_done or not one.text
    ]
    scene.report.check("a stream that breaks off is charged to the nano an estimate of what was delivered", wrong)
    halves = scene.at_once("cut in the middle of the body", "plain", "demo:break=1")
    scene.check_free("an answer that breaks off is told 502 and costs nothing", halves)
    refusals = scene.at_once("refused by the upstream", "plain", "demo:error=503")
    scene.check_free("an upstream's 5xx is told 502 and costs nothing", refusals)


def _hang(scene: Scene) -> None:
    """One that takes the connection and says nothing, and one that thinks for too long."""
    hung = scene.at_once("never answered", "hangs") + scene.at_once("answered too late", "impatient", "demo:delay=30")
    scene.check_free("an upstream that hangs is told 502 and costs nothing", hung)
    slow = [f"{one.seconds:.1f} s" for one in hung if one.seconds > GIVEN_UP_WITHIN_S]
    scene.report.check(f"with a timeout of {TIMEOUT_S} s it is given up within {GIVEN_UP_WITHIN_S:.0f} s", slow)


def _drip(scene: Scene) -> None:
    """A stream may take longer in all than the timeout, as long as something comes; and may be torn anywhere."""
    content = "demo:pace=1.2 demo:tokens=6"
    slow = scene.at_once("slower in all than the timeout", "impatient", content, is_stream=True)
    scene.report.check("a slow stream comes whole", [one.outcome for one in slow if one.outcome != "200 stream"])
    torn = scene.at_once("seven bytes at a time", "drips", is_stream=True)
    scene.report.check("torn events come as they were sent", [one.text for one in torn if one.text != DRIPPED])
    cost = cost_nanos(BY_TOKEN, DRIPPED_USAGE)
    wrong = [told for _, told in scene.charged(torn) if told != [(cost, "")]]
    scene.report.check("and their usage is charged to the nano", wrong)


def _fail_over(scene: Scene) -> None:
    for kind in ("one is dead", "one refuses", "one hangs"):
        both = scene.at_once(kind, kind) + scene.at_once(f"{kind}, streams", kind, "demo:tokens=5", is_stream=True)
        wrong = [one.outcome for one in both if one.outcome not in ("200", "200 stream")]
        scene.report.check(f"{kind}: the other serves every request", wrong)
        slow = [f"{one.seconds:.1f} s" for one in both if one.seconds > GIVEN_UP_WITHIN_S]
        scene.report.check(f"{kind}: within {GIVEN_UP_WITHIN_S:.0f} s", slow)


def _die(scene: Scene, upstream: DemoUpstream) -> None:
    with Load(mixed(scene.base, [scene.key], scene.models["plain"], scene.models["impatient"])) as load:
        for _ in range(3):
            time.sleep(1.5)
            upstream.kill()
            time.sleep(1)
            upstream.start()
        # What was in flight when it came back may still be told of its death.
        time.sleep(1)
        back = len(load.answers)
        time.sleep(2)
    scene.answers += load.answers
    scene.report.say(f"killed and started again three times, {CROWD} in flight: {tally(load.answers)}")
    allowed = {"200", "200 stream", "200 stream, cut", "502 upstream_error"}
    strange = [one.outcome for one in load.answers if one.outcome not in allowed]
    scene.report.check("an upstream that dies is told 502, or cuts its streams", strange)
    after = load.answers[back:]
    wrong = [one.outcome for one in after if one.outcome not in ("200", "200 stream")]
    scene.report.check("when it is back, every request is served", wrong or ([] if after else ["nothing came"]))
