from __future__ import annotations

from django.db import migrations, models
from django.db.models import Value

from core.append_only import AppendOnly


def _json() -> models.JSONField[object, object]:
    return models.JSONField(default=dict, db_default=Value({}, models.JSONField()))


class Migration(migrations.Migration):
    """Keep every count that a request was charged by, what it cost the operator, and what else is known of it."""

    dependencies = [("usage", "0011_no_common_names")]

    operations = [
        migrations.AddField("usagerecord", "quantities", _json()),
        migrations.AddField("usagerecord", "details", _json()),
        migrations.AddField("usagerecord", "upstream_cost", models.BigIntegerField(null=True)),
        # Adding a column rebuilds the table on SQLite, which drops its triggers.
        AppendOnly("UsageRecord"),
    ]
