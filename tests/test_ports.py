from __future__ import annotations

from tests.postgres import free_port

# Linux's default in net.ipv4.ip_local_port_range.
FIRST_EPHEMERAL_PORT = 32_768


def test_free_ports_for_tests_are_below_the_ephemeral_ports() -> None:
    assert all(free_port() < FIRST_EPHEMERAL_PORT for _ in range(20))
