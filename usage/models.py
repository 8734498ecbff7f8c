from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import models
from django.db.models import Q, Value
from django.utils.translation import gettext_lazy as _

from core.ids import NIL, moment_of, new_id
from core.names import MAX_MODEL_NAME_LENGTH
from tenants.models import Space

# Younger records are never pruned: a late or repeated settlement looks up the record of its request.
MIN_KEPT_DAYS = 31


class UsageRecord(models.Model):
    """One request and its charge, in nano-dollars. Append-only: triggers refuse UPDATE and DELETE.

    The id is a UUIDv7 made at settlement, so the primary key sorts by time. User, key and wallet are copied ids and
    names, not foreign keys: deleting a user or key does not scan this table.
    """

    class Kind(models.TextChoices):
        CONSUME = "consume", _("Consume")
        ERROR = "error", _("Error")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    space = models.ForeignKey(Space, on_delete=models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False)
    wallet_id = models.UUIDField()
    user_id = models.BigIntegerField()
    username = models.CharField(max_length=64)
    key_id = models.UUIDField(default=NIL)
    key_name = models.CharField(max_length=80, blank=True)
    model = models.CharField(max_length=MAX_MODEL_NAME_LENGTH)
    kind = models.CharField(max_length=7, choices=Kind.choices)
    request_id = models.UUIDField()
    input_tokens = models.BigIntegerField(default=0)
    cached_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    images = models.BigIntegerField(default=0)
    seconds = models.BigIntegerField(default=0)
    # Counts that no column gives, such as cache writes (relay.pricing.Usage.quantities). This and the next two have a
    # database default because a relay of the version before these columns may still insert rows during an upgrade.
    quantities = models.JSONField(default=dict, db_default=Value({}, models.JSONField()))
    price = models.JSONField(default=dict)
    # What else is known of the request, by name: the price row, the upstream, the sentence of a refusal.
    details = models.JSONField(default=dict, db_default=Value({}, models.JSONField()))
    # What the request cost the operator, where its upstream has cost prices or tells its cost.
    upstream_cost = models.BigIntegerField(null=True)
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
    """Hourly roll-up: requests, tokens and cost of one user, key and model, raised in the settling transaction."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    space = models.ForeignKey(Space, on_delete=models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False)
    user_id = models.BigIntegerField()
    key_id = models.UUIDField(default=NIL)
    model = models.CharField(max_length=MAX_MODEL_NAME_LENGTH)
    hour = models.DateTimeField()
    requests = models.BigIntegerField(default=0)
    errors = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    # The part of the tokens above that belongs to errors, which cost nothing. They have a database default because a
    # relay of the version before these columns may still insert rows during an upgrade.
    error_input_tokens = models.BigIntegerField(default=0, db_default=0)
    error_output_tokens = models.BigIntegerField(default=0, db_default=0)
    cost = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["space", "user_id", "key_id", "model", "hour"], name="hourly_usage_unique")
        ]
        indexes = [models.Index(fields=["space", "hour"], name="hourly_space_hour")]

    def __str__(self) -> str:
        return f"{self.user_id} {self.model} {self.hour}"


class UsageCheckpoint(models.Model):
    """Sums of one month's pruned records for each wallet, user, key and model. Append-only.

    `through` is the first moment after that month. `reconcile` counts checkpoints in place of the pruned rows.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    space = models.ForeignKey(Space, on_delete=models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False)
    wallet_id = models.UUIDField()
    user_id = models.BigIntegerField()
    key_id = models.UUIDField(default=NIL)
    model = models.CharField(max_length=MAX_MODEL_NAME_LENGTH)
    through = models.DateTimeField()
    requests = models.BigIntegerField()
    errors = models.BigIntegerField()
    input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    spent = models.BigIntegerField()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(spent__gte=0, requests__gt=0), name="checkpoint_not_negative"),
        ]
        indexes = [models.Index(fields=["space", "through"], name="checkpoint_space_through")]

    def __str__(self) -> str:
        return f"{self.wallet_id} {self.through:%Y-%m-%d}"


class SpaceQuarter(models.Model):
    """Roll-up of a closed quarter of an hour: requests, tokens and cost of one space and model.

    Only usage/quarters.py writes it, from the usage records, up to the space's QuarterMark.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    space = models.ForeignKey(Space, on_delete=models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False)
    model = models.CharField(max_length=MAX_MODEL_NAME_LENGTH)
    quarter = models.DateTimeField()
    requests = models.BigIntegerField(default=0)
    errors = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    error_input_tokens = models.BigIntegerField(default=0)
    error_output_tokens = models.BigIntegerField(default=0)
    cost = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["space", "quarter", "model"], name="space_quarter_unique")]

    def __str__(self) -> str:
        return f"{self.model} {self.quarter}"


class QuarterMark(models.Model):
    """The moment up to which a space's quarters are closed. Closing, reopening and pruning lock this row."""

    space = models.OneToOneField(
        Space, on_delete=models.DO_NOTHING, primary_key=True, related_name="quarter_mark", db_constraint=False
    )
    through = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.space_id} {self.through}"


class Task(models.Model):
    """An asynchronous job that was submitted through the relay. Its row is written before its upstream hears of it.

    Its id is the request id, which the hold, the usage record and the client's task id share. An unfinished task has a
    `next_poll_at`; a finished one has none and never changes. Only relay/tasks.py writes it. User and key are copied
    ids and names, not foreign keys: deleting one does not scan this table.
    """

    class Kind(models.TextChoices):
        VIDEO = "video", _("Video")

    class Status(models.TextChoices):
        QUEUED = "queued", _("Queued")
        IN_PROGRESS = "in_progress", _("In Progress")
        SUCCESS = "success", _("Success")
        FAILED = "failed", _("Failed")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    space = models.ForeignKey(Space, on_delete=models.DO_NOTHING, related_name="+", db_index=False)
    user_id = models.BigIntegerField()
    username = models.CharField(max_length=64)
    key_id = models.UUIDField(default=NIL)
    key_name = models.CharField(max_length=80, blank=True)
    model = models.CharField(max_length=MAX_MODEL_NAME_LENGTH)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    status = models.CharField(max_length=11, choices=Status.choices, default=Status.QUEUED)
    progress = models.PositiveSmallIntegerField(default=0)
    # The upstream's name, id and task id; empty until an upstream has accepted the task.
    platform = models.CharField(max_length=100, blank=True)
    upstream_id = models.BigIntegerField(null=True)
    upstream_task_id = models.CharField(max_length=200, blank=True)
    # The upstream's last JSON response. Text, because PostgreSQL's jsonb rejects \u0000.
    answer = models.TextField(blank=True)
    # Requested quantities; after success, the charged ones.
    images = models.BigIntegerField(default=0)
    seconds = models.BigIntegerField(default=0)
    price = models.JSONField(default=dict)
    cost = models.BigIntegerField(null=True)
    code = models.CharField(max_length=40, blank=True)
    submitted_at = models.DateTimeField()
    deadline_at = models.DateTimeField()
    polled_at = models.DateTimeField(null=True)
    next_poll_at = models.DateTimeField(null=True)
    # Consecutive polls without a usable response.
    misses = models.PositiveIntegerField(default=0)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(progress__lte=100), name="task_progress_percent"),
            models.CheckConstraint(
                condition=Q(
                    status__in=["queued", "in_progress"], finished_at=None, next_poll_at__isnull=False, cost=None
                )
                | Q(status="success", finished_at__isnull=False, next_poll_at=None, cost__gte=0)
                | Q(status="failed", finished_at__isnull=False, next_poll_at=None, cost=None),
                name="task_status_matches_end",
            ),
        ]
        indexes = [
            models.Index(fields=["space", "id"], name="task_space_id"),
            models.Index(fields=["space", "user_id", "id"], name="task_space_user_id"),
            models.Index(fields=["next_poll_at"], condition=Q(next_poll_at__isnull=False), name="task_due"),
        ]

    def __str__(self) -> str:
        return self.public_id

    @property
    def request_id(self) -> UUID:
        return self.id

    @property
    def public_id(self) -> str:
        return f"{self.kind}_{self.id.hex}"

    @property
    def is_finished(self) -> bool:
        return self.finished_at is not None
