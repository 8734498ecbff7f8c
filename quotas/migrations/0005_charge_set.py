from __future__ import annotations

from django.db import migrations

from quotas.charge_set import ChargeSet


class Migration(migrations.Migration):
    """The function that writes a set takes arrays, and looks for refusals' rows in their own month."""

    dependencies = [("quotas", "0004_no_constraint"), ("usage", "0007_partitions")]

    operations = [ChargeSet()]
