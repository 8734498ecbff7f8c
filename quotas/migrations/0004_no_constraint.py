from __future__ import annotations

from django.db import migrations, models
from django.db.models.deletion import PROTECT


class Migration(migrations.Migration):
    """Drop the foreign key constraint, which was checked for each hold and locked the space's row."""

    dependencies = [("quotas", "0003_charge_set"), ("tenants", "0001_initial")]

    operations = [
        migrations.AlterField(
            "hold",
            "space",
            models.ForeignKey("tenants.space", PROTECT, related_name="holds", db_index=False, db_constraint=False),
        )
    ]
