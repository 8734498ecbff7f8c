from __future__ import annotations

from django.db import migrations, models
from django.db.models.deletion import PROTECT


class Migration(migrations.Migration):
    """A constraint would be checked for each hold, and lock the space's row for it."""

    dependencies = [("quotas", "0003_charge_set"), ("tenants", "0001_initial")]

    operations = [
        migrations.AlterField(
            "hold",
            "space",
            models.ForeignKey("tenants.space", PROTECT, related_name="holds", db_index=False, db_constraint=False),
        )
    ]
