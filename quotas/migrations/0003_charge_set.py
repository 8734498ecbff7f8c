from __future__ import annotations

from django.db import migrations

from core.sql_function import InstallFunction


class Migration(migrations.Migration):
    dependencies = [("quotas", "0002_append_only"), ("accounts", "0003_apikey"), ("usage", "0003_quantities")]

    operations = [InstallFunction("quotas_charge_set", app="quotas", file="charge_set_v1.sql")]
