"""The role of a user, which is what the policies decide by."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class Role(models.TextChoices):
    OPERATOR = "operator", _("Operator")
    MANAGER = "manager", _("Space Manager")
    ADMIN = "admin", _("Admin")
    NORMAL = "normal", _("Normal user")
