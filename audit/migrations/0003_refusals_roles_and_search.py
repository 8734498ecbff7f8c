from __future__ import annotations

from typing import Any

import django.db.models.functions.text
from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Q

from core import append_only
from core.append_only import AppendOnly


def fill_target_type_and_actor_role(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Backfill `target_type` from the kind, and `actor_role` from the actor's user.

    The append-only triggers are dropped first; the last operation of this migration creates them again.
    """
    event: Any = apps.get_model("audit", "AuditEvent")
    user: Any = apps.get_model("accounts", "User")
    append_only.remove(schema_editor, event._meta.db_table)
    event.objects.filter(Q(kind__startswith="space.") | Q(kind__startswith="pool.")).update(target_type="space")
    for role in user.objects.order_by().values_list("role", flat=True).distinct():
        event.objects.filter(actor_id__in=user.objects.filter(role=role).values("pk")).update(actor_role=role)


class Migration(migrations.Migration):
    dependencies = [("accounts", "0003_apikey"), ("audit", "0002_append_only")]

    operations = [
        migrations.AddField("auditevent", "refusal", models.CharField(blank=True, default="", max_length=40)),
        migrations.AddField("auditevent", "actor_role", models.CharField(blank=True, default="", max_length=10)),
        migrations.AddField("auditevent", "target_type", models.CharField(blank=True, default="user", max_length=10)),
        migrations.RunPython(fill_target_type_and_actor_role, migrations.RunPython.noop),
        migrations.AddIndex(
            "auditevent", models.Index(fields=["space", "actor_id", "id"], name="audit_actor")
        ),
        migrations.AddIndex(
            "auditevent",
            models.Index(
                condition=Q(target_type="user"), fields=["space", "target_id", "id"], name="audit_target"
            ),
        ),
        migrations.AddIndex(
            "auditevent",
            models.Index(fields=["request_id"], condition=~Q(request_id=""), name="audit_request"),
        ),
        migrations.AddIndex(
            "auditevent",
            models.Index(
                fields=["address", "id"], condition=Q(address__isnull=False), name="audit_address"
            ),
        ),
        migrations.AddIndex(
            "auditevent",
            models.Index(
                django.db.models.functions.text.Upper("actor_name"), models.F("id"), name="audit_actor_name"
            ),
        ),
        migrations.AddIndex(
            "auditevent",
            models.Index(
                django.db.models.functions.text.Upper("target_name"), models.F("id"), name="audit_target_name"
            ),
        ),
        migrations.AddIndex(
            "auditevent",
            models.Index(condition=Q(kind="member.edited"), fields=["space"], name="audit_edits"),
        ),
        AppendOnly("AuditEvent"),
    ]
