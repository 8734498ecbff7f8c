"""Renew the holds of all open charges with one timer, which is cheaper than a timer for each."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

RENEW_INTERVAL_S = 5.0


class Renewable(Protocol):
    def renew(self) -> None: ...


class Renewals:
    """Calls `renew` of each charge every RENEW_INTERVAL_S, from when it is added until it is dropped."""

    def __init__(self) -> None:
        # In order of due time: dicts keep insertion order, and the interval is the same for all.
        self._due: dict[Renewable, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, charge: Renewable) -> None:
        self._due[charge] = time.monotonic() + RENEW_INTERVAL_S
        self._schedule()

    def drop(self, charge: Renewable) -> None:
        self._due.pop(charge, None)

    def _schedule(self) -> None:
        if self._timer is None and self._due:
            first = next(iter(self._due.values()))
            self._timer = asyncio.get_running_loop().call_later(first - time.monotonic(), self._renew_due)

    def _renew_due(self) -> None:
        self._timer = None
        now = time.monotonic()
        while (charge := self._first_due(now)) is not None:
            self.drop(charge)
            self.add(charge)
            charge.renew()
        self._schedule()

    def _first_due(self, now: float) -> Renewable | None:
        charge, due = next(iter(self._due.items()), (None, 0.0))
        return charge if due <= now else None
