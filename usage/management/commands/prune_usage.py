from __future__ import annotations

import re
import time
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from core.money import format_exact
from tenants.models import Space
from usage.models import MIN_KEPT_DAYS
from usage.partitions import Month
from usage.retention import Pruned, RollUpsDifferError, count_month, months_due, prune_month

MAX_TRIES, RETRY_PAUSE_S = 5, 2.0
# A century, longer than any log.
MAX_KEPT_DAYS = 36525


class Command(BaseCommand):
    help = (
        "Drop the usage rows of whole months that are older than --keep. Their roll-ups are compared with the rows "
        "first, and their sums are kept as checkpoints; no balance changes. Exits 1 when roll-ups and rows differ."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--keep", required=True, metavar="DAYS", help=f"like 400d, at least {MIN_KEPT_DAYS}d")
        parser.add_argument("--dry-run", action="store_true", help="show what would be dropped, and change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        due = months_due(_days(options["keep"]))
        pruned = [self._prune_and_report(month, is_dry=options["dry_run"]) for month in due]
        if not any(pruned):
            self.stdout.write(_("No whole month is older than that."))

    def _prune_and_report(self, month: Month, *, is_dry: bool) -> bool:
        pruned = count_month(month) if is_dry else _prune(month)
        if pruned is not None:
            self.stdout.write(_dry_run_line(pruned) if is_dry else _dropped_line(pruned))
        return pruned is not None


def _days(text: str) -> timedelta:
    match = re.fullmatch(r"([0-9]{1,5})d?", text, re.ASCII)
    if match is None or int(match[1]) > MAX_KEPT_DAYS:
        raise CommandError(_("--keep: a number of days, like 400d"))
    if int(match[1]) < MIN_KEPT_DAYS:
        words = _("--keep: at least %(days)dd, since younger requests may still be settled")
        raise CommandError(words % {"days": MIN_KEPT_DAYS})
    return timedelta(days=int(match[1]))


def _prune(month: Month) -> Pruned | None:
    # A long query, such as a CSV export, may keep the log's lock from being granted in time, so retry.
    for left in reversed(range(MAX_TRIES)):
        try:
            return prune_month(month)
        except RollUpsDifferError as error:
            raise CommandError(_differing_text(error)) from error
        except OperationalError as error:
            if not left:
                words = _(
                    "%(month)s: the usage log could not be locked in time, so nothing was dropped. Try again later."
                )
                raise CommandError(words % {"month": month}) from error
        time.sleep(RETRY_PAUSE_S)
    return None


def _differing_text(error: RollUpsDifferError) -> str:
    words = ngettext(
        "%(space)s, %(month)s: %(n)d rolled-up figure differs from the sum of its rows. Nothing of that month "
        "was dropped. Run reconcile, and keep the rows until the cause is known.",
        "%(space)s, %(month)s: %(n)d rolled-up figures differ from the sums of their rows. Nothing of that "
        "month was dropped. Run reconcile, and keep the rows until the cause is known.",
        error.differing,
    )
    space = Space.objects.filter(pk=error.space_id).first()
    return words % {"space": space or error.space_id, "month": error.month, "n": error.differing}


def _dropped_line(pruned: Pruned) -> str:
    words = ngettext(
        "%(month)s: %(n)s row dropped, $%(spent)s kept as checkpoints.",
        "%(month)s: %(n)s rows dropped, $%(spent)s kept as checkpoints.",
        pruned.rows,
    )
    return words % _values(pruned)


def _dry_run_line(pruned: Pruned) -> str:
    words = ngettext(
        "%(month)s: %(n)s row would be dropped, $%(spent)s kept as checkpoints.",
        "%(month)s: %(n)s rows would be dropped, $%(spent)s kept as checkpoints.",
        pruned.rows,
    )
    return words % _values(pruned)


def _values(pruned: Pruned) -> dict[str, str]:
    return {"month": str(pruned.month), "n": f"{pruned.rows:,}", "spent": format_exact(pruned.spent_nanos)}
