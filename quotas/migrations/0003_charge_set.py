from __future__ import annotations

from django.db import migrations

from quotas.charge_set import ChargeSet


class Migration(migrations.Migration):
    dependencies = [("quotas", "0002_append_only"), ("accounts", "0003_apikey"), ("usage", "0003_quantities")]

    operations = [ChargeSet()]
