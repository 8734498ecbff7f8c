from __future__ import annotations

from django.db import migrations
from django.db.models import CheckConstraint, F, Q

from core.sql_function import InstallFunction


class Migration(migrations.Migration):
    """Version 6: holds of zero, holds that leave most of the money free, and records with quantities and details."""

    dependencies = [("quotas", "0007_charge_set"), ("usage", "0012_quantities_and_details")]

    operations = [
        migrations.RemoveConstraint("hold", "hold_amount_positive"),
        migrations.AddConstraint(
            "hold",
            CheckConstraint(
                condition=Q(amount__gte=0, accrued__gte=0, accrued__lte=F("amount")), name="hold_not_negative"
            ),
        ),
        InstallFunction("quotas_charge_set", app="quotas", file="charge_set_v6.sql", replaces="charge_set_v5.sql"),
    ]
