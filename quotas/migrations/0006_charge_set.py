from __future__ import annotations

from django.db import migrations

from core.sql_function import InstallFunction


class Migration(migrations.Migration):
    """Version 4: the caller may pass the wallets that its keys spend from, which saves their look-up."""

    dependencies = [("quotas", "0005_charge_set")]

    operations = [
        InstallFunction("quotas_charge_set", app="quotas", file="charge_set_v4.sql", replaces="charge_set_v3.sql")
    ]
