from __future__ import annotations

from django.db import models

from tenants.ids import new_id
from tenants.models import Space


class AuditEvent(models.Model):
    """One act and who did it to whom. Append-only: the database refuses UPDATE and DELETE.

    Actor and target are numbers and names as they were, not foreign keys: a row survives both.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    space = models.ForeignKey(Space, on_delete=models.PROTECT, null=True, related_name="+", db_index=False)
    at = models.DateTimeField()
    kind = models.CharField(max_length=40)
    actor_id = models.BigIntegerField(null=True)
    actor_name = models.CharField(max_length=150)
    target_id = models.BigIntegerField(null=True)
    target_name = models.CharField(max_length=150)
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)
    address = models.GenericIPAddressField(null=True)
    request_id = models.CharField(max_length=64, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["space", "id"], name="audit_space_id")]

    def __str__(self) -> str:
        return f"{self.actor_name} {self.kind} {self.target_name}"
