from __future__ import annotations

from django.db import migrations

from core.append_only import AppendOnly


class Migration(migrations.Migration):
    dependencies = [("usage", "0001_initial")]

    operations = [AppendOnly("UsageRecord")]
