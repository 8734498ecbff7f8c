from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from tenants.ids import NIL, moment_of, new_id
from tenants.models import Space


class UsageRecord(models.Model):
    """One request and what was charged for it, in nano-dollars. Append-only: the database refuses changes.

    The id is a UUIDv7 made when settling, so the primary key is the time order. User, key and wallet are numbers and
    names as they were, without foreign keys that a delete would have to walk.
    """

    class Kind(models.TextChoices):
        CONSUME = "consume", _("Consume")
        ERROR = "error", _("Error")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    space = models.ForeignKey(
        Space, on_delete=models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False
    )
    wallet_id = models.UUIDField()
    user_id = models.BigIntegerField()
    username = models.CharField(max_length=64)
    key_id = models.UUIDField(default=NIL)
    key_name = models.CharField(max_length=80, blank=True)
    model = models.CharField(max_length=100)
    kind = models.CharField(max_length=7, choices=Kind.choices)
    request_id = models.UUIDField()
    input_tokens = models.BigIntegerField(default=0)
    cached_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    images = models.BigIntegerField(default=0)
    seconds = models.BigIntegerField(default=0)
    price = models.JSONField(default=dict)
    held = models.BigIntegerField(default=0)
    cost = models.BigIntegerField(default=0)
    shortfall = models.BigIntegerField(default=0)
    available_after = models.BigIntegerField()
    is_estimated = models.BooleanField(default=False)
    duration_ms = models.PositiveIntegerField(default=0)
    first_token_ms = models.PositiveIntegerField(null=True)
    status = models.PositiveSmallIntegerField(default=200)
    code = models.CharField(max_length=40, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(cost__gte=0, shortfall__gte=0, held__gte=0, available_after__gte=0),
                name="usage_not_negative",
            )
        ]
        indexes = [
            models.Index(fields=["space", "id"], name="usage_space_id"),
            models.Index(fields=["space", "user_id", "id"], name="usage_space_user_id"),
            models.Index(fields=["space", "request_id"], name="usage_space_request"),
        ]

    def __str__(self) -> str:
        return f"{self.username} {self.model}"

    @property
    def at(self) -> datetime:
        return moment_of(self.id)


class HourlyUsage(models.Model):
    """Requests, tokens and cost of one key and model in one UTC hour, raised in the transaction that settles."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    space = models.ForeignKey(
        Space, on_delete=models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False
    )
    user_id = models.BigIntegerField()
    key_id = models.UUIDField(default=NIL)
    model = models.CharField(max_length=100)
    hour = models.DateTimeField()
    requests = models.BigIntegerField(default=0)
    errors = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cost = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["space", "user_id", "key_id", "model", "hour"], name="hourly_usage_unique")
        ]
        indexes = [models.Index(fields=["space", "hour"], name="hourly_space_hour")]

    def __str__(self) -> str:
        return f"{self.user_id} {self.model} {self.hour}"
