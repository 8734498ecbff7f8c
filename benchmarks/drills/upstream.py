"""Upstreams that break off, die, hang, drip or refuse: only delivered output is charged, and no client hangs."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.drills.asking import Answer, Ask, BackgroundLoad, ask, ask_at_once, tally
from benchmarks.drills.bad_upstreams import DRIPPED, DRIPPED_USAGE, dripping, hanging, refusing
from benchmarks.drills.books import HOLD_LIFETIME_S, check_books, delivered_nanos, rows_of, token_nanos
from benchmarks.drills.processes import DemoUpstream
from benchmarks.drills.stage import BY_TOKEN, Stage, mixed
from tests.postgres import free_port
from usage.models import UsageRecord

CROWD = 64
TIMEOUT_S = 2
# Twice the interval between a hold's renewals.
LONG_S = 12


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
        scene.measure()
        for _ in range(times):
            _break_off(scene)
            _hang(scene)
            _drip(scene)
            _take_long(scene)
            _fail_over(scene)
    _die(scene, upstream)
    check_books(stage.report, stage.space, scene.answers)


class Scene:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.report = stage.report
        self.answers: list[Answer] = []
        self.models: dict[str, str] = {}
        self.key = stage.key(stage.member())
        self.base = ""
        self.usual_s = 0.0

    def offer(self, kind: str, *urls: str) -> None:
        timeout_s = 600 if kind == "plain" else TIMEOUT_S
        self.models[kind] = self.stage.offer(kind.replace(" ", "-"), BY_TOKEN, *urls, timeout_s=timeout_s)

    def at_once(self, what: str, kind: str, content: str = "Hello", *, is_stream: bool = False) -> list[Answer]:
        request = Ask(base=self.base, key=self.key, model=self.models[kind], content=content, is_stream=is_stream)
        answers = ask_at_once([request] * CROWD)
        self.answers += answers
        self.report.say(f"{what}: {tally(answers)}; the slowest took {max(one.seconds for one in answers):.1f} s")
        return answers

    def charged(self, answers: list[Answer]) -> list[tuple[Answer, list[tuple[int, str]]]]:
        rows = rows_of(self.stage.space, answers)
        return [(one, [_cost_and_code(row) for row in found]) for one, found in zip(answers, rows, strict=True)]

    def measure(self) -> None:
        self.usual_s = max(one.seconds for one in self.at_once("nothing wrong", "plain"))

    def check_quick(self, rule: str, answers: list[Answer]) -> None:
        most_s = TIMEOUT_S + 2 * self.usual_s + 1
        slow = [f"{one.seconds:.1f} s" for one in answers if one.seconds > most_s]
        self.report.check(f"{rule} within {most_s:.1f} s, with a timeout of {TIMEOUT_S} s", slow)

    def check_free(self, rule: str, answers: list[Answer]) -> None:
        found = [
            f"{one.outcome}: {charges}"
            for one, charges in self.charged(answers)
            if one.outcome != "502 upstream_error" or [cost for cost, _ in charges] != [0]
        ]
        self.report.check(rule, found)


def _cost_and_code(row: UsageRecord) -> tuple[int, str]:
    return row.cost, row.code


def _break_off(scene: Scene) -> None:
    streams = scene.at_once("cut in mid-stream", "plain", "demo:break=12 demo:tokens=40", is_stream=True)
    wrong = [
        f"{one.outcome} of {len(one.text)} bytes: {charges} for {delivered_nanos(one)}"
        for one, charges in scene.charged(streams)
        if charges != [(delivered_nanos(one), "upstream_broke_off")] or one.is_done
    ]
    wrong += [] if any(one.text for one in streams) else ["nothing was delivered at all"]
    scene.report.check("a stream that breaks off is charged to the nano an estimate of what was delivered", wrong)
    halves = scene.at_once("cut in the middle of the body", "plain", "demo:break=1")
    scene.check_free("an answer that breaks off is answered 502 and costs nothing", halves)
    refusals = scene.at_once("refused by the upstream", "plain", "demo:error=503")
    scene.check_free("an upstream's 5xx is answered 502 and costs nothing", refusals)


def _hang(scene: Scene) -> None:
    hung = scene.at_once("never answered", "hangs") + scene.at_once("answered too late", "impatient", "demo:delay=30")
    scene.check_free("an upstream that hangs is answered 502 and costs nothing", hung)
    scene.check_quick("an upstream that hangs is given up", hung)


def _drip(scene: Scene) -> None:
    """A stream may take longer than the timeout, which applies to each read. Events may be split across reads."""
    content = "demo:pace=1.2 demo:tokens=6"
    slow = scene.at_once("slower in all than the timeout", "impatient", content, is_stream=True)
    scene.report.check("a slow stream comes whole", [one.outcome for one in slow if one.outcome != "200 stream"])
    torn = scene.at_once("seven bytes at a time", "drips", is_stream=True)
    scene.report.check("torn events come as they were sent", [one.text for one in torn if one.text != DRIPPED])
    cost = token_nanos(DRIPPED_USAGE.input_tokens, DRIPPED_USAGE.output_tokens)
    wrong = [charges for _, charges in scene.charged(torn) if charges != [(cost, "")]]
    scene.report.check("and their usage is charged to the nano", wrong)


def _take_long(scene: Scene) -> None:
    """The hold is renewed while the request runs, streamed or not, so that no other request can spend its money."""
    for what, is_stream in (("an answer", False), ("a stream", True)):
        content = f"demo:delay={LONG_S}" if not is_stream else f"demo:pace=1 demo:tokens={LONG_S}"
        request = Ask(base=scene.base, key=scene.key, model=scene.models["plain"], content=content, is_stream=is_stream)
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(ask, request)
            time.sleep(LONG_S - 2)
            lives_s = [(hold.expires_at - hold.created_at).seconds for hold in scene.stage.space.holds.all()]
            scene.answers.append(waiting.result())
        scene.report.say(f"{what} that takes {LONG_S} s: {scene.answers[-1].outcome}, held for {lives_s} s")
        wrong = [f"{lives_s} s"] if max(lives_s, default=0) <= HOLD_LIFETIME_S else []
        scene.report.check(f"{what} that takes long has its hold renewed meanwhile", wrong)


def _fail_over(scene: Scene) -> None:
    for kind in ("one is dead", "one refuses", "one hangs"):
        both = scene.at_once(kind, kind) + scene.at_once(f"{kind}, streams", kind, "demo:tokens=5", is_stream=True)
        wrong = [one.outcome for one in both if one.outcome not in ("200", "200 stream")]
        scene.report.check(f"{kind}: the other serves every request", wrong)
        scene.check_quick(f"{kind}: the other's answer comes", both)


def _die(scene: Scene, upstream: DemoUpstream) -> None:
    with BackgroundLoad(mixed(scene.base, [scene.key], scene.models["plain"], scene.models["impatient"])) as load:
        for _ in range(3):
            time.sleep(1.5)
            upstream.kill()
            time.sleep(1)
            upstream.start()
        # Requests that were in flight when the upstream returned may still fail.
        load.wait_for_served(CROWD)
        back = len(load.answers)
        load.wait_for_served(CROWD)
    scene.answers += load.answers
    scene.report.say(f"killed and started again three times, {CROWD} in flight: {tally(load.answers)}")
    allowed = {"200", "200 stream", "200 stream, cut", "502 upstream_error"}
    strange = [one.outcome for one in load.answers if one.outcome not in allowed]
    scene.report.check("an upstream that dies is answered 502, or cuts its streams", strange)
    after = load.answers[back:]
    wrong = [one.outcome for one in after if one.outcome not in ("200", "200 stream")]
    scene.report.check("when it is back, every request is served", wrong or ([] if after else ["nothing came"]))
