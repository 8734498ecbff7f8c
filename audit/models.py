from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Upper

from core.ids import new_id
from tenants.models import Space

# The `actor_role` of a management command.
COMMAND = "command"
# A space sees events of these actors as done by the operators, without a person's name.
OPERATOR_ROLES = ("operator", COMMAND)


class AuditEvent(models.Model):
    """One event or refused attempt: who did what to whom. Append-only, enforced by database triggers.

    Actor and target are ids and names at that moment and not foreign keys, so an event outlives both.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    space = models.ForeignKey(Space, on_delete=models.PROTECT, null=True, related_name="+", db_index=False)
    at = models.DateTimeField()
    kind = models.CharField(max_length=40)
    # The code of the rule that refused the attempt; empty for an event that took place.
    refusal = models.CharField(max_length=40, blank=True, default="")
    actor_id = models.BigIntegerField(null=True)
    actor_name = models.CharField(max_length=150)
    # The actor's role at that moment, or COMMAND; empty for the system and for refused sign-ins.
    actor_role = models.CharField(max_length=10, blank=True, default="")
    target_id = models.BigIntegerField(null=True)
    target_name = models.CharField(max_length=150)
    # The model that `target_id` refers to: ids of users, spaces, models and upstreams overlap.
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
            # Partial indexes for searches by a former name: of members, and of keys.
            models.Index(fields=["space"], condition=Q(kind="member.edited"), name="audit_edits"),
            models.Index(fields=["space"], condition=Q(kind="key.edited"), name="audit_key_edits"),
            # Searches of operators across all spaces.
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
