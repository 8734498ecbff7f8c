from __future__ import annotations

from django.db import migrations, models

from core.append_only import AppendOnly


class Migration(migrations.Migration):
    """Pictures and seconds are priced like tokens, so a record keeps how many there were."""

    dependencies = [("usage", "0002_append_only")]

    operations = [
        migrations.AddField("usagerecord", "images", models.BigIntegerField(default=0)),
        migrations.AddField("usagerecord", "seconds", models.BigIntegerField(default=0)),
        # SQLite rebuilt the table, and its triggers went with the old one.
        AppendOnly("UsageRecord"),
    ]
