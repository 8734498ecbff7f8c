from __future__ import annotations

from typing import Any

from django.db import migrations, models
from django.db.migrations.state import StateApps
from django.db.models import Q
from django.db.models.deletion import DO_NOTHING

import core.ids
from core.ids import moment_of
from core.sql_function import InstallFunction


def _count_tokens_of_errors(apps: StateApps, schema_editor: Any) -> None:
    # For the hourly roll-ups that exist already.
    records = apps.get_model("usage", "UsageRecord").objects.filter(kind="error")
    hours = apps.get_model("usage", "HourlyUsage").objects
    found = records.filter(Q(input_tokens__gt=0) | Q(output_tokens__gt=0)).order_by()
    columns = ("space_id", "user_id", "key_id", "model", "id", "input_tokens", "output_tokens")
    for space, user, key, model, record, read, written in found.values_list(*columns).iterator():
        hour = moment_of(record).replace(minute=0, second=0, microsecond=0)
        hours.filter(space=space, user_id=user, key_id=key, model=model, hour=hour).update(
            error_input_tokens=models.F("error_input_tokens") + read,
            error_output_tokens=models.F("error_output_tokens") + written,
        )


def _space() -> models.ForeignKey[object, object]:
    return models.ForeignKey("tenants.space", DO_NOTHING, related_name="+", db_index=False, db_constraint=False)


class Migration(migrations.Migration):
    """Add the closed quarters of a space, and count the tokens of errors apart in the hourly roll-ups."""

    dependencies = [
        ("quotas", "0004_no_constraint"),
        ("tenants", "0001_initial"),
        ("usage", "0005_no_constraint"),
    ]

    operations = [
        migrations.AddField("hourlyusage", "error_input_tokens", models.BigIntegerField(default=0, db_default=0)),
        migrations.AddField("hourlyusage", "error_output_tokens", models.BigIntegerField(default=0, db_default=0)),
        migrations.CreateModel(
            "SpaceQuarter",
            [
                (
                    "id",
                    models.UUIDField(default=core.ids.new_id, editable=False, primary_key=True, serialize=False),
                ),
                ("space", _space()),
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
                    models.UniqueConstraint(fields=["space", "quarter", "model"], name="space_quarter_unique")
                ]
            },
        ),
        migrations.CreateModel(
            "QuarterMark",
            [
                (
                    "space",
                    models.OneToOneField(
                        "tenants.space",
                        DO_NOTHING,
                        primary_key=True,
                        related_name="quarter_mark",
                        serialize=False,
                        db_constraint=False,
                    ),
                ),
                ("through", models.DateTimeField()),
            ],
        ),
        migrations.RunPython(_count_tokens_of_errors, migrations.RunPython.noop),
        # The function names the new columns.
        InstallFunction("quotas_charge_set", app="quotas", file="charge_set_v2.sql", replaces="charge_set_v1.sql"),
    ]
