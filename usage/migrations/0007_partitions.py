from __future__ import annotations

from django.db import migrations

from usage.partitioned import Partitioned


class Migration(migrations.Migration):
    """Partition the usage log by month on PostgreSQL, so that an old month can be dropped; docs/decisions/015-*."""

    dependencies = [("usage", "0006_space_hours")]

    operations = [Partitioned()]
