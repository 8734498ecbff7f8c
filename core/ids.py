"""UUIDv7: made by the client, ordered by time, so that a primary key is also the order of a log."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from struct import iter_unpack
from uuid import UUID

NIL = UUID(int=0)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def id_at(moment: datetime) -> UUID:
    """A new UUIDv7 of that moment, in order to the microsecond.

    RFC 9562, section 5.7, with the fraction of the millisecond in rand_a (section 6.2, method 3).
    """
    return _id_of((moment - _EPOCH) // timedelta(microseconds=1))


def hex_ids_at(moment: datetime, count: int) -> list[str]:
    """As id_at, many of one moment, as hexadecimal digits: an UUID object each would cost more than all the rest."""
    begin = id_at(moment).hex[:16]
    return [f"{begin}{0b10 << 62 | chance >> 2:016x}" for (chance,) in iter_unpack(">Q", os.urandom(8 * count))]


def new_id() -> UUID:
    return _id_of(time.time_ns() // 1000)


def _id_of(micros: int) -> UUID:
    milliseconds, rest = divmod(micros, 1000)
    fraction = rest * 4096 // 1000
    return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | int.from_bytes(os.urandom(8)) >> 2)


def moment_of(identifier: UUID) -> datetime:
    """The moment in a UUIDv7 of id_at, to the microsecond."""
    micros = -(-(identifier.int >> 64 & 0xFFF) * 1000 // 4096)
    return _EPOCH + timedelta(milliseconds=identifier.int >> 80, microseconds=micros)
