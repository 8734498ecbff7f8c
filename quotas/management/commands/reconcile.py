from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from quotas.reconcile import reconcile
from tenants.models import Space


class Command(BaseCommand):
    help = "Recompute every balance from journal, holds and usage. Exits 1 with the rows that differ."

    def handle(self, *args: Any, **options: Any) -> None:
        spaces, wrong = 0, 0
        for space in Space.objects.order_by("pk").iterator():
            spaces += 1
            for difference in reconcile(space):
                wrong += 1
                self.stdout.write(f"{space.name}: {difference}")
        if wrong:
            self.stderr.write(f"The books differ in {wrong} figures.")
            raise SystemExit(1)
        self.stdout.write(f"The books balance: {spaces} space{'' if spaces == 1 else 's'}.")
