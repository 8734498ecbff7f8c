from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import User
from accounts.throttle import unlock
from audit.commands import RecordedCommand


class Command(RecordedCommand, BaseCommand):
    help = "Let a name in again at once that was locked out after too many tries."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--username", required=True, help="whose")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            user = User.objects.get_by_natural_key(options["username"])
        except User.DoesNotExist as error:
            raise CommandError("--username: nobody has this name") from error
        done = unlock(user=user, actor=None)
        self.stdout.write(f"{user.username} may sign in again." if done else f"{user.username} was not locked out.")
