from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import User
from accounts.throttle import unlock
from audit.commands import RecordedCommand


class Command(RecordedCommand, BaseCommand):
    help = "Unlock the sign-in of a user who was locked out after too many failed attempts."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--username", required=True, help="the user to unlock")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            user = User.objects.get_by_natural_key(options["username"])
        except User.DoesNotExist as error:
            raise CommandError("--username: there is no such user") from error
        done = unlock(user=user, actor=None)
        self.stdout.write(f"{user.username} may sign in again." if done else f"{user.username} was not locked out.")
