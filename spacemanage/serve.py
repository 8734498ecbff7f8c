"""The product's server: python -m spacemanage.serve --host 127.0.0.1 --port 8000

One worker has all of it: pages, relay, and the work in the background. A worker that dies is replaced. SIGTERM ends the
server when what is under way has ended, after the grace at the latest; SIGHUP puts new workers in the place of the old.
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

# Longer than the minute for which proxies and load balancers keep theirs: it must not be us who close first.
KEEP_ALIVE_S = 75
# A worker that says nothing for so long is replaced; one that is merely busy says something.
SILENT_S = 30


class Config(uvicorn.Config):
    """Loaded by each worker, which ends when its supervisor has died: nobody else would end it or free the port."""

    def load(self) -> None:
        super().load()
        if supervisor := parent_process():
            threading.Thread(target=_end_after, args=(supervisor,), daemon=True).start()


def _end_after(supervisor: BaseProcess) -> None:
    supervisor.join()
    os.kill(os.getpid(), signal.SIGTERM)


class Supervisor(Multiprocess):
    """uvicorn's, which replaces a worker without a word to whoever reads errors, and waits for ever for one to end."""

    # What is owed is written for a minute after the grace (relay/teller.py); who is there still hangs.
    OWED_S = 70

    def __init__(self, config: uvicorn.Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        # Workers that were told to end, each with the moment at which it is ended.
        self._ending: list[tuple[Process, float]] = []

    def keep_subprocess_alive(self) -> None:
        self._end_the_late()
        before = list(self.processes)
        for worker in before:
            # The worker has its own: with ours open, one that dies while it is asked would be waited for as if it hung.
            worker.child_conn.close()
        super().keep_subprocess_alive()
        for old, new in zip(before, self.processes, strict=True):
            if new is not old:
                log.error("worker_replaced pid=%s exit=%s by=%s", old.pid, old.exitcode, new.pid)

    def restart_all(self) -> None:
        """An old worker takes its time to end beside the new one: the supervisor goes on with its work."""
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
            self._end_the_late()

    def _is_ready(self, new: Process) -> bool:
        deadline = time.monotonic() + SILENT_S
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
        return time.monotonic() + (self.config.timeout_graceful_shutdown or 0) + self.OWED_S

    def _end_the_late(self) -> None:
        for worker, deadline in self._ending:
            if worker.process.is_alive() and time.monotonic() >= deadline:
                log.error("worker_killed pid=%s", worker.pid)
                worker.process.kill()
                worker.process.join()
        self._ending = [(worker, deadline) for worker, deadline in self._ending if worker.process.is_alive()]


def main() -> None:
    options = read_options()
    # Settings are checked here: in a worker, a bad one would fail again at every restart.
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
        # Django's settings say what is logged, core/addresses.py whose word is taken for an address.
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=options.grace_s,
        timeout_worker_healthcheck=SILENT_S,
    )
    supervisor = Supervisor(config, sockets=[config.bind_socket()])
    supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        sys.exit(STARTUP_FAILURE)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_port, default=8000)
    parser.add_argument("--workers", type=_workers, default=1, help="processes; more than one wants PostgreSQL")
    parser.add_argument(
        "--grace-s",
        type=_grace_s,
        default=10,
        metavar="SECONDS",
        help="that requests under way have, once it is to end",
    )
    return parser.parse_args()


def _whole(text: str, what: str, least: int, most: int) -> int:
    # Before int(), which refuses texts of thousands of digits in an error of its own.
    if not text.isdecimal() or len(text) > 9 or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text} is not {what}: give a number from {least} to {most}")
    return int(text)


_port = partial(_whole, what="a port", least=1, most=65535)
_workers = partial(_whole, what="a number of workers", least=1, most=64)
_grace_s = partial(_whole, what="a number of seconds", least=0, most=3600)


if __name__ == "__main__":
    main()
