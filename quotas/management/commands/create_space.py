from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from accounts.models import User
from audit.commands import RecordedCommand
from audit.services import record_refused_deed
from core.errors import NameTakenError, Refused
from core.fields import NewPasswordField
from core.money import AmountError, format_balance, parse_usd
from core.names import validate_username
from quotas.spaces import create_space


class Command(RecordedCommand, BaseCommand):
    help = "Create a space with its manager and first grant. The manager's password is read from standard input."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--name", required=True, help="the space's name")
        parser.add_argument("--manager", required=True, metavar="USERNAME", help="the manager's username")
        parser.add_argument("--grant", default="0", metavar="USD", help="first grant, like 500.00")
        parser.add_argument("--password-stdin", action="store_true", required=True, help="read the password from stdin")

    def handle(self, *args: Any, **options: Any) -> None:
        password = sys.stdin.readline().rstrip("\r\n")
        name = options["name"].strip()
        try:
            validate_username(options["manager"])
            NewPasswordField().clean(password)
            validate_password(password, User(username=options["manager"]))
            grant_nanos = parse_usd(options["grant"])
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        except AmountError as error:
            raise CommandError(f"--grant: {error.code.replace('_', ' ')}") from error
        if not 0 < len(name) <= 80:
            raise CommandError("--name: 1 to 80 characters")
        try:
            space = create_space(
                name=name, manager_username=options["manager"], manager_password=password, grant_nanos=grant_nanos
            )
        except Refused as error:
            asked = {"name": name, "manager_username": options["manager"]}
            record_refused_deed("space.created", error, actor=None, target=None, asked=asked)
            if not isinstance(error, NameTakenError):
                raise
            taken = "--name is taken" if str(error) == "name" else "--manager: this username is not available"
            raise CommandError(taken) from error
        self.stdout.write(f"Space “{space.name}” created for {options['manager']} with {format_balance(grant_nanos)}.")
