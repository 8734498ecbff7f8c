"""What the relay sells and where it buys: models, their prices from a date on, upstreams. Operators' alone."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models, transaction
from django.db.models import CheckConstraint, F, OuterRef, Q, Subquery, UniqueConstraint
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from core import vault
from core.money import NANOS_PER_CENT
from relay.pricing import MAX_PRICE_NANOS, MAX_TOKENS, Rate

MAX_TIMEOUT_S = 24 * 3600

validate_name = RegexValidator(
    r"\A[A-Za-z0-9][A-Za-z0-9._:/@+-]*\Z", _("Use only the letters A-Z, digits and . _ : / @ + -"), "letters"
)
_limits = [MinValueValidator(1), MaxValueValidator(MAX_TOKENS)]
_ceiling = [MinValueValidator(0), MaxValueValidator(MAX_PRICE_NANOS)]
_time = [MinValueValidator(1), MaxValueValidator(MAX_TIMEOUT_S)]


def validate_base_url(value: str) -> None:
    """An http or https address to which paths are added; a credential has a field of its own, encrypted."""
    try:
        parts = urlsplit(value)
        is_address = (
            parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        is_address = False
    if not is_address or any(not 0x20 < ord(character) < 0x7F or character == "\\" for character in value):
        raise ValidationError(_("Enter an http:// or https:// address."), "not_an_address")
    if "@" in parts.netloc:
        raise ValidationError(_("Leave the credential out of the address; it has a field of its own."), "credential")
    if "?" in value or "#" in value:
        raise ValidationError(_("Leave out everything from ? or # on."), "query")


def validate_credential(value: str) -> None:
    """What fits into a header: visible ASCII without spaces."""
    if not value:
        raise ValidationError(_("Enter a credential; it is empty."), "empty")
    if not all("!" <= character <= "~" for character in value):
        raise ValidationError(_("Use only visible ASCII characters, without spaces."), "characters")


class ModelQuerySet(models.QuerySet["Model"]):
    def on_offer(self, moment: datetime) -> ModelQuerySet:
        """Enabled, with a price in force, and served by an enabled upstream."""
        return self.filter(is_enabled=True, upstreams__is_enabled=True, prices__starts_at__lte=moment).distinct()


class Model(models.Model):
    """What a request may name as its model, and what bounds the dearest it can cost.

    Default and largest completion limit, the context window, and what one picture or one minute of sound costs at most.
    """

    name = models.CharField(max_length=100, unique=True, validators=[validate_name])
    default_output_tokens = models.PositiveIntegerField(default=4096, validators=_limits)
    max_output_tokens = models.PositiveIntegerField(default=4096, validators=_limits)
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
        """Whether it has a price, be it one that starts later."""
        return Price.objects.filter(model=self.pk).exists()

    def price_at(self, moment: datetime) -> Price | None:
        """The price in force: the one that started last. None before the first."""
        return self.prices.filter(starts_at__lte=moment).order_by("-starts_at").first()

    @transaction.atomic
    def set_price(self, rate: Rate, starts_at: datetime) -> bool:
        """A price from a moment on; False, and nothing written, where it is that already.

        Raises PriceStarted when a price is in force that started at that moment or later: what was charged for stays.
        One that has not started yet is replaced.
        """
        # The model's row keeps two operators from writing the same price.
        Model.objects.select_for_update(no_key=True).get(pk=self.pk)
        before = self.price_at(starts_at)
        if before is not None and before.rate == rate:
            return False
        now = timezone.now()
        if starts_at <= now and self.prices.filter(starts_at__gte=starts_at, starts_at__lte=now).exists():
            raise PriceStarted
        self.prices.update_or_create(starts_at=starts_at, defaults=rate.snapshot())
        return True


class PriceStarted(Exception):
    """A price in force is never changed, nor one put before it: set another one from now on."""


class PriceQuerySet(models.QuerySet["Price"]):
    def in_force(self, moment: datetime) -> PriceQuerySet:
        """Of every model the price that started last, in one statement."""
        started = Price.objects.filter(model=OuterRef("model"), starts_at__lte=moment).order_by("-starts_at")
        return self.filter(pk=Subquery(started.values("pk")[:1]))


def _price(**options: Any) -> models.BigIntegerField[int, int]:
    return models.BigIntegerField(default=0, validators=_ceiling, **options)


class Price(models.Model):
    """What a model costs from a moment on, until its next price starts.

    Input, cached input and output in nano-dollars per million tokens, the others in nano-dollars each. A price that
    has started is not changed: set_price adds the next.
    """

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="prices", db_index=False)
    starts_at = models.DateTimeField(default=timezone.now)
    input = _price()
    cached_input = _price()
    output = _price()
    per_request = _price()
    per_image = _price()
    per_second = _price()

    objects = PriceQuerySet.as_manager()

    class Meta:
        ordering = ["model", "-starts_at"]
        constraints = [
            UniqueConstraint(fields=["model", "starts_at"], name="one_price_of_a_model_per_moment"),
            CheckConstraint(
                condition=Q(
                    input__range=(0, MAX_PRICE_NANOS),
                    cached_input__range=(0, MAX_PRICE_NANOS),
                    output__range=(0, MAX_PRICE_NANOS),
                    per_request__range=(0, MAX_PRICE_NANOS),
                    per_image__range=(0, MAX_PRICE_NANOS),
                    per_second__range=(0, MAX_PRICE_NANOS),
                ),
                name="price_within_limits",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.starts_at:%Y-%m-%d %H:%M}"

    @property
    def rate(self) -> Rate:
        return Rate(
            input=self.input,
            cached_input=self.cached_input,
            output=self.output,
            per_request=self.per_request,
            per_image=self.per_image,
            per_second=self.per_second,
        )


class Upstream(models.Model):
    """A server that answers for some models. Lower priority is asked first; weight shares among equals."""

    name = models.CharField(max_length=100, unique=True, validators=[validate_name])
    base_url = models.CharField(max_length=500, validators=[validate_base_url])
    # Encrypted: see vault.py. Empty where the upstream asks for none.
    credential = models.TextField(blank=True, editable=False)
    priority = models.PositiveSmallIntegerField(default=0)
    weight = models.PositiveSmallIntegerField(default=1, validators=[MinValueValidator(1)])
    timeout_s = models.PositiveIntegerField(default=600, validators=_time)
    is_enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    # Last of the fields, because from here on the word means the field.
    models = models.ManyToManyField(Model, related_name="upstreams", blank=True)

    class Meta:
        ordering = ["priority", "name"]
        constraints = [CheckConstraint(condition=Q(weight__gte=1, timeout_s__gte=1), name="upstream_figures_sane")]

    def __str__(self) -> str:
        return self.name

    @property
    def has_credential(self) -> bool:
        return bool(self.credential)

    def seal(self, credential: str) -> None:
        """Keep a credential, encrypted; the caller saves."""
        self.credential = vault.encrypt(credential) if credential else ""

    def unseal(self) -> str:
        """The credential in clear, for the request to the upstream alone; empty where there is none.

        Raises ImproperlyConfigured when none of CREDENTIAL_KEYS opens it.
        """
        return vault.decrypt(self.credential) if self.credential else ""
