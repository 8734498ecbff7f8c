"""Where a deed comes from: address, request and moment. Set once per request, read by services."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone


@dataclass(frozen=True)
class Origin:
    address: str | None = None
    request_id: str = ""
    moment: datetime | None = None


_NOWHERE = Origin()
_current: ContextVar[Origin] = ContextVar("origin", default=_NOWHERE)


def current() -> Origin:
    return _current.get()


def now() -> datetime:
    """The moment that a deed is recorded under: the clock's, unless history is being written (the demo, an import)."""
    return _current.get().moment or timezone.now()


@contextmanager
def acting(*, address: str | None = None, request_id: str = "", moment: datetime | None = None) -> Iterator[None]:
    """What is done inside is recorded with this origin."""
    token = _current.set(Origin(address=address, request_id=request_id, moment=moment))
    try:
        yield
    finally:
        _current.reset(token)
