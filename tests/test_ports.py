from __future__ import annotations

from pathlib import Path

import pytest

from tests.postgres import free_port

GIVEN_AWAY = Path("/proc/sys/net/ipv4/ip_local_port_range")


@pytest.mark.skipif(not GIVEN_AWAY.exists(), reason="Linux alone says so")
def test_a_tests_port_is_none_that_an_outgoing_connection_may_be_given() -> None:
    lowest = int(GIVEN_AWAY.read_text().split()[0])

    assert all(free_port() < lowest for _ in range(20))
