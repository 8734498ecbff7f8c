"""Models on sale, their prices over time and the upstreams that serve them. Only operators change these."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction
from django.db.models import CheckConstraint, F, Q, UniqueConstraint
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from core import vault
from core.money import NANOS_PER_CENT
from core.names import MAX_MODEL_NAME_LENGTH
from relay.price_models import CostPrice, Price, PriceStarted, SpaceTerms, columns_of
from relay.prices import MAX_PRICE_NANOS, MAX_TOKENS, PriceList
from relay.profiles import KINDS, Profile, profile_of
from relay.upstream_settings import (
    MODEL_NAME,
    validate_headers,
    validate_model_names,
    validate_proxy,
    validate_query,
    validate_settings,
)
from tenants.models import Space

__all__ = ["CostPrice", "Model", "Price", "PriceStarted", "SpaceTerms", "StoredContent", "Upstream"]

MAX_TIMEOUT_S = 24 * 3600

validate_name = MODEL_NAME
_limits = [MinValueValidator(1), MaxValueValidator(MAX_TOKENS)]
_ceiling = [MinValueValidator(0), MaxValueValidator(MAX_PRICE_NANOS)]
_time = [MinValueValidator(1), MaxValueValidator(MAX_TIMEOUT_S)]


def validate_base_url(value: str) -> None:
    try:
        parts = urlsplit(value)
        is_address = (
            parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        is_address = False
    if not is_address or any(not 0x20 < ord(character) < 0x7F or character == "\\" for character in value):
        raise ValidationError(_("Enter an http:// or https:// address."), "not_an_address")
    # It would be stored in clear.
    if "@" in parts.netloc:
        raise ValidationError(_("Leave the credential out of the address; it has a field of its own."), "credential")
    # Paths are appended to the address.
    if "?" in value or "#" in value:
        raise ValidationError(_("Leave out everything from ? or # on."), "query")


def validate_credential(value: str) -> None:
    if not value:
        raise ValidationError(_("Enter a credential; it is empty."), "empty")
    # Other characters are not valid in an Authorization header.
    if not all("!" <= character <= "~" for character in value):
        raise ValidationError(_("Use only visible ASCII characters, without spaces."), "characters")


class ModelQuerySet(models.QuerySet["Model"]):
    def on_offer(self, moment: datetime) -> ModelQuerySet:
        return self.filter(is_enabled=True, upstreams__is_enabled=True, prices__starts_at__lte=moment).distinct()


class Model(models.Model):
    """A model on sale, with the limits from which the upper bound of a request's cost is computed.

    The ceilings are the most that one image or one minute of audio in a request costs.
    """

    name = models.CharField(max_length=MAX_MODEL_NAME_LENGTH, unique=True, validators=[validate_name])
    default_output_tokens = models.PositiveIntegerField(default=4096, validators=_limits)
    # The context window stands for it until an operator knows better: a lower limit would cut answers short.
    max_output_tokens = models.PositiveIntegerField(default=128_000, validators=_limits)
    context_tokens = models.PositiveIntegerField(default=128_000, validators=_limits)
    image_nanos_ceiling = models.BigIntegerField(default=5 * NANOS_PER_CENT, validators=_ceiling)
    audio_minute_nanos_ceiling = models.BigIntegerField(default=10 * NANOS_PER_CENT, validators=_ceiling)
    task_timeout_s = models.PositiveIntegerField(default=3600, validators=_time)
    is_enabled = models.BooleanField(default=True)

    objects = ModelQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            CheckConstraint(
                condition=Q(
                    default_output_tokens__gte=1,
                    default_output_tokens__lte=F("max_output_tokens"),
                    max_output_tokens__lte=MAX_TOKENS,
                    context_tokens__gte=1,
                    context_tokens__lte=MAX_TOKENS,
                    task_timeout_s__gte=1,
                ),
                name="model_limits_sane",
                violation_error_message=_("The default completion limit is at least 1 and at most the largest."),
            ),
            CheckConstraint(
                condition=Q(image_nanos_ceiling__gte=0, audio_minute_nanos_ceiling__gte=0),
                name="model_ceilings_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def has_price(self) -> bool:
        # Including a price that starts later.
        return Price.objects.filter(model=self.pk).exists()

    def price_at(self, moment: datetime) -> Price | None:
        return self.prices.filter(starts_at__lte=moment).order_by("-starts_at").first()

    @transaction.atomic
    def set_price(self, prices: PriceList, starts_at: datetime) -> bool:
        """Set the price from a moment on. Returns False, and writes nothing, if that is the price already.

        Raises PriceStarted if a price that is in force started at that moment or later.
        """
        # Lock the model's row, so that two operators cannot set a price for the same moment.
        Model.objects.select_for_update(no_key=True).get(pk=self.pk)
        return Price.objects.set_from(starts_at, {"model": self}, columns_of(prices))


class Upstream(models.Model):
    """A provider's endpoint that serves some models.

    Upstreams with a lower priority number are tried first; weights share requests among those of equal priority.
    """

    name = models.CharField(max_length=100, unique=True, validators=[validate_name])
    kind = models.CharField(max_length=20, default="openai")
    base_url = models.CharField(max_length=500, validators=[validate_base_url])
    # Encrypted by core/vault.py; empty if the upstream needs none.
    credential = models.TextField(blank=True, editable=False)
    # Values of the kind's profile that differ here; see relay/profiles.py.
    settings = models.JSONField(default=dict, blank=True)
    # Name → value, encrypted like the credential, because some values are secret.
    headers = models.JSONField(default=dict, blank=True, editable=False, validators=[validate_headers])
    query = models.JSONField(default=dict, blank=True, validators=[validate_query])
    proxy = models.CharField(max_length=500, blank=True, validators=[validate_proxy])
    proxy_credential = models.TextField(blank=True, editable=False)
    # Public name → the upstream's name, where they differ.
    model_names = models.JSONField(default=dict, blank=True, validators=[validate_model_names])
    priority = models.PositiveSmallIntegerField(default=0)
    weight = models.PositiveSmallIntegerField(default=1, validators=[MinValueValidator(1)])
    timeout_s = models.PositiveIntegerField(default=600, validators=_time)
    is_enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    # Must be the last field: below it, `models` is this field and no longer django.db.models.
    models = models.ManyToManyField(Model, related_name="upstreams", blank=True)

    class Meta:
        ordering = ["priority", "name"]
        constraints = [CheckConstraint(condition=Q(weight__gte=1, timeout_s__gte=1), name="upstream_figures_sane")]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        super().clean()
        if self.kind not in KINDS:
            kinds = ", ".join(KINDS)
            raise ValidationError({"kind": ValidationError(_("One of %(kinds)s."), "kind", {"kinds": kinds})})
        try:
            validate_settings(self.kind, self.settings)
        except ValidationError as error:
            raise ValidationError({"settings": error}) from None

    @property
    def profile(self) -> Profile:
        """Raises ProfileError if a stored setting is not valid, which `clean` prevents."""
        return profile_of(self.kind, self.settings)

    @property
    def has_credential(self) -> bool:
        return bool(self.credential)

    def seal(self, credential: str) -> None:
        """Only sets the field; the caller saves."""
        self.credential = vault.encrypt(credential) if credential else ""

    def unseal(self) -> str:
        """The decrypted credential, only for requests to the upstream; empty if there is none.

        Raises ImproperlyConfigured if none of CREDENTIAL_KEYS decrypts it.
        """
        return vault.decrypt(self.credential) if self.credential else ""

    def seal_header(self, name: str, value: str) -> None:
        """Set a header, or remove it if the value is empty. Only sets the field; the caller saves."""
        kept = {known: sealed for known, sealed in self.headers.items() if known.lower() != name.lower()}
        self.headers = kept | ({name: vault.encrypt(value)} if value else {})

    def unseal_headers(self) -> tuple[tuple[str, str], ...]:
        # Sorted, because PostgreSQL keeps no order of keys in JSON.
        return tuple((name, vault.decrypt(sealed)) for name, sealed in sorted(self.headers.items()))

    def seal_proxy(self, address: str, credential: str) -> None:
        self.proxy = address
        self.proxy_credential = vault.encrypt(credential) if credential else ""

    def unseal_proxy(self) -> str:
        """The proxy's address with its credential; empty if there is no proxy."""
        if not self.proxy_credential:
            return self.proxy
        return self.proxy.replace("://", f"://{vault.decrypt(self.proxy_credential)}@", 1)


class StoredContent(models.Model):
    """The id of a response or conversation that an upstream keeps for a user. relay/stored.py reads and writes it."""

    space = models.ForeignKey(Space, on_delete=models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False)
    user_id = models.BigIntegerField()
    upstream_id = models.BigIntegerField()
    object_id = models.CharField(max_length=200)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [UniqueConstraint(fields=["space", "object_id"], name="one_owner_of_stored_content")]
        indexes = [models.Index(fields=["created_at"], name="stored_content_by_age")]

    def __str__(self) -> str:
        return self.object_id
