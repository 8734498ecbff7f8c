from __future__ import annotations

from tests.postgres import free_port

# From here on Linux gives ports to outgoing connections, unless it is told otherwise.
GIVEN_AWAY = 32_768


def test_a_tests_port_is_none_that_an_outgoing_connection_may_be_given() -> None:
    assert all(free_port() < GIVEN_AWAY for _ in range(20))
