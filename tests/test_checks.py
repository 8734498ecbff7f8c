"""`python -m checks`, run with the real tools on a small project."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest

from checks.audit import summary, weaknesses
from tests.relay.conftest import wait_for

ROOT = Path(__file__).parent.parent
PYPROJECT = """
[tool.ruff]
exclude = ["checks", "tests"]

[tool.pytest.ini_options]
markers = ["browser", "database"]
"""
TESTS = """\
import os
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.database


def test_environment():
    assert os.environ["DEMO"] == "true" and "SECRET_KEY" not in os.environ
    print("DATABASE_URL is", os.environ.get("DATABASE_URL"))


def test_failure():
    assert False


def test_sleep():
    Path("pid").write_text(str(os.getpid()))
    time.sleep(30)


@pytest.mark.browser
def test_browser():
    assert False
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "checks", tmp_path / "checks")
    (tmp_path / "tests").mkdir()
    for name in ("__init__.py", "postgres.py", "chromium.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests")
    (tmp_path / "tests" / "test_small.py").write_text(TESTS)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "small.py").write_text("x = 1\n")
    return tmp_path


def start(project: Path, *arguments: str, **env: str) -> subprocess.Popen[str]:
    """Start the checks. PATH is empty, so no Chromium is found; DATABASE_URL is set, so no PostgreSQL is started."""
    given = {"PATH": "", "HOME": str(project), "DATABASE_URL": "postgres://nobody@127.0.0.1/nothing"}
    command = [sys.executable, "-m", "checks", *arguments]
    return subprocess.Popen(
        command, cwd=project, env=given | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(project: Path, *arguments: str, **env: str) -> tuple[int, str]:
    with start(project, *arguments, **env) as process:
        output, _ = process.communicate()
    return process.returncode, output


def test_a_step_that_fails_is_named_after_the_others_have_run(project: Path) -> None:
    (project / "small.py").write_text("x=1\n")

    code, output = run(project, CHECKS="format lint")

    assert code == 1
    assert "All checks passed!" in output
    assert output.endswith("\nFailed:\n  - Format (ruff format)\n")


def test_when_every_step_passes_the_exit_code_is_0(project: Path) -> None:
    code, output = run(project, CHECKS="lint,format")

    assert code == 0 and "Failed" not in output and "NOT EVERYTHING" not in output


def test_arguments_go_to_pytest_alone_on_both_databases(project: Path) -> None:
    code, output = run(project, "-s", "-k", "environment", SECRET_KEY="of the shell")

    titles = [line for line in output.splitlines() if line.startswith("== ")]
    assert (code, titles) == (0, ["== Tests on SQLite", "== Tests on PostgreSQL"])
    assert output.count("1 passed") == 2
    assert "DATABASE_URL is None" in output and "DATABASE_URL is postgres://nobody@" in output


def test_a_test_that_fails_fails_the_step_of_its_database(project: Path) -> None:
    code, output = run(project, "-k", "failure", CHECKS="postgresql")

    assert code == 1 and output.endswith("\nFailed:\n  - Tests on PostgreSQL\n")


def test_arguments_that_select_no_test_fail_on_sqlite_alone(project: Path) -> None:
    code, output = run(project, "-k", "nothing")

    assert code == 1 and output.endswith("\nFailed:\n  - Tests on SQLite\n")


@pytest.mark.parametrize(("ci", "expected_code"), [("", 0), ("true", 1)])
def test_tests_that_are_left_out_are_reported_and_fail_in_ci(project: Path, ci: str, expected_code: int) -> None:
    code, output = run(project, "-k", "environment or browser", CHECKS="sqlite", CI=ci)

    assert code == expected_code
    assert "1 passed, 3 deselected" in output
    assert "NOT EVERYTHING WAS TESTED" in output and "  - the browser tests: no Chromium is installed" in output


def test_an_unknown_step_is_refused_with_the_names_of_all(project: Path) -> None:
    code, output = run(project, CHECKS="lint flint")

    assert code == 1
    assert output.startswith("CHECKS: no such step: flint. There are: lint format ")


def test_sigterm_ends_the_running_step(project: Path) -> None:
    pid = project / "pid"
    with start(project, "-k", "sleep") as process:
        tests = int(wait_for(lambda: pid.exists() and pid.read_text()))
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate()

    assert process.returncode == 128 + signal.SIGTERM
    assert not psutil.pid_exists(tests) and "1 passed" not in output


AUDITED = {"name": "django", "version": "5.2", "vulns": []}
WEAK = {"name": "yarl", "version": "1.0", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"]}]}
UNKNOWN = {"name": "lucide", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "found", "said"),
    [
        ([AUDITED], [], "1 packages audited, 0 weaknesses found."),
        (
            [AUDITED, WEAK, UNKNOWN],
            ["yarl 1.0: CVE-1, fixed in ['1.1']"],
            "2 packages audited, 1 weaknesses found.\nNot audited: lucide.",
        ),
        ([UNKNOWN], [], "NOT AUDITED: the service knows none of the 1 packages, so it is not the real one."),
        ([], [], "NOT AUDITED: the advisory service could not be reached (no route)."),
    ],
)
def test_the_audit_tells_vulnerabilities_from_an_unreachable_service(
    packages: list[dict[str, object]], found: list[str], said: str
) -> None:
    assert weaknesses(packages) == found
    assert summary(packages, found, "Traceback:\nno route\n") == said


def pins(name: str) -> set[str]:
    """Packages with their versions. A marker may differ: development needs a package where production does not."""
    lines = (ROOT / name).read_text().splitlines()
    return {line.partition(" ;")[0] for line in lines if "==" in line and not line.startswith((" ", "#"))}


def test_each_requirements_file_contains_the_pins_of_the_one_before() -> None:
    """`./run` relies on it: it installs one file and records those before it as installed, too."""
    production, demo, development = map(pins, ["requirements.txt", "requirements-demo.txt", "requirements-dev.txt"])

    assert production < demo < development


def test_production_neither_imports_nor_installs_aiohttp() -> None:
    code = "import sys, spacemanage.asgi, spacemanage.urls; sys.exit('aiohttp' in sys.modules)"
    env = os.environ | {"DEMO": "false", "SECRET_KEY": "q8Zr2mXw7Lk4Vb9Nc3Jt6Hg1Fd5Sa0Py-Ue_Io7Tr4Wq2Ez8Xv6Cb1N"}
    env |= {"ALLOWED_HOSTS": "x.org", "DJANGO_SETTINGS_MODULE": "spacemanage.settings"}

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, check=False).returncode == 0
    assert not any(pin.startswith("aiohttp==") for pin in pins("requirements.txt"))
