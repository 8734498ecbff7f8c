"""Holds and settlements per second, batched by the teller and one by one in pgbench: python -m benchmarks.charging

Both do the same work on the same server and tables, durably: check the key and hold, then, in another transaction,
settle, log and roll up. pgbench calls the functions in charging.sql, which handle one request each; the number of
clients with the best throughput counts. --rows also compares a usage log of that many rows with an empty one, in two
databases of one server, alternately. --keep keeps the long log, which is the same as that of benchmarks.pages.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import re
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg

from benchmarks.database import Database, Size, fill, manage, postgresql
from benchmarks.machine import machine
from benchmarks.processes import ROOT, cpu_seconds, unwind_on_sigterm

if TYPE_CHECKING:
    from accounts.keys import Presented

SQL = Path(__file__).with_suffix(".sql")
# The days that a long log covers; the same as in benchmarks.pages.
DAYS = 90
AMOUNT_NANOS, COST_NANOS = 1_000_000, 260_000
CLIENTS = [1, 2, 4, 8, 16, 32, 64]
SWEEP_S = 3.0
SCRIPT = f"""\\set bearer random(1, :wallets)
SELECT bench_hold(:bearer, {AMOUNT_NANOS}) AS request \\gset
SELECT bench_settle(:request, {COST_NANOS});
"""


@dataclass(frozen=True)
class ChargingSample:
    """Pairs of hold and settlement per second; CPU time per pair of the client (teller, pgbench) and of PostgreSQL."""

    per_s: float
    cpu_us: float
    store_cpu_us: float


@dataclass(frozen=True)
class Crowd:
    space_id: int
    keys: list[Presented]


def main() -> None:
    options = read_options()
    unwind_on_sigterm()
    with postgresql(options.keep) as server, own("charging", server) as database:
        print(f"{machine()}; PostgreSQL {database.version}, durable")
        manage("migrate", "-v0", url=database.url)
        crowd = prepare(options.wallets)
        for wallets in (options.wallets, 1):
            print(f"\n{compare(wallets, crowd, database, options)}", flush=True)
        if options.rows:
            print(f"\n{compare_logs(crowd, database, options)}", flush=True)
        print(f"\nBooks: {books()}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wallets", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, default=64, help="concurrent requests of the teller")
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS, help="numbers of pgbench's clients to try")
    parser.add_argument("--rows", type=int, default=0, help="length of a long log to settle into, such as 10000000")
    parser.add_argument("--members", type=int, default=100_000, help="members of the space with the long log")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to keep the long log for the next run")
    return parser.parse_args()


@contextmanager
def own(name: str, server: Database, *, template: str = "template1") -> Iterator[Database]:
    made, drop = replace(server, url=server.url_of(name)), f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode()
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(drop)
        # FILE_COPY, because the default strategy writes the whole template to the WAL: minutes for a long log.
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY".encode())
        use(made)
        yield made
        use(server)
        connection.execute(drop)


def use(database: Database) -> None:
    from django.db import connection

    connection.close()
    connection.settings_dict["NAME"] = urlsplit(database.url).path.lstrip("/")


def prepare(wallets: int) -> Crowd:
    from django.db import connection

    from accounts.keys import parse_key
    from benchmarks.seed import space_of

    spenders = space_of(wallets, name="bench")
    keys = [presented for spender in spenders if (presented := parse_key(spender.key))]
    with connection.cursor() as cursor:
        cursor.execute(SQL.read_text(), None)
        rows = [(number, key.space_id, key.hash) for number, key in enumerate(keys, start=1)]
        cursor.executemany("INSERT INTO bench_key VALUES (%s, %s, %s)", rows)
        cursor.execute("ANALYZE")
    return Crowd(keys[0].space_id, keys)


# -- Running ------------------------------------------------------------------------------------------------------


def compare(wallets: int, crowd: Crowd, database: Database, options: argparse.Namespace) -> str:
    sweep = {clients: pgbench(clients, wallets, database, SWEEP_S).per_s for clients in options.clients}
    best = max(sweep, key=lambda clients: sweep[clients])
    samples = alternate(
        {
            f"teller, {options.in_flight} in flight": lambda: teller(wallets, crowd, database, options),
            f"pgbench, {best} clients": lambda: pgbench(best, wallets, database, options.seconds),
        },
        options.rounds,
    )
    tried = ", ".join(f"{clients}: {per_s:,.0f}" for clients, per_s in sweep.items())
    wallets_text = "1 wallet" if wallets == 1 else f"{wallets:,} wallets"
    return f"{table(f'Hold and settle, {wallets_text}', samples, options)}\n\npgbench by clients: {tried}"


def compare_logs(crowd: Crowd, database: Database, options: argparse.Namespace) -> str:
    size = Size("large", options.members, options.rows, DAYS)
    fill(size, database)
    with own("charging_long", database, template=size.database) as long:
        crowds = {long.url: prepare(options.wallets), database.url: crowd}

        def run(of: Database) -> ChargingSample:
            use(of)
            return teller(options.wallets, crowds[of.url], of, options)

        runs: dict[str, Callable[[], ChargingSample]] = {}
        for each in (long, database):
            use(each)
            runs[f"a log of {records():,} rows"] = partial(run, each)
            run(each)
        samples = alternate(runs, options.rounds)
    use(database)
    return table(f"Teller, {options.wallets:,} wallets, {options.in_flight} in flight", samples, options)


def records() -> int:
    from usage.models import UsageRecord

    return UsageRecord.objects.count()


def alternate(runs: dict[str, Callable[[], ChargingSample]], rounds: int) -> dict[str, list[ChargingSample]]:
    samples: dict[str, list[ChargingSample]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            samples[name].append(run())
    return samples


def teller(wallets: int, crowd: Crowd, database: Database, options: argparse.Namespace) -> ChargingSample:
    before = own_cpu_seconds(), cpu_seconds(database.pid)
    pairs, seconds = asyncio.run(ask_teller(crowd.keys[:wallets], options.in_flight, options.seconds))
    after = own_cpu_seconds(), cpu_seconds(database.pid)
    return ChargingSample(
        pairs / seconds, *((late - early) / pairs * 1e6 for early, late in zip(before, after, strict=True))
    )


async def ask_teller(keys: list[Presented], in_flight: int, seconds: float) -> tuple[int, float]:
    """Return (pairs, seconds). Each of `in_flight` tasks settles a hold as soon as it has it; all holds are settled."""
    from relay.teller import Teller

    counter = Teller()
    counter.start()
    begun = time.perf_counter()
    done = await asyncio.gather(*(keep_charging(counter, keys, begun + seconds) for _ in range(in_flight)))
    taken = time.perf_counter() - begun
    await counter.close()
    return sum(done), taken


async def keep_charging(counter: object, keys: list[Presented], until: float) -> int:
    from core.ids import new_id
    from quotas.charging import Call
    from quotas.sets import HoldOrder, SettleOrder
    from relay.teller import Teller

    assert isinstance(counter, Teller)
    call = Call(model="bench", input_tokens=24, output_tokens=20, duration_ms=100)
    pairs = 0
    while time.perf_counter() < until:
        key, request_id = random.choice(keys), new_id()
        order = {"model": "bench", "address": "127.0.0.1", "least_nanos": 1, "most_nanos": AMOUNT_NANOS}
        await counter.ask(HoldOrder(request_id=request_id, presented=key, **order))  # type: ignore[arg-type]
        await counter.ask(SettleOrder(space_id=key.space_id, request_id=request_id, cost_nanos=COST_NANOS, call=call))
        pairs += 1
    return pairs


def pgbench(clients: int, wallets: int, database: Database, seconds: float) -> ChargingSample:
    url = urlsplit(database.url)
    script = ROOT / "var" / "benchmarks" / "charging.pgbench"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(SCRIPT)
    server = ["-h", url.hostname or "", "-p", str(url.port), "-U", url.username or "", url.path.lstrip("/")]
    load = ["-n", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 2)), "-T", str(round(seconds))]
    before = own_cpu_seconds(), cpu_seconds(database.pid)
    done = subprocess.run(
        [database.programs / "pgbench", *load, "-D", f"wallets={wallets}", "-f", script, *server],
        check=True,
        capture_output=True,
        text=True,
    )
    pairs = int(search(r"transactions actually processed: (\d+)", done.stdout))
    after = own_cpu_seconds(), cpu_seconds(database.pid)
    cpu_us = ((late - early) / pairs * 1e6 for early, late in zip(before, after, strict=True))
    return ChargingSample(float(search(r"tps = ([\d.]+)", done.stdout)), *cpu_us)


def own_cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended, so without PostgreSQL's."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def search(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise SystemExit(f"unexpected output of pgbench:\n{text}")
    return found[1]


# -- Reporting ----------------------------------------------------------------------------------------------------


def table(title: str, samples: dict[str, list[ChargingSample]], options: argparse.Namespace) -> str:
    medians = {name: median(sample.per_s for sample in found) for name, found in samples.items()}
    first = next(iter(samples))
    lines = [
        f"{title} (median of {options.rounds} rounds of {options.seconds:g} s, least to most)",
        "",
        "| | pairs/s | first ÷ this | CPU µs a pair | PostgreSQL's |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, found in samples.items():
        figures = [sample.per_s for sample in found]
        ratio = "" if name == first else f"{medians[first] / medians[name]:.2f}"
        cpu, store_cpu = (median(getattr(sample, kind) for sample in found) for kind in ("cpu_us", "store_cpu_us"))
        spread = f"{medians[name]:,.0f} ({min(figures):,.0f} to {max(figures):,.0f})"
        lines.append(f"| {name} | {spread} | {ratio} | {cpu:,.0f} | {store_cpu:,.0f} |")
    return "\n".join(lines)


def books() -> str:
    from django.core.management import call_command

    output = io.StringIO()
    call_command("reconcile", stdout=output, stderr=output)
    return f"{records():,} rows in the log. {output.getvalue().strip()}"


if __name__ == "__main__":
    main()
