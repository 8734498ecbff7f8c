"""What a drill tells: what it did, and of each rule whether anything contradicts it."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Sequence

SHOWN_MOST = 5
WIDTH = 200


class Report:
    def __init__(self, drill: str) -> None:
        self.failed: list[str] = []
        self.passed = 0
        self._drill = drill
        self._started = time.monotonic()
        print(f"\n== {drill}", flush=True)

    def say(self, text: str) -> None:
        print(f"   {time.monotonic() - self._started:6.1f} s  {text}", flush=True)

    def check(self, rule: str, contradictions: Sequence[object]) -> None:
        """The rule holds where nothing contradicts it."""
        if not contradictions:
            self.passed += 1
            print(f"   pass  {rule}", flush=True)
            return
        self.failed.append(f"{self._drill}: {rule}")
        print(f"   FAIL  {rule}: {len(contradictions)} against it", flush=True)
        for shown in contradictions[:SHOWN_MOST]:
            print(f"         {textwrap.shorten(str(shown), WIDTH)}", flush=True)
