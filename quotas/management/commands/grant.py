from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from audit.commands import RecordedCommand
from audit.services import record_refused_deed
from core.errors import InsufficientPool, PoolLimit, QuotaError
from core.money import AmountError, format_balance, parse_usd
from quotas.pool import pool_of
from quotas.services import grant, revoke
from tenants.commands import space_called


class Command(RecordedCommand, BaseCommand):
    help = "Grant quota to a space's pool, or with a negative amount take it back."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--space", required=True, metavar="NAME")
        parser.add_argument("--amount", required=True, metavar="USD", help="like 100.00 or -20.00")
        parser.add_argument("--reason", required=True, metavar="TEXT")
        parser.add_argument(
            "--key", default="", help="makes the grant idempotent: repeated with the same key it moves nothing"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        space = space_called(options["space"])
        amount: str = options["amount"]
        move = revoke if amount.startswith("-") else grant
        try:
            nanos = parse_usd(amount.removeprefix("-"))
        except AmountError as error:
            raise CommandError(f"--amount: {error.code.replace('_', ' ')}") from error
        if nanos == 0:
            raise CommandError("--amount: must not be zero")
        if len(options["reason"]) > 200 or len(options["key"]) > 80:
            raise CommandError("--reason: at most 200 characters, --key: at most 80")
        try:
            move(space=space, amount_nanos=nanos, reason=options["reason"], actor=None, key=options["key"])
        except QuotaError as error:
            record_refused_deed(f"pool.{move.__name__}", error, actor=None, target=space)
            raise CommandError(_refusal(error)) from error
        pool = pool_of(space)
        self.stdout.write(
            f"{space.name}: total {format_balance(pool.total)}, available {format_balance(pool.available)}"
        )


def _refusal(error: QuotaError) -> str:
    match error:
        case InsufficientPool():
            return f"only {format_balance(error.available)} is available in this space"
        case PoolLimit():
            return f"this pool can take at most {format_balance(error.room)} more"
    return "--key: this key was used before with another amount"
