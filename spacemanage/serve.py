"""The product's server: python -m spacemanage.serve --host 127.0.0.1 --port 8000

Each worker process runs everything: pages, relay and background work. The supervisor replaces a worker that dies.
SIGTERM stops the server gracefully: requests under way get --grace-s seconds. SIGHUP replaces the workers one by one.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from functools import partial
from importlib import import_module
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from socket import socket

import uvicorn
from django.core.exceptions import ImproperlyConfigured
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

log = logging.getLogger("spacemanage.serve")

# Longer than the 60 s for which proxies and load balancers keep idle connections. If the server closed first, a proxy
# could send a request on a connection that is being closed (a race), and its client would see a 502.
KEEP_ALIVE_TIMEOUT_S = 75
# A worker that answers no ping for this long is replaced. The ping has a thread of its own, so a busy worker answers.
HEALTH_CHECK_TIMEOUT_S = 30


class Config(uvicorn.Config):
    """Makes each worker end when its supervisor has died: an orphaned worker would keep the port open."""

    def load(self) -> None:
        super().load()
        if supervisor := parent_process():
            threading.Thread(target=_end_after, args=(supervisor,), daemon=True).start()


def _end_after(supervisor: BaseProcess) -> None:
    supervisor.join()
    os.kill(os.getpid(), signal.SIGTERM)


class Supervisor(Multiprocess):
    """uvicorn's supervisor, which by itself logs no replacement and waits for ever for a worker to end."""

    # After its grace period a worker writes pending settlements for up to 60 s (relay/teller.py). After 70 s it hangs.
    SETTLING_TIMEOUT_S = 70

    def __init__(self, config: uvicorn.Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        # Workers that have been sent SIGTERM, each with the time after which it is killed.
        self._ending: list[tuple[Process, float]] = []

    def keep_subprocess_alive(self) -> None:
        self._kill_overdue()
        before = list(self.processes)
        for worker in before:
            # Close the supervisor's copy of the worker's end of the pipe. With it open, a ping to a dead worker would
            # see no end of file and would wait for its timeout.
            worker.child_conn.close()
        super().keep_subprocess_alive()
        for old, new in zip(before, self.processes, strict=True):
            if new is not old:
                log.error("worker_replaced pid=%s exit=%s by=%s", old.pid, old.exitcode, new.pid)

    def restart_all(self) -> None:
        """Start each new worker before its predecessor is told to end, and do not wait for the predecessor's end."""
        for at, old in enumerate(self.processes):
            new = Process(self.config, self.sockets)
            new.start()
            if not self._is_ready(new):
                new.kill()
                new.join()
                if not self._is_told_to_end():
                    log.error("worker_not_ready pid=%s exit=%s kept=%s", new.pid, new.exitcode, old.pid)
                return
            self.processes[at] = new
            self._retire(old)

    def handle_ttou(self) -> None:
        if len(self.processes) > 1:
            self._retire(self.processes.pop())

    def join_all(self) -> None:
        self._ending += [(worker, self._deadline()) for worker in self.processes]
        while self._ending:
            self._ending[0][0].process.join(0.1)
            self._kill_overdue()

    def _is_ready(self, new: Process) -> bool:
        deadline = time.monotonic() + HEALTH_CHECK_TIMEOUT_S
        while time.monotonic() < deadline and new.process.is_alive() and not self._is_told_to_end():
            if new.is_ready(timeout=1):
                return True
            time.sleep(0.1)
        return False

    def _is_told_to_end(self) -> bool:
        return signal.SIGTERM in self.signal_queue or signal.SIGINT in self.signal_queue

    def _retire(self, worker: Process) -> None:
        worker.terminate()
        self._ending.append((worker, self._deadline()))

    def _deadline(self) -> float:
        return time.monotonic() + (self.config.timeout_graceful_shutdown or 0) + self.SETTLING_TIMEOUT_S

    def _kill_overdue(self) -> None:
        for worker, deadline in self._ending:
            if worker.process.is_alive() and time.monotonic() >= deadline:
                log.error("worker_killed pid=%s", worker.pid)
                worker.process.kill()
                worker.process.join()
        self._ending = [(worker, deadline) for worker, deadline in self._ending if worker.process.is_alive()]


def main() -> None:
    options = read_options()
    # Settings are checked in the supervisor, because a worker with bad settings would be restarted again and again.
    try:
        import_module("spacemanage.settings")
    except ImproperlyConfigured as error:
        sys.exit(str(error))
    config = Config(
        "spacemanage.asgi:application",
        host=options.host,
        port=options.port,
        workers=options.workers,
        http="spacemanage.connections:Connection",
        ws="none",
        loop="uvloop",
        interface="asgi3",
        lifespan="on",
        # LOGGING in Django's settings configures logs, and core/addresses.py decides which proxies are trusted.
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_TIMEOUT_S,
        timeout_graceful_shutdown=options.grace_s,
        timeout_worker_healthcheck=HEALTH_CHECK_TIMEOUT_S,
    )
    supervisor = Supervisor(config, sockets=[config.bind_socket()])
    supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        sys.exit(STARTUP_FAILURE)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_port, default=8000)
    parser.add_argument("--workers", type=_workers, default=1, help="worker processes; more than one needs PostgreSQL")
    parser.add_argument(
        "--grace-s",
        type=_grace_s,
        default=10,
        metavar="SECONDS",
        help="how long requests under way may take after SIGTERM",
    )
    return parser.parse_args()


def _bounded_int(text: str, noun: str, minimum: int, maximum: int) -> int:
    # The length is checked first, because int() has an error message of its own for thousands of digits.
    if not text.isdecimal() or len(text) > 9 or not minimum <= int(text) <= maximum:
        raise argparse.ArgumentTypeError(f"{text} is not {noun}: give a number from {minimum} to {maximum}")
    return int(text)


_port = partial(_bounded_int, noun="a port", minimum=1, maximum=65535)
_workers = partial(_bounded_int, noun="a number of workers", minimum=1, maximum=64)
_grace_s = partial(_bounded_int, noun="a number of seconds", minimum=0, maximum=3600)


if __name__ == "__main__":
    main()
