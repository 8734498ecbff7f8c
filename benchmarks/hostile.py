"""Hostile bodies beside ordinary traffic: how much longer does everybody else wait? python -m benchmarks.hostile

Ordinary members ask at a steady pace and a manager reads the dashboard: first alone, then beside a member with $0 who
sends 19.5 MB bodies of the dearest shapes, then beside a stranger who sends 255 KB bodies with made-up keys, then
beside both.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from benchmarks import ours, peers
from benchmarks.database import postgresql
from benchmarks.hostile_clients import BODIES
from benchmarks.machine import machine
from benchmarks.peers import MODEL, Gateway
from benchmarks.processes import unwind_on_sigterm

if TYPE_CHECKING:
    from benchmarks.drills.stage import Browser

GOAL_MS = 50.0
PHASES = {
    "nobody hostile": (),
    "a member at $0, large bodies": ("member",),
    "a stranger, made-up keys": ("stranger",),
    "both": ("member", "stranger"),
}


@dataclass(frozen=True)
class Waits:
    """What one kind of client waited in a phase, in ms."""

    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, seconds: list[float]) -> Waits:
        percents = quantiles(seconds, n=100, method="inclusive")
        return cls(percents[49] * 1000, percents[98] * 1000, max(seconds) * 1000)

    def __str__(self) -> str:
        return f"{self.p50:.1f} / {self.p99:.1f} / {self.most:.1f}"


@dataclass(frozen=True)
class Phase:
    name: str
    relay: Waits
    dashboard: Waits
    attacks: dict[str, dict[str, int]]
    statuses: dict[str, int]


def main() -> None:
    options = _options()
    unwind_on_sigterm()
    print(machine())
    with ExitStack() as stack:
        upstream = stack.enter_context(peers.fake_upstream())
        database = stack.enter_context(postgresql())
        base = upstream.url.removesuffix("/chat/completions")
        gateway = stack.enter_context(ours.relay(base, database, members=options.clients))
        browser, penniless = _people(gateway)
        # The first requests of all kinds compile and connect.
        _phase("", (), gateway, browser, penniless, options, seconds=2)
        phases = [
            _phase(name, attackers, gateway, browser, penniless, options, seconds=options.seconds)
            for name, attackers in PHASES.items()
        ]
    print(report(phases, options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each phase")
    parser.add_argument("--clients", type=int, default=16, help="members who ask")
    parser.add_argument("--interval-s", type=float, default=0.2, help="between two requests of a member")
    parser.add_argument("--megabytes", type=float, default=19.5, help="size of the member's bodies")
    parser.add_argument("--kilobytes", type=float, default=255.0, help="size of the stranger's bodies")
    parser.add_argument("--bodies", nargs="+", choices=list(BODIES), default=list(BODIES))
    parser.add_argument("--pause-s", type=float, default=0.0, help="between two hostile bodies")
    return parser.parse_args()


def _people(gateway: Gateway) -> tuple[Browser, str]:
    """A manager who is signed in, and the key of a member of the same space who has nothing."""
    from django.core.management import call_command

    from accounts.keys import KeyTerms, create_key
    from accounts.models import User
    from benchmarks.drills.stage import PASSWORD, Browser
    from core.money import NANOS_PER_USD
    from quotas.members import create_member
    from quotas.spaces import create_space

    # Pages name their style sheets by the manifest that this writes.
    call_command("collectstatic", interactive=False, verbosity=0)
    space = create_space(
        name="Hostile", manager_username="hostile.manager", manager_password=PASSWORD, grant_nanos=NANOS_PER_USD
    )
    manager = User.objects.select_related("space").get(space=space, number=1)
    member = create_member(space=space, username="penniless", display_name="", password=PASSWORD, actor=manager)
    member = User.objects.select_related("space", "wallet").get(pk=member.pk)
    key = create_key(owner=member, terms=KeyTerms(name="hostile"))[1]
    return Browser(gateway.url.removesuffix("/v1/chat/completions"), manager.username), key


def _phase(
    name: str,
    attackers: tuple[str, ...],
    gateway: Gateway,
    browser: Browser,
    penniless: str,
    options: argparse.Namespace,
    *,
    seconds: float,
) -> Phase:
    plans = {
        "member": {"key": penniless, "bytes": int(options.megabytes * 1_000_000)},
        "stranger": {"key": "", "bytes": int(options.kilobytes * 1_000)},
    }
    same = {"url": gateway.url, "bodies": options.bodies, "pause_s": options.pause_s}
    with ExitStack() as stack:
        running = {who: stack.enter_context(_attacking({**same, **plans[who]})) for who in attackers}
        reader = stack.enter_context(DashboardReader(browser))
        asked = _ask(gateway, options, seconds)
    attacks = {who: json.loads(found)["statuses"] for who, [found] in running.items()}
    return Phase(name, Waits.of(asked["latencies_s"]), Waits.of(reader.waits_s), attacks, asked["statuses"])


def _ask(gateway: Gateway, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    message = {"role": "user", "content": "What is the weather like in Lisbon?"}
    plan = {
        "url": gateway.url,
        "keys": [headers["authorization"].removeprefix("Bearer ") for headers in gateway.headers],
        "body": {"model": MODEL, "messages": [message], "max_tokens": 20},
        "interval_s": options.interval_s,
        "seconds": seconds,
    }
    command = (sys.executable, "-m", "benchmarks.hostile_clients", "ask")
    done = subprocess.run(command, input=json.dumps(plan).encode(), stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def _attacking(plan: dict[str, Any]) -> Iterator[list[str]]:
    """Attack during the `with` block. The list has the attacker's report afterwards."""
    command = (sys.executable, "-m", "benchmarks.hostile_clients", "attack")
    reports: list[str] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(plan))
        process.stdin.close()
        # It makes its bodies first.
        time.sleep(2)
        try:
            yield reports
        finally:
            process.terminate()
            assert process.stdout is not None
            reports.append(process.stdout.read())


class DashboardReader:
    """Reads the dashboard again and again, with a short pause, in a thread."""

    PAUSE_S = 0.1

    def __init__(self, browser: Browser) -> None:
        self.waits_s: list[float] = []
        self._browser = browser
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._read, name="dashboard")

    def __enter__(self) -> DashboardReader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._has_ended.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._has_ended.wait(self.PAUSE_S):
            begun = time.monotonic()
            status = self._browser.get("/console/").status_code
            self.waits_s.append(time.monotonic() - begun)
            assert status == 200, status


def report(phases: list[Phase], options: argparse.Namespace) -> str:
    calm = phases[0]
    asked = f"{options.clients} members, a request each {options.interval_s:g} s; phases of {options.seconds:g} s"
    bodies = f"bodies of {options.megabytes:g} MB and {options.kilobytes:g} KB: {', '.join(options.bodies)}"
    lines = [
        f"{asked}; {bodies}",
        "",
        "| | relay, ms: p50 / p99 / most | waits longer | dashboard | waits longer | hostile answers | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for phase in phases:
        added = [phase.relay.most - calm.relay.most, phase.dashboard.most - calm.dashboard.most]
        verdict = "" if phase is calm else "reached" if max(added) <= GOAL_MS else "**not reached**"
        longer = ["", ""] if phase is calm else [f"{ms:+.1f}" for ms in added]
        cells = [phase.name, str(phase.relay), longer[0], str(phase.dashboard), longer[1], _attacks(phase), verdict]
        lines.append(f"| {' | '.join(cells)} |")
    goal = f"Goal: nobody waits more than {GOAL_MS:g} ms longer than the longest wait without hostile clients."
    wrong = [f"WRONG: {phase.name}: {phase.statuses}" for phase in phases if set(phase.statuses) != {"200"}]
    return "\n".join(["", *lines, "", goal, *wrong])


def _attacks(phase: Phase) -> str:
    counted = (f"{who} {status} × {count}" for who, found in phase.attacks.items() for status, count in found.items())
    return ", ".join(counted)


if __name__ == "__main__":
    main()
