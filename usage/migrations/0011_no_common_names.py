from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    """Tokens are chosen by key, so names that many keys bear need no sums of their own; see docs/decisions/017-*."""

    dependencies = [("usage", "0010_reopen_wrong_quarters")]

    operations = [migrations.DeleteModel("NameQuarter"), migrations.DeleteModel("CommonName")]
