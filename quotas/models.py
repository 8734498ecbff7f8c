"""Wallets and what changes them: transfers, holds, and the outcomes of reconciliation. All amounts are in nanos."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

from accounts.models import User
from core.ids import NIL, new_id
from core.money import MAX_AMOUNT_NANOS
from tenants.models import Space


class Wallet(models.Model):
    """The money of a space's pool or of one member.

    The manager spends from the pool. A deleted member's wallet is closed but kept, for its spending and open holds.
    Only quotas/services.py, quotas/charging.py and the SQL function for sets write it.
    """

    class Kind(models.TextChoices):
        POOL = "pool", _("Pool")
        MEMBER = "member", _("Member")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    space = models.ForeignKey(Space, on_delete=models.PROTECT, related_name="wallets", db_index=False)
    kind = models.CharField(max_length=6, choices=Kind.choices)
    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="wallet")
    total = models.BigIntegerField(default=0)
    allocated = models.BigIntegerField(default=0)
    spent = models.BigIntegerField(default=0)
    held = models.BigIntegerField(default=0)
    is_closed = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["space"], condition=Q(kind="pool"), name="one_pool_per_space"),
            models.UniqueConstraint(fields=["space", "user"], name="one_wallet_per_member"),
            models.CheckConstraint(
                condition=Q(kind="pool", user=None) | Q(kind="member", user__isnull=False, allocated=0),
                name="wallet_kind_matches_owner",
            ),
            models.CheckConstraint(
                condition=Q(total__gte=0, allocated__gte=0, spent__gte=0, held__gte=0), name="wallet_not_negative"
            ),
            models.CheckConstraint(
                condition=Q(total__gte=F("allocated") + F("spent") + F("held")), name="wallet_covers_what_it_gave"
            ),
            models.CheckConstraint(condition=Q(total__lte=MAX_AMOUNT_NANOS), name="wallet_within_limit"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.pk}"

    @property
    def available(self) -> int:
        return self.total - self.allocated - self.spent - self.held

    @property
    def remaining(self) -> int:
        """Total minus spent, so it includes money on hold: the first figure of `$2.00 / $5.00`."""
        return self.total - self.spent


# Stored in English; translated when it is shown, into the viewer's language.
FIRST_GRANT = gettext_noop("First grant")


class Transfer(models.Model):
    """One movement of money between operator, pool and member. Append-only: a trigger refuses UPDATE and DELETE.

    A grant has no `source` and a revoke no `target`, because the operator has no wallet. Names and balances are those
    at the moment of the transfer.
    """

    class Kind(models.TextChoices):
        GRANT = "grant", _("Granted")
        REVOKE = "revoke", _("Taken back")
        ALLOCATE = "allocate", _("Allocated")
        RECLAIM = "reclaim", _("Reclaimed")
        RETURN = "return", _("Returned")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    space = models.ForeignKey(Space, on_delete=models.PROTECT, related_name="transfers", db_index=False)
    at = models.DateTimeField()
    kind = models.CharField(max_length=8, choices=Kind.choices)
    amount = models.BigIntegerField()
    # No foreign key constraint between tenant tables (docs/decisions/004); reconcile finds orphans.
    source = models.ForeignKey(
        Wallet, on_delete=models.DO_NOTHING, null=True, db_constraint=False, db_index=False, related_name="+"
    )
    target = models.ForeignKey(
        Wallet, on_delete=models.DO_NOTHING, null=True, db_constraint=False, db_index=False, related_name="+"
    )
    member_number = models.PositiveIntegerField(null=True)
    member_name = models.CharField(max_length=64, blank=True)
    actor = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+", db_index=False)
    actor_name = models.CharField(max_length=64, blank=True)
    reason = models.CharField(max_length=200, blank=True)
    pool_total_after = models.BigIntegerField()
    pool_available_after = models.BigIntegerField()
    member_total_after = models.BigIntegerField(null=True)
    member_remaining_after = models.BigIntegerField(null=True)
    idempotency_key = models.CharField(max_length=80)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["space", "idempotency_key"], name="transfer_key_unique"),
            models.CheckConstraint(condition=Q(amount__gt=0), name="transfer_amount_positive"),
            models.CheckConstraint(
                condition=Q(kind="grant", source=None, target__isnull=False)
                | Q(kind="revoke", source__isnull=False, target=None)
                | Q(kind__in=["allocate", "reclaim", "return"], source__isnull=False, target__isnull=False),
                name="transfer_kind_matches_ends",
            ),
        ]
        indexes = [
            models.Index(fields=["space", "id"], name="transfer_space_id"),
            models.Index(fields=["space", "member_number", "id"], name="transfer_space_member_id"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.amount}"


class Hold(models.Model):
    """Money set aside for a request in flight. Renewed while the answer runs; deleted by settle, release or sweep.

    The hold of a request to a free model is zero.

    Its id is the request's id, which makes it the idempotency key of all steps.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    # No foreign key constraint: each insert would check it and lock the space's row (FOR KEY SHARE).
    space = models.ForeignKey(
        Space, on_delete=models.PROTECT, related_name="holds", db_index=False, db_constraint=False
    )
    wallet = models.ForeignKey(
        Wallet, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="holds"
    )
    user_id = models.BigIntegerField()
    key_id = models.UUIDField(default=NIL)
    key_name = models.CharField(max_length=80, blank=True)
    model = models.CharField(max_length=100)
    amount = models.BigIntegerField()
    # Cost of the answer at the last renewal; the sweep charges it when the request is never settled.
    accrued = models.BigIntegerField(default=0)
    delivered_bytes = models.BigIntegerField(default=0)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(amount__gte=0, accrued__gte=0, accrued__lte=F("amount")), name="hold_not_negative"
            )
        ]
        indexes = [
            models.Index(fields=["space", "wallet"], name="hold_space_wallet"),
            models.Index(fields=["expires_at"], name="hold_expires_at"),
        ]

    def __str__(self) -> str:
        return str(self.pk)


class Reconciliation(models.Model):
    """The outcome of one comparison of a space's balances with its journal, holds and usage."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    space = models.ForeignKey(Space, on_delete=models.PROTECT, related_name="reconciliations", db_index=False)
    at = models.DateTimeField()
    is_balanced = models.BooleanField()
    differences = models.JSONField(default=list)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["space", "is_balanced", "id"], name="reconciliation_space")]

    def __str__(self) -> str:
        return f"{self.space_id} {self.at:%Y-%m-%d %H:%M}"
