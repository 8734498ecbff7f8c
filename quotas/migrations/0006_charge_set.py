from __future__ import annotations

from django.db import migrations

from quotas.charge_set import ChargeSet


class Migration(migrations.Migration):
    """The function that writes a set is told from which wallets its keys spend."""

    dependencies = [("quotas", "0005_charge_set")]

    operations = [ChargeSet()]
