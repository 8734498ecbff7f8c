from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from spacemanage.listen import address_of
from tests.postgres import free_port

ROOT = Path(__file__).parent.parent


def test_a_host_name_is_resolved_to_its_ipv4_address() -> None:
    assert address_of("localhost", str(free_port())) == "127.0.0.1"


@pytest.mark.parametrize("port", ["", "abc", "0", "65536", "-1", "8e3", "08000", "٨٠٠٠", "9" * 5000])
def test_a_port_that_is_no_number_from_1_to_65535_is_refused(port: str) -> None:
    with pytest.raises(SystemExit) as refused:
        address_of("127.0.0.1", port)

    assert refused.value.code == f"PORT={port} is not a port: give a number from 1 to 65535."


def test_a_port_in_use_is_refused_with_a_way_out() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"Port {port} on 127.0.0.1 is in use: .*PORT=8001 ./run"):
            address_of("127.0.0.1", str(port))


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_a_host_that_is_not_this_machine_is_refused(host: str) -> None:
    command = [sys.executable, "-m", "spacemanage.listen", host, "8000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Cannot listen on HOST={host} PORT=8000: ") and done.stderr.count("\n") == 1
