from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from core.ids import id_at, moment_of

SINCE_1970 = st.timedeltas(timedelta(0), timedelta(days=80_000))
MOMENTS = SINCE_1970.map(lambda since: datetime(1970, 1, 1, tzinfo=UTC) + since)


@given(MOMENTS)
def test_an_id_tells_its_moment_to_the_microsecond(moment: datetime) -> None:
    identifier = id_at(moment)

    assert moment_of(identifier) == moment
    assert (identifier.version, identifier.variant) == (7, "specified in RFC 4122")


@given(MOMENTS)
def test_a_later_id_sorts_behind_an_earlier_one(moment: datetime) -> None:
    later = id_at(moment + timedelta(microseconds=1))

    assert id_at(moment) < later and str(id_at(moment)) < str(later)
