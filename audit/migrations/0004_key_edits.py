from __future__ import annotations

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("audit", "0003_refusals_roles_and_search")]

    operations = [
        migrations.AddIndex(
            "auditevent", models.Index(fields=["space"], condition=Q(kind="key.edited"), name="audit_key_edits")
        ),
    ]
