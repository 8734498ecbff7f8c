from __future__ import annotations

from django.db import migrations

from core.sql_function import InstallFunction


class Migration(migrations.Migration):
    """Version 3: orders are arrays instead of JSON, and records of refusals are read from one partition only."""

    dependencies = [("quotas", "0004_no_constraint"), ("usage", "0007_partitions")]

    operations = [
        InstallFunction("quotas_charge_set", app="quotas", file="charge_set_v3.sql", replaces="charge_set_v2.sql")
    ]
