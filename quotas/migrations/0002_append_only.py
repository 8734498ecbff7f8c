from __future__ import annotations

from django.db import migrations

from core.append_only import AppendOnly


class Migration(migrations.Migration):
    dependencies = [("quotas", "0001_initial")]

    operations = [AppendOnly("Transfer")]
