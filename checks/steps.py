"""The steps of `python -m checks`, in the order in which they run."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from checks.audit import audit
from tests import postgres
from tests.chromium import find_chromium

ROOT = Path(__file__).resolve().parent.parent
# Two workers a core, because many tests wait for a server or a browser. `worksteal` keeps a module's tests on one
# worker, so that its servers start once, and lets idle workers take over the rest.
IN_PARALLEL = ["-n", str(min(2 * (os.cpu_count() or 1), 4)), "--dist", "worksteal"]
NO_TESTS_COLLECTED = 5  # pytest's exit code


@dataclass(frozen=True)
class Step:
    """One step. `run` takes the arguments for pytest and returns whether the step passed."""

    title: str
    run: Callable[[list[str]], bool]
    is_tests: bool = False
    is_only_by_name: bool = False
    # Returns what is left out and which program is missing on this machine; "" when nothing is left out.
    missing: Callable[[], str] = str


# -- Running commands -------------------------------------------------------------------------------------------------


def call(*command: str, env: dict[str, str] | None = None) -> int:
    """Run a command and return its exit code. On SIGTERM or Ctrl-C, wait for the command's end before ending."""
    with subprocess.Popen(command, cwd=ROOT, env=env) as process:
        try:
            return process.wait()
        except SystemExit:
            process.terminate()
            process.wait()
            raise
        except KeyboardInterrupt:
            # The terminal has sent SIGINT to the command as well, which is cleaning up.
            process.wait()
            raise


def python(*arguments: str, env: dict[str, str] | None = None) -> int:
    return call(sys.executable, *arguments, env=env)


def program(name: str, *arguments: str) -> int:
    # The virtual environment need not be on PATH.
    return call(str(Path(sys.executable).with_name(name)), *arguments)


def environment(*without: str, **added: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in without} | added


def check(title: str, run: Callable[[], int], *, is_only_by_name: bool = False) -> Step:
    """Make a step that ignores the arguments for pytest and passes when its command exits with 0."""
    return Step(title, lambda _: run() == 0, is_only_by_name=is_only_by_name)


# -- What the steps do ------------------------------------------------------------------------------------------------


def templates() -> Iterator[str]:
    for folder in sorted(ROOT.iterdir()):
        if folder.is_dir() and folder.name != "var" and not folder.name.startswith("."):
            yield from sorted(str(path.relative_to(ROOT)) for path in folder.rglob("*.html"))


def production_settings() -> int:
    env = environment("DEMO", "DATABASE_URL", SECRET_KEY=secrets.token_urlsafe(64), ALLOWED_HOSTS="example.org")
    return python("manage.py", "check", "--deploy", "--fail-level", "WARNING", env=env)


def without_chromium() -> str:
    return "" if find_chromium() else "the browser tests: no Chromium is installed, nor named by CHROMIUM"


def without_postgresql() -> str:
    if postgres.is_named() or any(postgres.available()):
        return ""
    return "the tests on PostgreSQL: none is installed, nor named by DATABASE_URL"


def tests_on_sqlite(arguments: list[str]) -> bool:
    selected = ["-m", "not browser"] if without_chromium() else []
    return python("-m", "pytest", *selected, *(arguments or IN_PARALLEL), env=environment("DATABASE_URL")) == 0


def tests_on_postgresql(arguments: list[str]) -> bool:
    pytest = [sys.executable, "-m", "pytest", "-m", "database and not browser", *(arguments or IN_PARALLEL)]
    code = python("tests/postgres.py", "--", *pytest)
    # Nothing is collected when the arguments select only browser tests.
    return code in {0, NO_TESTS_COLLECTED, postgres.EXIT_NO_POSTGRESQL}


STEPS = {
    "lint": check("Lint (ruff check)", lambda: python("-m", "ruff", "check", ".")),
    "format": check("Format (ruff format)", lambda: python("-m", "ruff", "format", "--check", ".")),
    "imports": check("Import contracts (lint-imports)", lambda: program("lint-imports")),
    "types": check("Types (mypy)", lambda: python("-m", "mypy")),
    "djade": check("Templates (djade)", lambda: program("djade", "--check", "--target-version", "5.2", *templates())),
    "djlint": check("Templates (djlint)", lambda: python("-m", "djlint", "--lint", *templates())),
    "migrations": check(
        "Migrations (makemigrations --check)", lambda: python("manage.py", "makemigrations", "--check", "--dry-run")
    ),
    "production": check("Production settings (check --deploy)", production_settings),
    "sqlite": Step("Tests on SQLite", tests_on_sqlite, is_tests=True, missing=without_chromium),
    "postgresql": Step("Tests on PostgreSQL", tests_on_postgresql, is_tests=True, missing=without_postgresql),
    "audit": check("Known weaknesses (pip-audit)", audit, is_only_by_name=True),
}
