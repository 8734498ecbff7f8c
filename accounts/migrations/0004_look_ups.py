from __future__ import annotations

from django.db import migrations, models
from django.db.models import Q
from django.db.models.functions import Lower


class Migration(migrations.Migration):
    """Indexes to find deleted users by username, and keys by name. No charge updates either of them."""

    dependencies = [("accounts", "0003_apikey")]

    operations = [
        migrations.AddIndex(
            "user",
            models.Index(
                "space", Lower("username"), condition=Q(deleted_at__isnull=False), name="user_deleted_username"
            ),
        ),
        migrations.AddIndex("apikey", models.Index("space", "name", name="key_name")),
    ]
