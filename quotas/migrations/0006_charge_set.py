from __future__ import annotations

from django.db import migrations

from core.sql_function import InstallFunction


class Migration(migrations.Migration):
    """The function that writes a set is told from which wallets its keys spend."""

    dependencies = [("quotas", "0005_charge_set")]

    operations = [
        InstallFunction("quotas_charge_set", app="quotas", file="charge_set_v4.sql", replaces="charge_set_v3.sql")
    ]
