from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import User
from accounts.second_factor import reset_second_factor
from audit.commands import RecordedCommand


class Command(RecordedCommand, BaseCommand):
    help = "Remove a user's second factor when app, passkeys and recovery codes are lost. Their sessions end."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--username", required=True, help="the user whose second factor is removed")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            user = User.objects.get_by_natural_key(options["username"])
        except User.DoesNotExist as error:
            raise CommandError("--username: there is no such user") from error
        done = reset_second_factor(target=user, actor=None)
        self.stdout.write(
            f"{user.username} signs in with the password alone from now on."
            if done
            else f"{user.username} had no second factor."
        )
