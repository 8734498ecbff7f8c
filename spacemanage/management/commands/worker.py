from __future__ import annotations

import asyncio
import signal
from argparse import ArgumentParser
from contextlib import closing
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from relay.upstreams import Upstreams
from spacemanage.worker import Worker
from usage.quarters import NotClosedError


class Command(BaseCommand):
    help = (
        "Poll tasks, sweep expired holds, make partitions of the usage log ahead and close quarters, until SIGTERM. "
        "Every served process does the same by itself; any number of workers may run."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="do what is due now, then exit")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            asyncio.run(_once() if options["once"] else _until_signal())
        except NotClosedError as error:
            raise CommandError(str(error)) from error


async def _once() -> None:
    with closing(Upstreams()) as upstreams:
        worker = Worker(upstreams)
        await worker.make_months()
        await worker.sweep()
        await worker.poll()
        await worker.close()


async def _until_signal() -> None:
    with closing(Upstreams()) as upstreams:
        running = asyncio.ensure_future(Worker(upstreams).run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
        await asyncio.wait([running])
