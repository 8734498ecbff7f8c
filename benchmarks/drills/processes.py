"""The product's server and the demo upstream as processes that a drill can kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types
import requests

from tests.postgres import free_port

ROOT = Path(__file__).parents[2]
READY_TIMEOUT_S = 60.0
ENDING_TIMEOUT_S = 15.0


def wait_until(is_so: Callable[[], bool], *, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def status_of(url: str, *, timeout_s: float = 10.0) -> int:
    """Return the status of a GET, or 0 if there is no response."""
    try:
        return requests.get(url, timeout=timeout_s, allow_redirects=False).status_code
    except requests.RequestException:
        return 0


class DrillProcess:
    """A program with its child processes, which keeps its port when it is started again."""

    def __init__(self, arguments: list[str], variables: dict[str, str], *, port: int, probe: str, log: Path) -> None:
        self.port = port
        self.log = log
        self._probe = f"http://127.0.0.1:{port}{probe}"
        self._command = [sys.executable, *arguments]
        self._variables = os.environ | variables
        self._started: subprocess.Popen[bytes] | None = None

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._started = subprocess.Popen(
                self._command, cwd=ROOT, env=self._variables, stdout=log, stderr=log, start_new_session=True
            )
        if not wait_until(lambda: status_of(self._probe) == 200, timeout_s=READY_TIMEOUT_S):
            raise SystemExit(
                f"{' '.join(self._command)} does not answer:\n{self.log.read_text(errors='replace')[-2000:]}"
            )

    def kill(self) -> None:
        if self._started is not None:
            # The whole process group is killed, because a server's workers would outlive their supervisor.
            with suppress(ProcessLookupError):
                os.killpg(self._started.pid, signal.SIGKILL)
            self._started.wait()
            self._started = None

    def close(self) -> None:
        if self._started is not None:
            self._started.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._started.wait(ENDING_TIMEOUT_S)
            self.kill()


class RelayServer(DrillProcess):
    def __init__(self, home: Path, *, workers: int = 1) -> None:
        port = free_port()
        arguments = ["-m", "spacemanage.serve", "--port", str(port), "--workers", str(workers)]
        variables = {"DEMO": "true", "CATALOGUE_REFRESH_S": "0.5"}
        super().__init__(arguments, variables, port=port, probe="/healthz", log=home / f"relay-{port}.log")

    def workers(self) -> list[int]:
        assert self._started is not None
        children = psutil.Process(self._started.pid).children()
        # Multiprocessing's resource tracker is a child as well.
        return [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]

    def kill_worker(self) -> None:
        for victim in self.workers()[:1]:
            os.kill(victim, signal.SIGKILL)


class DemoUpstream(DrillProcess):
    def __init__(self, home: Path) -> None:
        port = free_port()
        arguments = ["manage.py", "demo_upstream", "--port", str(port)]
        super().__init__(arguments, {"DEMO": "true"}, port=port, probe="/v1/models", log=home / f"upstream-{port}.log")

    @property
    def url(self) -> str:
        return f"{self.base}/v1"
