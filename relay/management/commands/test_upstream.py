from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from audit.commands import RecordedCommand
from relay.models import Upstream
from relay.probe import try_out


class Command(RecordedCommand, BaseCommand):
    help = (
        "Ask an upstream once, with one token, and print its answer and latency, or what went wrong; exit 1 if it did. "
        "The provider may charge the operator's account for the token."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--name", required=True)
        parser.add_argument(
            "--model", metavar="PUBLIC", default="", help="default: a model that chats, if there is one"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        upstream = Upstream.objects.filter(name=options["name"]).first()
        if upstream is None:
            names = ", ".join(Upstream.objects.values_list("name", flat=True)) or "none yet"
            raise CommandError(f"--name: there is no such upstream; there is: {names}")
        served = list(upstream.models.values_list("name", flat=True))
        if options["model"] and options["model"] not in served:
            raise CommandError(f"--model: it does not serve that; it serves: {', '.join(served) or 'none'}")
        result = try_out(upstream=upstream, model=options["model"], actor=None)
        if not result.is_ok:
            raise CommandError(result.text())
        self.stdout.write(result.text())
