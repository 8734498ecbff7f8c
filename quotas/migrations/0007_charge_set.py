from __future__ import annotations

from django.db import migrations

from core.sql_function import InstallFunction


class Migration(migrations.Migration):
    """Version 5: one name for each column, and refusals rendered from accounts/spending.py."""

    dependencies = [("quotas", "0006_charge_set")]

    operations = [
        InstallFunction("quotas_charge_set", app="quotas", file="charge_set_v5.sql", replaces="charge_set_v4.sql")
    ]
