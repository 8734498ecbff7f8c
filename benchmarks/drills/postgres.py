"""A PostgreSQL for the drills, durable as in production, that can be stopped, crashed and started again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tests import postgres as starter

DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "log_lock_waits": "on"}
STOP_TIMEOUT_S = 30


class Postgres:
    """A server that starts again on the same port with its committed data. `close` removes the data."""

    def __init__(self) -> None:
        programs = next(starter.available(), None)
        if programs is None:
            raise SystemExit("No PostgreSQL here: install one, or run the drills with --sqlite.")
        self._home = Path(tempfile.mkdtemp(prefix="drills-postgres-", dir=starter.TEMPORARY_DIR))
        self._identity = starter.unprivileged(self._home)
        self._programs = starter.reachable(programs, self._home, self._identity)
        self._port = starter.free_port()
        self._process: subprocess.Popen[bytes] | None = None
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"]
        command: list[str | Path] = [self._programs / "initdb", f"--pgdata={self._home / 'data'}", *options]
        starter.call(command, cwd=self._home, **self._identity)

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self._port}/postgres"

    @property
    def log(self) -> str:
        return (self._home / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start the server, and return when it accepts connections: after a crash, when it has recovered."""
        settings = {**starter.SETTINGS, **DURABLE, "port": str(self._port), "unix_socket_directories": str(self._home)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        with open(self._home / "log", "ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._home / "data", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._home,
                env=starter.environment(),
                **self._identity,
            )
        starter.wait_until_ready(self._process, self._programs, self._home, self._port)

    def stop(self, *, is_crash: bool = False) -> None:
        """Do a fast shutdown, which disconnects sessions and rolls back, or an immediate one, which is like a crash."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGQUIT if is_crash else signal.SIGINT)
        self._process.wait(STOP_TIMEOUT_S)
        self._process = None

    def close(self) -> None:
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.stop(is_crash=True)
        shutil.rmtree(self._home, ignore_errors=True)
