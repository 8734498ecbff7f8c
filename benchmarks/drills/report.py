"""A drill's printed report: what it did, and whether each rule was kept."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Sequence

MAX_SHOWN_VIOLATIONS = 5
WIDTH = 200


class DrillReport:
    def __init__(self, drill: str) -> None:
        self.failed: list[str] = []
        self.passed = 0
        self._drill = drill
        self._started = time.monotonic()
        print(f"\n== {drill}", flush=True)

    def say(self, text: str) -> None:
        print(f"   {time.monotonic() - self._started:6.1f} s  {text}", flush=True)

    def check(self, rule: str, violations: Sequence[object]) -> None:
        if not violations:
            self.passed += 1
            print(f"   pass  {rule}", flush=True)
            return
        self.failed.append(f"{self._drill}: {rule}")
        print(f"   FAIL  {rule}: {len(violations)} violations", flush=True)
        for shown in violations[:MAX_SHOWN_VIOLATIONS]:
            print(f"         {textwrap.shorten(str(shown), WIDTH)}", flush=True)
