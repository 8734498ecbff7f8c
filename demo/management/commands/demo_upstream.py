from __future__ import annotations

import os
import signal
import threading
import time
from argparse import ArgumentParser
from typing import Any

from aiohttp import web
from django.core.management.base import BaseCommand, CommandError

from demo.upstream import make_app
from demo.upstream_answers import DISCLAIMER

HOST = "127.0.0.1"


class Command(BaseCommand):
    help = (
        "Serve a fake OpenAI-compatible upstream on 127.0.0.1, with no model behind it. demo/upstream.py "
        "says how to make it fail, wait or break off."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, required=True, metavar="P")
        parser.add_argument("--credential", default="", help="the bearer token that clients must send; default: any")

        parser.add_argument("--end-with", type=int, metavar="PID", help="end when the process PID ends")

    def handle(self, *args: Any, **options: Any) -> None:
        port: int = options["port"]
        if not 0 < port < 65536:
            raise CommandError("--port: a number from 1 to 65535")
        if options["end_with"]:
            threading.Thread(target=_end_with_process, args=[options["end_with"]], daemon=True).start()
        try:
            web.run_app(
                make_app(credential=options["credential"]),
                host=HOST,
                port=port,
                access_log=None,
                print=lambda _: self._print_address(port),
            )
        except OSError as error:
            raise CommandError(f"--port: cannot listen on {HOST}:{port}: {error.strerror}") from error

    def _print_address(self, port: int) -> None:
        self.stdout.write(f"{DISCLAIMER}\nIt listens on http://{HOST}:{port}/v1")
        self.stdout.flush()


def _end_with_process(pid: int) -> None:
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        time.sleep(1)
