from __future__ import annotations

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    """Index-only scan that counts the members of a space, for the pagination of User Management."""

    dependencies = [("accounts", "0005_own_locale")]

    operations = [
        migrations.AddIndex(
            "user", models.Index(fields=["space", "number"], condition=Q(deleted_at=None), name="user_space_number")
        ),
    ]
