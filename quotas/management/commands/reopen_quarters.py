from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils.translation import gettext as _

from quotas.reconcile import reconcile
from tenants.commands import space_called
from usage.quarters import PrunedError, reopen


class Command(BaseCommand):
    help = (
        "Reopen the closed quarters of a space since a moment, where reconcile reports usage rows that were written "
        "later. The worker closes them again from the rows. Exits 1 when the books still differ."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--space", required=True, metavar="NAME")
        parser.add_argument(
            "--since", required=True, metavar="MOMENT", help="like 2026-11-27 or 2026-11-27T09:00+01:00"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        space = space_called(options["space"])
        since = _moment(options["since"])
        try:
            with transaction.atomic():
                reopen(space_id=space.pk, at=since)
        except PrunedError as error:
            _at, pruned = error.args
            words = _("--since: the rows before %(moment)s are no longer kept")
            raise CommandError(words % {"moment": f"{pruned:%Y-%m-%d}"}) from error
        if differing := reconcile(space):
            raise CommandError("\n".join(str(difference) for difference in differing))
        self.stdout.write(_("%(name)s: the books balance.") % {"name": space.name})


def _moment(text: str) -> datetime:
    """Parse a date or datetime; without an offset it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise CommandError(_("--since: a day or a moment, like 2026-11-27 or 2026-11-27T09:00+01:00")) from None
