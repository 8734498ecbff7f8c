from __future__ import annotations

from django.db import migrations

from quotas.charge_set import ChargeSet


class Migration(migrations.Migration):
    """The rows of refusals are looked for in their own month, now that the log is kept by months."""

    dependencies = [("quotas", "0004_no_constraint"), ("usage", "0007_partitions")]

    operations = [ChargeSet()]
