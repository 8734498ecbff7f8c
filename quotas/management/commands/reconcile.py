from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django.utils.translation import ngettext

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
            words = ngettext("The books differ in %(n)d figure.", "The books differ in %(n)d figures.", wrong)
            self.stderr.write(words % {"n": wrong})
            raise SystemExit(1)
        words = ngettext("The books balance: %(n)d space.", "The books balance: %(n)d spaces.", spaces)
        self.stdout.write(words % {"n": spaces})
