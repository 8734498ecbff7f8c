"""Every open charge renews its hold now and then: one timer for all of them, which costs less than one each."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

RENEW_S = 5.0


class Renewing(Protocol):
    def renew(self) -> None: ...


class Renewals:
    """Calls `renew` of each member RENEW_S after it was added, and again, until it is dropped."""

    def __init__(self) -> None:
        # By when they are due, since all wait equally long.
        self._due: dict[Renewing, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, member: Renewing) -> None:
        self._due[member] = time.monotonic() + RENEW_S
        self._wait()

    def drop(self, member: Renewing) -> None:
        self._due.pop(member, None)

    def _wait(self) -> None:
        if self._timer is None and self._due:
            first = next(iter(self._due.values()))
            self._timer = asyncio.get_running_loop().call_later(first - time.monotonic(), self._renew)

    def _renew(self) -> None:
        self._timer = None
        now = time.monotonic()
        while (member := self._first_due_by(now)) is not None:
            self.drop(member)
            self.add(member)
            member.renew()
        self._wait()

    def _first_due_by(self, now: float) -> Renewing | None:
        member, due = next(iter(self._due.items()), (None, 0.0))
        return member if due <= now else None
