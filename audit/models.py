from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Upper

from core.ids import new_id
from tenants.models import Space

# The actor is one of the management commands, named as such.
COMMAND = "command"
# What an operator did is told to a space as the office's, not as one person's.
OPERATOR_ROLES = ("operator", COMMAND)


class AuditEvent(models.Model):
    """One act, or one refused attempt at it, and who did it to whom. Append-only: the database refuses to change a row.

    Actor and target are numbers and names as they were, not foreign keys: a row survives both.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    space = models.ForeignKey(Space, on_delete=models.PROTECT, null=True, related_name="+", db_index=False)
    at = models.DateTimeField()
    kind = models.CharField(max_length=40)
    # Why nothing happened; empty where it did.
    refusal = models.CharField(max_length=40, blank=True, default="")
    actor_id = models.BigIntegerField(null=True)
    actor_name = models.CharField(max_length=150)
    # What the actor was then: a role, COMMAND, or nothing where it was the system or somebody who never got in.
    actor_role = models.CharField(max_length=10, blank=True, default="")
    target_id = models.BigIntegerField(null=True)
    target_name = models.CharField(max_length=150)
    # Numbers of people, spaces and models overlap: what `target_id` counts.
    target_type = models.CharField(max_length=10, blank=True, default="user")
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)
    address = models.GenericIPAddressField(null=True)
    request_id = models.CharField(max_length=64, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["space", "id"], name="audit_space_id"),
            models.Index(fields=["space", "actor_id", "id"], name="audit_actor"),
            models.Index(fields=["space", "target_id", "id"], condition=Q(target_type="user"), name="audit_target"),
            # Among these are the names that people bore once.
            models.Index(fields=["space"], condition=Q(kind="member.edited"), name="audit_edits"),
            # And among these those of keys.
            models.Index(fields=["space"], condition=Q(kind="key.edited"), name="audit_key_edits"),
            # What operators search by, over all spaces.
            models.Index(fields=["request_id"], condition=~Q(request_id=""), name="audit_request"),
            models.Index(fields=["address", "id"], condition=Q(address__isnull=False), name="audit_address"),
            models.Index(Upper("actor_name"), "id", name="audit_actor_name"),
            models.Index(Upper("target_name"), "id", name="audit_target_name"),
        ]

    def __str__(self) -> str:
        return f"{self.actor_name} {self.kind} {self.target_name}"

    @property
    def is_refused(self) -> bool:
        return bool(self.refusal)

    @property
    def is_of_office(self) -> bool:
        return self.actor_role in OPERATOR_ROLES
