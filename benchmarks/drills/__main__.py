"""From the project's root: python -m benchmarks.drills [NAME …] [--times N] [--sqlite]. See docs/drills.md."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from benchmarks.drills.postgres import Postgres
from benchmarks.drills.report import DrillReport

# Name → how often each injects its fault.
DRILLS = {
    "exact": 20,
    "kill": 20,
    "database": 5,
    "upstream": 1,
    "leaving": 1,
    "failing": 1,
    "flapping": 1,
    "disable": 5,
    "transfers": 1,
}
ON_POSTGRESQL_ONLY = {"database"}


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, _leave)
    with ExitStack() as stack:
        postgres = None if options.sqlite else _postgres(stack)
        os.environ["DATABASE_URL"] = postgres.url if postgres else _sqlite(stack)
        os.environ["DEMO"] = "true"
        _set_up_django()
        names = dict.fromkeys(options.names or DRILLS)
        failed = [rule for name in names for rule in _run(name, options.times, postgres)]
    print("\nAll drills passed." if not failed else "\nFailed:\n  " + "\n  ".join(failed))
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drills")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(DRILLS))
    parser.add_argument("--times", type=int, metavar="N", help="how often, instead of the drill's own number")
    parser.add_argument("--sqlite", action="store_true", help="on SQLite instead of PostgreSQL")
    options = parser.parse_args()
    if unknown := set(options.names) - set(DRILLS):
        parser.error(f"no such drill: {', '.join(sorted(unknown))}")
    return options


def _leave(number: int, _frame: FrameType | None) -> None:
    # SystemExit unwinds the `with` blocks, which end all child processes.
    raise SystemExit(128 + number)


def _postgres(stack: ExitStack) -> Postgres:
    postgres = Postgres()
    stack.callback(postgres.close)
    postgres.start()
    return postgres


def _sqlite(stack: ExitStack) -> str:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="drills-sqlite-"))
    return f"sqlite:///{Path(folder) / 'db.sqlite3'}"


def _set_up_django() -> None:
    """Import and set up Django after DATABASE_URL is set, because the settings read it when they are imported."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "spacemanage.settings"
    os.environ.setdefault("LOG_LEVEL", "WARNING")
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", interactive=False, verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0)


def _run(name: str, times: int | None, postgres: Postgres | None) -> list[str]:
    if postgres is None and name in ON_POSTGRESQL_ONLY:
        print(f"\n== {name}\n   left out: it needs PostgreSQL")
        return []
    from benchmarks.drills.stage import Stage

    drill = importlib.import_module(f"benchmarks.drills.{name}")
    report = DrillReport(name)
    with Stage(name, report, postgres) as stage:
        drill.run(stage, times or DRILLS[name])
        stage.check_logs()
    return report.failed


if __name__ == "__main__":
    sys.exit(main())
