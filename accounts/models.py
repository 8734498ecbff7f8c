from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext_lazy as _

from audit.services import record
from core.ids import new_id
from core.locales import validate_language, validate_zone
from core.names import validate_display_name, validate_username
from tenants.models import Space
from tenants.roles import Role


class Theme(models.TextChoices):
    SYSTEM = "", _("System")
    LIGHT = "light", _("Light")
    DARK = "dark", _("Dark")


class UndeletedUsers(BaseUserManager["User"]):
    """Users that are not deleted. A deleted user's row stays as a tombstone, because transfers and logs refer to it."""

    def get_queryset(self) -> models.QuerySet[User]:
        return super().get_queryset().filter(deleted_at__isnull=True)

    def get_by_natural_key(self, username: str | None) -> User:
        return self.alias(folded=Lower("username")).get(folded=(username or "").lower())

    def create_superuser(self, username: str, password: str | None = None, **_fields: Any) -> User:
        # Django's createsuperuser command calls this method by its name.
        user = User(username=username, role=Role.OPERATOR)
        user.set_password(password)
        with transaction.atomic(using=self._db):
            user.save(using=self._db)
            record("operator.created", space=None, actor=None, target=user, after={"username": username})
        return user


class User(AbstractBaseUser):
    """A person or program that signs in: an operator, or a member of exactly one space."""

    space = models.ForeignKey(
        Space, on_delete=models.PROTECT, null=True, blank=True, related_name="people", db_index=False
    )
    number = models.PositiveIntegerField(null=True, blank=True)
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.NORMAL)
    username = models.CharField(max_length=64, validators=[validate_username])
    display_name = models.CharField(max_length=80, blank=True, validators=[validate_display_name])
    # If blank: the browser's language, UTC, and the theme of the operating system.
    language = models.CharField(max_length=10, blank=True, validators=[validate_language])
    time_zone = models.CharField(max_length=64, blank=True, validators=[validate_zone])
    theme = models.CharField(max_length=5, choices=Theme.choices, default=Theme.SYSTEM, blank=True)
    is_active = models.BooleanField(default=True)
    # Part of the session auth hash: incremented to end all sessions while the password stays.
    session_epoch = models.PositiveIntegerField(default=0, editable=False)
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects: ClassVar[UndeletedUsers] = UndeletedUsers()
    everyone: ClassVar[models.Manager[User]] = models.Manager()

    USERNAME_FIELD = "username"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        base_manager_name = "everyone"
        constraints = [
            models.UniqueConstraint(Lower("username"), condition=Q(deleted_at=None), name="username_unique"),
            models.UniqueConstraint(fields=["space", "number"], name="user_number_unique"),
            models.UniqueConstraint(fields=["space"], condition=Q(role=Role.MANAGER), name="one_manager_per_space"),
            models.CheckConstraint(
                condition=Q(role=Role.OPERATOR, space=None, number=None)
                | Q(role=Role.MANAGER, space__isnull=False, number=1)
                | Q(role__in=[Role.ADMIN, Role.NORMAL], space__isnull=False, number__gt=1),
                name="user_role_matches_place",
            ),
            models.CheckConstraint(condition=Q(deleted_at=None) | Q(is_active=False), name="deleted_user_is_disabled"),
            models.CheckConstraint(condition=Q(theme__in=Theme.values), name="user_theme_known"),
        ]
        indexes = [
            models.Index(
                "space", Lower("username"), "number", condition=Q(deleted_at=None), name="user_space_username"
            ),
            models.Index(
                "space", Lower("username"), condition=Q(deleted_at__isnull=False), name="user_deleted_username"
            ),
            # Index-only scan that counts the members of a space, for the pagination of User Management.
            models.Index(fields=["space", "number"], condition=Q(deleted_at=None), name="user_space_number"),
        ]

    def __str__(self) -> str:
        return self.username

    @property
    def is_operator(self) -> bool:
        return self.role == Role.OPERATOR

    @property
    def is_manager(self) -> bool:
        return self.role == Role.MANAGER

    @property
    def is_admin(self) -> bool:
        return self.role == Role.ADMIN

    @property
    def name(self) -> str:
        return self.display_name or self.username

    @property
    def may_sign_in(self) -> bool:
        return self.is_active and self.deleted_at is None and (self.space is None or self.space.suspended_at is None)

    def get_session_auth_hash(self) -> str:
        return self._session_hash()

    def get_session_auth_fallback_hash(self) -> Any:
        for secret in settings.SECRET_KEY_FALLBACKS:
            yield self._session_hash(secret=secret)

    def _session_hash(self, secret: str | bytes | None = None) -> str:
        # A change of the password or of the epoch ends all sessions of the user.
        bound = f"{self.password}:{self.session_epoch}"
        return salted_hmac("accounts.session", bound, secret=secret, algorithm="sha256").hexdigest()

    # Django admin checks the following. Operators may open it, and each ModelAdmin restricts what can be done there.
    @property
    def is_staff(self) -> bool:
        return self.is_operator

    @property
    def is_superuser(self) -> bool:
        return self.is_operator

    def has_perm(self, perm: str, obj: object = None) -> bool:
        return self.is_active and self.is_operator

    def has_module_perms(self, app_label: str) -> bool:
        return self.is_active and self.is_operator


class UndeletedKeys(models.Manager["ApiKey"]):
    """Keys that are not deleted. A deleted key's row stays as a tombstone, because holds and logs refer to it."""

    def get_queryset(self) -> models.QuerySet[ApiKey]:
        return super().get_queryset().filter(deleted_at__isnull=True)


class ApiKey(models.Model):
    """A credential of a user's programs for the relay. The secret itself is stored nowhere: see accounts/keys.py.

    The limit is enforced like a wallet's, under the lock of the owner's wallet: `spent` and `held` (nanos) change in
    the same transaction as the wallet.
    """

    class Status(models.TextChoices):
        ENABLED = "enabled", _("Enabled")
        DISABLED = "disabled", _("Disabled")
        EXPIRED = "expired", _("Expired")
        EXHAUSTED = "exhausted", _("Exhausted")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    space = models.ForeignKey(Space, on_delete=models.PROTECT, related_name="keys", db_index=False)
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="keys", db_index=False)
    number = models.PositiveIntegerField()
    name = models.CharField(max_length=80, validators=[validate_display_name])
    hash = models.CharField(max_length=64)
    prefix = models.CharField(max_length=30)
    last_four = models.CharField(max_length=4)
    # The hash of the secret before a rotation, valid until `old_until`.
    old_hash = models.CharField(max_length=64, blank=True)
    old_until = models.DateTimeField(null=True)
    limit = models.BigIntegerField(null=True)
    spent = models.BigIntegerField(default=0)
    held = models.BigIntegerField(default=0)
    models_allowed = models.JSONField(default=list)
    ips_allowed = models.JSONField(default=list)
    expires_at = models.DateTimeField(null=True)
    is_enabled = models.BooleanField(default=True)
    last_used_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField()
    deleted_at = models.DateTimeField(null=True)

    objects: ClassVar[UndeletedKeys] = UndeletedKeys()
    with_deleted = models.Manager["ApiKey"]()

    class Meta:
        verbose_name = "API key"
        base_manager_name = "with_deleted"
        constraints = [
            models.UniqueConstraint(fields=["space", "hash"], name="key_hash_unique"),
            models.UniqueConstraint(fields=["space", "user", "number"], name="key_number_unique"),
            models.CheckConstraint(
                condition=Q(spent__gte=0, held__gte=0) & (Q(limit=None) | Q(limit__gt=0)), name="key_figures_sane"
            ),
            models.CheckConstraint(
                condition=Q(old_hash="", old_until=None) | (~Q(old_hash="") & Q(old_until__isnull=False)),
                name="key_old_secret_ends",
            ),
        ]
        indexes = [
            models.Index("space", "old_hash", condition=~Q(old_hash=""), name="key_old_hash"),
            models.Index("space", "name", name="key_name"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.shown})"

    @property
    def shown(self) -> str:
        return f"{self.prefix}…{self.last_four}"

    @property
    def has_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()

    @property
    def status(self) -> Status:
        if not self.is_enabled:
            return self.Status.DISABLED
        if self.has_expired:
            return self.Status.EXPIRED
        if self.limit is not None and self.spent >= self.limit:
            return self.Status.EXHAUSTED
        return self.Status.ENABLED
