"""The origin of a deed (client address, request id, command, moment), in a context variable.

A middleware or command sets it once; services read it when they record a deed.
"""

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


_NO_ORIGIN = Origin()
_current: ContextVar[Origin] = ContextVar("origin", default=_NO_ORIGIN)


def current() -> Origin:
    return _current.get()


def now() -> datetime:
    """Return the time to record a deed at: the current time, unless past events are being written (demo, import)."""
    return _current.get().moment or timezone.now()


@contextmanager
def acting(*, address: str | None = None, request_id: str = "", moment: datetime | None = None) -> Iterator[None]:
    with as_origin(Origin(address=address, request_id=request_id, moment=moment, command=current().command)):
        yield


@contextmanager
def as_origin(origin: Origin) -> Iterator[None]:
    token = _current.set(origin)
    try:
        yield
    finally:
        _current.reset(token)
