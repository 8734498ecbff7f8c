from __future__ import annotations

from django.db import migrations, models

from core.append_only import AppendOnly


class Migration(migrations.Migration):
    """Images and seconds are priced like tokens, so a record keeps their numbers."""

    dependencies = [("usage", "0002_append_only")]

    operations = [
        migrations.AddField("usagerecord", "images", models.BigIntegerField(default=0)),
        migrations.AddField("usagerecord", "seconds", models.BigIntegerField(default=0)),
        # Adding a column rebuilds the table on SQLite, which drops its triggers.
        AppendOnly("UsageRecord"),
    ]
