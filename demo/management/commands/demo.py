from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from accounts.models import User
from audit.commands import RecordedCommand
from demo.cast import MANAGER, OPERATOR, PASSWORD, SPACE
from demo.offers import offer_demo_models
from demo.space import make_demo
from tenants.models import Space


class Command(RecordedCommand, BaseCommand):
    help = "Make the demo space in an empty database and print its sign-ins. Data that is there is never touched."

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEMO:
            raise CommandError("The demo's passwords are published. Set DEMO=true if that is what you want.")
        if not User.everyone.exists() and not Space.objects.exists():
            make_demo()
            User.objects.create_superuser(OPERATOR, PASSWORD)
        if not Space.objects.filter(is_demo=True).exists():
            self.stdout.write("This database has data of its own; the demo space was not added.")
            return
        offer_demo_models(upstream_port=settings.DEMO_UPSTREAM_PORT)
        self.stdout.write(f"Demo space “{SPACE}”. Sign in with the password {PASSWORD} as")
        for username, role in [
            (MANAGER, "Space Manager"),
            ("amara.diallo", "Admin"),
            ("theo.lindqvist", "Normal user"),
            (OPERATOR, "Operator, Django admin"),
        ]:
            self.stdout.write(f"  {username:<16} {role}")
