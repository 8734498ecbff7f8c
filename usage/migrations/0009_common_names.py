from __future__ import annotations

from django.db import migrations, models
from django.db.models.deletion import DO_NOTHING

import core.ids


def _id() -> models.UUIDField[object, object]:
    return models.UUIDField(default=core.ids.new_id, editable=False, primary_key=True, serialize=False)


def _space() -> models.ForeignKey[object, object]:
    return models.ForeignKey("tenants.space", DO_NOTHING, related_name="+", db_index=False, db_constraint=False)


class Migration(migrations.Migration):
    """Add closed quarters by key name, for names that many keys of a space share. Migration 0011 drops them again."""

    dependencies = [("tenants", "0001_initial"), ("usage", "0008_checkpoints")]

    operations = [
        migrations.CreateModel(
            "CommonName",
            [
                ("id", _id()),
                ("space", _space()),
                ("key_name", models.CharField(max_length=80)),
                ("since", models.DateTimeField()),
            ],
            {"constraints": [models.UniqueConstraint(fields=["space", "key_name"], name="common_name_unique")]},
        ),
        migrations.CreateModel(
            "NameQuarter",
            [
                ("id", _id()),
                ("space", _space()),
                ("key_name", models.CharField(max_length=80)),
                ("model", models.CharField(max_length=100)),
                ("quarter", models.DateTimeField()),
                ("requests", models.BigIntegerField(default=0)),
                ("errors", models.BigIntegerField(default=0)),
                ("input_tokens", models.BigIntegerField(default=0)),
                ("output_tokens", models.BigIntegerField(default=0)),
                ("error_input_tokens", models.BigIntegerField(default=0)),
                ("error_output_tokens", models.BigIntegerField(default=0)),
                ("cost", models.BigIntegerField(default=0)),
            ],
            {
                "constraints": [
                    models.UniqueConstraint(
                        fields=["space", "key_name", "quarter", "model"], name="name_quarter_unique"
                    )
                ]
            },
        ),
    ]
