from __future__ import annotations

import uuid

from django.db import migrations, models
from django.db.models.deletion import DO_NOTHING

import core.ids
from core.append_only import AppendOnly


class Migration(migrations.Migration):
    """Add checkpoints: the sums of pruned records, with which the books balance without those records."""

    dependencies = [("tenants", "0001_initial"), ("usage", "0007_partitions")]

    operations = [
        migrations.CreateModel(
            name="UsageCheckpoint",
            fields=[
                ("id", models.UUIDField(default=core.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ("wallet_id", models.UUIDField()),
                ("user_id", models.BigIntegerField()),
                ("key_id", models.UUIDField(default=uuid.UUID(int=0))),
                ("model", models.CharField(max_length=100)),
                ("through", models.DateTimeField()),
                ("requests", models.BigIntegerField()),
                ("errors", models.BigIntegerField()),
                ("input_tokens", models.BigIntegerField()),
                ("output_tokens", models.BigIntegerField()),
                ("spent", models.BigIntegerField()),
                (
                    "space",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=DO_NOTHING,
                        related_name="+",
                        to="tenants.space",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("requests__gt", 0), ("spent__gte", 0)), name="checkpoint_not_negative"
                    )
                ],
                "indexes": [models.Index(fields=["space", "through"], name="checkpoint_space_through")],
            },
        ),
        AppendOnly("UsageCheckpoint"),
    ]
