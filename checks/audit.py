"""Known vulnerabilities of the packages that production and demo install, found by pip-audit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

OPTIONS = ["-r", "requirements-demo.txt", "--disable-pip", "--no-deps", "--timeout", "30", "--progress-spinner", "off"]


def audit() -> int:
    """Print the known vulnerabilities. Return 1 only if there are any: an unreachable service is no failure.

    Only pip-audit's report tells these cases apart. Its exit code is 1 for a vulnerability as for an unreachable
    service, and 0 when the service knows none of the packages.
    """
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        command = [sys.executable, "-m", "pip_audit", *OPTIONS, "-f", "json", "-o", str(report)]
        done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
        packages = json.loads(report.read_text())["dependencies"] if report.exists() else []
    found = weaknesses(packages)
    print(*found, summary(packages, found, done.stderr), sep="\n")
    return int(bool(found))


def weaknesses(packages: list[dict[str, Any]]) -> list[str]:
    return [
        f"{package['name']} {package['version']}: {weakness['id']}, fixed in {weakness['fix_versions']}"
        for package in packages
        for weakness in package.get("vulns", [])
    ]


def summary(packages: list[dict[str, Any]], found: list[str], errors: str) -> str:
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if not packages:
        last_line = errors.strip().rpartition("\n")[2]
        return f"NOT AUDITED: the advisory service could not be reached ({last_line[:200]})."
    if len(skipped) == len(packages):
        return f"NOT AUDITED: the service knows none of the {len(packages)} packages, so it is not the real one."
    audited = f"{len(packages) - len(skipped)} packages audited, {len(found)} weaknesses found."
    return f"{audited}\nNot audited: {', '.join(skipped)}." if skipped else audited
