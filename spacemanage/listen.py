"""Print the IP address of a host that a server can listen on: python -m spacemanage.listen HOST PORT

`./run` calls this before it migrates and serves, so that a mistyped PORT or HOST fails immediately, with one sentence.
"""

from __future__ import annotations

import errno
import socket
import sys


def address_of(host: str, port: str) -> str:
    """Return the host's IP address, IPv4 first. Raise SystemExit with one sentence when the port cannot be bound."""
    # The shell computes PORT + 1: a leading zero would make it octal, and it knows ASCII digits alone.
    if not port.isdecimal() or len(port) > 5 or str(int(port)) != port or not 0 < int(port) < 65536:
        raise SystemExit(f"PORT={port} is not a port: give a number from 1 to 65535.")
    try:
        family, kind, protocol, _, address = min(socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM))
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SystemExit(
                f"Port {port} on {host} is in use: end what runs there, or choose another with PORT=8001 ./run"
            ) from error
        raise SystemExit(f"Cannot listen on HOST={host} PORT={port}: {error.strerror}.") from error
    return str(address[0])


if __name__ == "__main__":
    sys.stdout.write(address_of(*sys.argv[1:]) + "\n")
