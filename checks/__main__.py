"""Check the whole project: python -m checks (`./run test` installs what it needs and starts it).

Arguments are passed to pytest only; with arguments, only the tests run. CHECKS names the steps to run instead, e.g.
CHECKS="lint types". The exit code is 1 when a step failed. A step that this machine cannot run is reported as left out,
which counts as a failure where CI=true.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, field

from checks.steps import STEPS, Step

# Removed from the environment, because production settings exported in the caller's shell would change the tests.
CLEARED = [
    "SECRET_KEY",
    "ALLOWED_HOSTS",
    "CSRF_TRUSTED_ORIGINS",
    "TRUSTED_PROXIES",
    "HTTPS",
    "DEBUG",
    "LOG_LEVEL",
]
BANNER = """
########################################################################
#                       NOT EVERYTHING WAS TESTED                      #
########################################################################
Left out:
{}
########################################################################"""


@dataclass
class CheckReport:
    failed: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def run(self, step: Step, arguments: list[str]) -> None:
        print(f"\n== {step.title}", flush=True)
        started_at = time.monotonic()
        if missing := step.missing():
            self.left_out.append(missing)
        if not step.run(arguments):
            self.failed.append(step.title)
        print(f"({time.monotonic() - started_at:.0f} s)", flush=True)

    def close(self) -> int:
        if self.left_out:
            print(BANNER.format("\n".join(f"  - {reason}" for reason in self.left_out)))
        if self.failed:
            print("\nFailed:", *(f"  - {title}" for title in self.failed), sep="\n")
        return int(bool(self.failed or (self.left_out and os.environ.get("CI") == "true")))


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGTERM, leave)
    for name in CLEARED:
        os.environ.pop(name, None)
    os.environ["DEMO"] = "true"
    report = CheckReport()
    for name in chosen(arguments):
        report.run(STEPS[name], arguments)
    return report.close()


def leave(number: int, _frame: object) -> None:
    # SystemExit reaches steps.call, which terminates the running step.
    raise SystemExit(128 + number)


def chosen(arguments: list[str]) -> list[str]:
    named = os.environ.get("CHECKS", "").replace(",", " ").split()
    if unknown := set(named) - set(STEPS):
        raise SystemExit(f"CHECKS: no such step: {' '.join(sorted(unknown))}. There are: {' '.join(STEPS)}.")
    if named:
        return named
    return [name for name, step in STEPS.items() if step.is_tests or not (arguments or step.is_only_by_name)]


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
