from __future__ import annotations

from django.db import models
from django.db.models.functions import Lower


class Space(models.Model):
    """One tenant. Its members are numbered 1, 2, 3 …; number 1 is its manager."""

    name = models.CharField(max_length=80)
    # Incremented in the transaction that creates a member, so that a number is never used twice.
    last_number = models.PositiveIntegerField(default=0, editable=False)
    # Created by the demo command, with published passwords; production refuses to start with such a space.
    is_demo = models.BooleanField(default=False, editable=False)
    # Admins without a second factor are redirected to its set-up and can do nothing else until it is done.
    requires_second_factor = models.BooleanField(default=False, editable=False)
    suspended_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(Lower("name"), name="space_name_unique")]

    def __str__(self) -> str:
        return self.name

    @property
    def is_suspended(self) -> bool:
        return self.suspended_at is not None
