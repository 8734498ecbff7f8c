from __future__ import annotations

from django.db import migrations, models
from django.db.models.deletion import DO_NOTHING

from core.append_only import AppendOnly


def _space() -> models.ForeignKey[object, object]:
    return models.ForeignKey("tenants.space", DO_NOTHING, related_name="+", db_index=False, db_constraint=False)


class Migration(migrations.Migration):
    """A constraint would be checked for each row of a set, and lock the space's row for it."""

    dependencies = [("tenants", "0001_initial"), ("usage", "0004_tasks")]

    operations = [
        migrations.AlterField("hourlyusage", "space", _space()),
        migrations.AlterField("usagerecord", "space", _space()),
        # SQLite rebuilt the table, and its triggers went with the old one.
        AppendOnly("UsageRecord"),
    ]
