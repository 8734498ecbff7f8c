from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    """Drop the quarters by key name: the usage log now filters by key, which has hours; docs/decisions/017-*."""

    dependencies = [("usage", "0010_reopen_wrong_quarters")]

    operations = [migrations.DeleteModel("NameQuarter"), migrations.DeleteModel("CommonName")]
