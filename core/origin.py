"""Where a deed comes from: address, request, command and moment. Set once per request or command, read by services."""

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
    command: str = ""


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
    with as_origin(Origin(address=address, request_id=request_id, moment=moment, command=current().command)):
        yield


@contextmanager
def as_origin(origin: Origin) -> Iterator[None]:
    """Record what is done inside with exactly this origin."""
    token = _current.set(origin)
    try:
        yield
    finally:
        _current.reset(token)
