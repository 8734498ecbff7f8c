"""The relay compared with its peers, with the same upstream and the same load: python -m benchmarks.relay

Each round measures one after the other. The report has medians over the rounds with minimum and maximum, ratios to
ours, and whether the books balance at the end. Peers that are not installed are left out: python -m benchmarks.peers
installs them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import isnan, nan
from statistics import median
from typing import Any

from benchmarks import ours, peers
from benchmarks.database import postgresql
from benchmarks.machine import machine
from benchmarks.peers import MODEL, Gateway, MissingError
from benchmarks.processes import cpu_seconds, unwind_on_sigterm

CHUNKS = 20
WARM_UP_S = 1.0
WORDS = "Say in one sentence what the weather in Lisbon is like in the first week of June, and what to wear there."


@dataclass(frozen=True)
class Measure:
    """A kind of request to send, and the key of the result that counts."""

    title: str
    unit: str
    key: tuple[str, ...]
    is_stream: bool = False
    is_alone: bool = False
    is_paced: bool = False
    # Chunks a request: multiplies requests a second into chunks a second.
    times: int = 1

    @property
    def is_rate(self) -> bool:
        # Rates are compared by their ratio, times by what they add to the upstream's own time.
        return self.key == ("per_s",)


MEASURES = {
    "json": Measure("JSON, {n} in flight", "requests/s", ("per_s",)),
    "streams": Measure("Streams of 20 chunks, {n} in flight", "chunks/s", ("per_s",), is_stream=True, times=CHUNKS),
    "latency": Measure("JSON, one at a time, p50", "ms", ("latency_ms", "p50"), is_alone=True),
    "first-byte": Measure(
        "First chunk of a stream, {n} in flight, a chunk every {pace} ms, p50",
        "ms",
        ("first_byte_ms", "p50"),
        is_stream=True,
        is_paced=True,
    ),
}


@dataclass(frozen=True)
class GatewaySample:
    figure: float
    answered: int
    cpu_us: float
    store_cpu_us: float
    complaints: dict[str, int]


def main() -> None:
    options = read_options()
    unwind_on_sigterm()
    with ExitStack() as stack:
        upstream = stack.enter_context(peers.fake_upstream())
        gateways = start(options, stack, upstream)
        print(machine())
        for gateway in gateways:
            print(f"- {gateway.name}: {gateway.about}")
        answered = 0
        for name in options.measures:
            samples = rounds(MEASURES[name], gateways, options)
            print(f"\n{table(MEASURES[name], samples, options)}", flush=True)
            answered += sum(sample.answered for sample in samples.get("Space Manage", []))
        if "ours" in options.gateways:
            print(f"\nBooks: {ours.books(answered)}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everybody = ["ours", *peers.RUNNERS]
    parser.add_argument("--gateways", nargs="+", choices=everybody, default=everybody)
    parser.add_argument("--measures", nargs="+", choices=list(MEASURES), default=list(MEASURES))
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--members", type=int, default=64, help="wallets that the requests are spread over")
    parser.add_argument("--pace-ms", type=int, default=50)
    return parser.parse_args()


def start(options: argparse.Namespace, stack: ExitStack, upstream: Gateway) -> list[Gateway]:
    base = upstream.url.removesuffix("/chat/completions")
    found = [upstream]
    if "ours" in options.gateways:
        database = stack.enter_context(postgresql())
        found.append(stack.enter_context(ours.relay(base, database, members=options.members)))
    runners: dict[str, peers.Runner] = {**peers.RUNNERS, "hardcap": partial(peers.hardcap, tenants=options.members)}
    for name in options.gateways:
        if name in runners:
            try:
                found.append(stack.enter_context(runners[name](base)))
            except MissingError as missing:
                print(f"LEFT OUT: {missing}")
    return found


def rounds(measure: Measure, gateways: list[Gateway], options: argparse.Namespace) -> dict[str, list[GatewaySample]]:
    """Measure the gateways alternately, so that other load on the machine affects all of them alike."""
    samples: dict[str, list[GatewaySample]] = defaultdict(list)
    for _ in range(options.rounds):
        for gateway in gateways:
            samples[gateway.name].append(sample(measure, gateway, options))
    return samples


def sample(measure: Measure, gateway: Gateway, options: argparse.Namespace) -> GatewaySample:
    words = f"pace={options.pace_ms} {WORDS}" if measure.is_paced else WORDS
    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": words}], "max_tokens": 256}
    plan = {
        "url": gateway.url,
        "headers": gateway.headers,
        "body": body | ({"stream": True} if measure.is_stream else {}),
        "is_stream": measure.is_stream,
        "in_flight": 1 if measure.is_alone else options.in_flight,
        "warm_up_s": WARM_UP_S,
        "seconds": options.seconds,
    }
    before = cpu_seconds(*gateway.pids), cpu_seconds(*gateway.store_pids)
    outcome = run_load(plan)
    after = cpu_seconds(*gateway.pids), cpu_seconds(*gateway.store_pids)
    answers = max(1, sum(outcome["statuses"].values()))
    return GatewaySample(
        figure=measure.times * figure_in(outcome, measure.key),
        answered=outcome["statuses"].get("200", 0),
        cpu_us=(after[0] - before[0]) / answers * 1e6,
        store_cpu_us=(after[1] - before[1]) / answers * 1e6,
        complaints=outcome["complaints"],
    )


def run_load(plan: dict[str, Any]) -> dict[str, Any]:
    command = (peers.python_of_tools(), "-m", "benchmarks.load")
    done = subprocess.run(command, input=json.dumps(plan).encode(), stdout=subprocess.PIPE, check=True)
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def figure_in(outcome: dict[str, Any], key: tuple[str, ...]) -> float:
    found: Any = outcome
    for name in key:
        found = found.get(name, {}) if isinstance(found, dict) else found
    return float(found) if isinstance(found, int | float) else float("nan")


# -- Reporting ----------------------------------------------------------------------------------------------------


def table(measure: Measure, samples: dict[str, list[GatewaySample]], options: argparse.Namespace) -> str:
    title = measure.title.format(n=options.in_flight, pace=options.pace_ms)
    compared = "ours ÷ theirs" if measure.is_rate else "added to the upstream"
    lines = [
        f"{title} (median of {options.rounds} rounds of {options.seconds:g} s, least to most)",
        "",
        f"| | {measure.unit} | {compared} | CPU µs a request | its store's |",
        "| --- | --- | --- | --- | --- |",
    ]
    base = "Space Manage" if measure.is_rate else "upstream"
    medians = {name: median(figures_of(found)) for name, found in samples.items()}
    for name, found in samples.items():
        figures = figures_of(found)
        digits = 0 if measure.is_rate else 2
        least, most = f"{min(figures):,.{digits}f}", f"{max(figures):,.{digits}f}"
        cells = [
            name,
            f"{medians[name]:,.{digits}f} ({least} to {most})",
            comparison(measure, medians, name, base),
            f"{median(sample.cpu_us for sample in found):,.0f}",
            f"{median(sample.store_cpu_us for sample in found):,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *complaints(samples)])


def figures_of(found: list[GatewaySample]) -> list[float]:
    return [sample.figure for sample in found if not isnan(sample.figure)] or [nan]


def comparison(measure: Measure, medians: dict[str, float], name: str, base: str) -> str:
    if name == base or base not in medians or not medians[name] > 0:
        return ""
    if measure.is_rate:
        return f"{medians[base] / medians[name]:.2f}"
    return f"{medians[name] - medians[base]:+.2f}"


def complaints(samples: dict[str, list[GatewaySample]]) -> list[str]:
    """Count the failed and incomplete responses by message, because a rate without them would look too good."""
    counted: dict[tuple[str, str], int] = defaultdict(int)
    for name, found in samples.items():
        for one in found:
            for text, count in one.complaints.items():
                counted[name, text] += count
    return [f"- {name}: {count} × {text}" for (name, text), count in counted.items()]


if __name__ == "__main__":
    main()
