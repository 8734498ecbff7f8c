from __future__ import annotations

from django.db import migrations

from usage.partitioned import Partitioned


class Migration(migrations.Migration):
    """The log by months on PostgreSQL, so that old months can go as a whole; see docs/decisions/015-*."""

    dependencies = [("usage", "0006_space_hours")]

    operations = [Partitioned()]
