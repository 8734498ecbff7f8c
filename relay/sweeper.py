"""Sweeps the holds that a dead worker left behind. Any number of sweepers may run, in any process."""

from __future__ import annotations

import threading

import structlog
from django.db import DatabaseError, InterfaceError, connection

from quotas.charging import expire_holds

log = structlog.get_logger(__name__)

EVERY_S = 5.0


class Sweeper:
    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=EVERY_S)

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            try:
                expire_holds()
            except (DatabaseError, InterfaceError) as error:
                connection.close()
                log.warning("sweep_failed", error=type(error).__name__)
        connection.close()
