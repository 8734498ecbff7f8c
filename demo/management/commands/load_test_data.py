from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from core.errors import NameTakenError
from core.names import MIN_PASSWORD_LENGTH
from demo.test_data import SpaceSize, make_test_space, slug
from quotas.reconcile import reconcile
from tenants.models import Space
from usage.quarters import close_quarters


class Command(BaseCommand):
    help = (
        "Make a space with many members and a long log whose books balance, to see how pages and plans hold up. Only "
        "in a database without real spaces: its spaces count as demo, beside which production does not start."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--space", default="Test data", metavar="NAME")
        parser.add_argument("--members", type=int, default=100_000)
        parser.add_argument("--rows", type=int, default=10_000_000, help="of the usage log")
        parser.add_argument("--days", type=int, default=90, help="over which the rows are spread, up to now")
        parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same data")
        parser.add_argument(
            "--password-stdin",
            action="store_true",
            help="read the password of all members from stdin; without it none can sign in",
        )
        parser.add_argument("--force", action="store_true", help="add the space even beside real ones")

    def handle(self, *args: Any, **options: Any) -> None:
        size, password = _size(options), _password() if options["password_stdin"] else ""
        if not options["force"] and Space.objects.filter(is_demo=False).exists():
            raise CommandError(
                "This database holds real spaces. --force adds the test data all the same; production does not "
                "start on this database after that."
            )
        started = time.monotonic()

        def report(line: str) -> None:
            self.stdout.write(f"{time.monotonic() - started:6.0f} s  {line}")

        try:
            space = make_test_space(options["space"], size, seed=options["seed"], password=password, report=report)
        except NameTakenError as error:
            raise CommandError("--space: this name or one of its usernames is taken") from error
        with connection.cursor() as cursor:
            # The planner has no statistics of the new rows until ANALYZE; autovacuum has not run yet. A plain ANALYZE
            # would also lock the catalogs that all databases of a server share.
            for table in connection.introspection.table_names(cursor):
                cursor.execute(f"ANALYZE {connection.ops.quote_name(table)}")
        report("analysed")
        close_quarters()
        report("quarters closed")
        if differences := reconcile(space):
            raise CommandError(f"The books differ in {len(differences)} figures: this is a bug. {differences[0]}")
        report("the books balance")
        self.stdout.write(_sign_ins(space, password))


def _size(options: dict[str, Any]) -> SpaceSize:
    for name, minimum, maximum in (("members", 1, 1_000_000), ("rows", 0, 1_000_000_000), ("days", 1, 3650)):
        if not minimum <= options[name] <= maximum:
            raise CommandError(f"--{name}: {minimum} to {maximum:,}")
    return SpaceSize(options["members"], options["rows"], options["days"])


def _password() -> str:
    password = sys.stdin.readline().rstrip("\r\n")
    if len(password) < MIN_PASSWORD_LENGTH:
        raise CommandError(f"The password must have at least {MIN_PASSWORD_LENGTH} characters.")
    return password


def _sign_ins(space: Space, password: str) -> str:
    people = list(space.people.filter(number__lte=3).order_by("number").values_list("username", flat=True))
    who = f"manager {people[0]}, admin {people[1]}" + (f", member {people[2]}" if len(people) > 2 else "")
    return f"{space.name} ({slug(space.name)}): {who}" + ("" if password else "; nobody can sign in")
