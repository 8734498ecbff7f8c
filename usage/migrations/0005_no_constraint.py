from __future__ import annotations

from django.db import migrations, models
from django.db.models.deletion import DO_NOTHING

from core.append_only import AppendOnly


def _space() -> models.ForeignKey[object, object]:
    return models.ForeignKey("tenants.space", DO_NOTHING, related_name="+", db_index=False, db_constraint=False)


class Migration(migrations.Migration):
    """Drop the foreign key constraints to the space: each inserted row would lock the space's row for the check."""

    dependencies = [("tenants", "0001_initial"), ("usage", "0004_tasks")]

    operations = [
        migrations.AlterField("hourlyusage", "space", _space()),
        migrations.AlterField("usagerecord", "space", _space()),
        # Altering a column rebuilds the table on SQLite, which drops its triggers.
        AppendOnly("UsageRecord"),
    ]
