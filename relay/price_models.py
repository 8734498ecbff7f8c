"""Prices over time: of a model, of a model for one space, and of a model at one upstream. Imported by relay/models.py.

A row that has started is never changed, because requests were charged at it; the next one supersedes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Self

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import CheckConstraint, F, OuterRef, Q, Subquery, UniqueConstraint, Value
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from relay.price_rows import MAX_FACTOR_MILLIONTHS, PriceError, rows_of_json
from relay.prices import MAX_PRICE_NANOS, PRICES, PriceList, PriceRow, Rate, format_factor
from tenants.models import Space

_PRICE_LIMITS = [MinValueValidator(0), MaxValueValidator(MAX_PRICE_NANOS)]


class PriceStarted(Exception):
    """A price that has started cannot be changed or preceded by another. Set one that starts now instead."""


def validate_rows(value: Any) -> None:
    try:
        rows_of_json(value)
    except PriceError as error:
        raise ValidationError(str(error), "rows") from None


def _price() -> models.BigIntegerField[int, int]:
    return models.BigIntegerField(default=0, validators=_PRICE_LIMITS)


def _optional_price() -> models.BigIntegerField[int | None, int | None]:
    return models.BigIntegerField(null=True, blank=True, validators=_PRICE_LIMITS)


def prices_within_limits(name: str) -> CheckConstraint:
    # NULL passes a check constraint, so a price that is not set does.
    return CheckConstraint(condition=Q(**{f"{price}__range": (0, MAX_PRICE_NANOS) for price in PRICES}), name=name)


class PriceQuerySet(models.QuerySet[Any]):
    """Rows with a start; the class attribute `SUBJECT` of their model names the fields that one history shares."""

    def at(self, moment: datetime) -> Any:
        return self.filter(starts_at__lte=moment).order_by("-starts_at").first()

    def in_force(self, moment: datetime) -> Self:
        # COALESCE, because the subject of a space's terms for all models is NULL.
        same = {f"{name}_or_0": Coalesce(OuterRef(name), 0) for name in self.model.SUBJECT}
        others = self.model.objects.alias(**{f"{name}_or_0": Coalesce(F(name), 0) for name in self.model.SUBJECT})
        started = others.filter(starts_at__lte=moment, **same).order_by("-starts_at")
        return self.filter(pk=Subquery(started.values("pk")[:1]))

    def set_from(self, starts_at: datetime, subject: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
        """Set the values of a subject from a moment on. Returns False, and writes nothing, if they hold already.

        A row that has not started yet is replaced. Raises PriceStarted if a row that is in force started at that
        moment or later. Call it in a transaction that locks the subject.
        """
        history = self.filter(Q(**subject))
        before, now = history.at(starts_at), timezone.now()
        if before is not None and all(getattr(before, name) == value for name, value in values.items()):
            return False
        if starts_at <= now and history.filter(starts_at__gte=starts_at, starts_at__lte=now).exists():
            raise PriceStarted
        if not history.filter(starts_at=starts_at).update(**values):
            self.create(starts_at=starts_at, **subject, **values)
        return True


class PriceColumns(models.Model):
    """The columns of a PriceList: the base rate, and in `rows` what replaces parts of it under conditions.

    Token prices are nano-dollars per million tokens, the others nano-dollars each; NULL is "no price of its own".
    """

    SUBJECT: ClassVar[tuple[str, ...]]

    starts_at = models.DateTimeField(default=timezone.now)
    input = _price()
    cached_input = _price()
    output = _price()
    per_request = _price()
    per_image = _price()
    per_second = _price()
    cached_input_explicit = _optional_price()
    cache_write_5m = _optional_price()
    cache_write_1h = _optional_price()
    cache_write_12h = _optional_price()
    audio_input = _optional_price()
    audio_output = _optional_price()
    image_input = _optional_price()
    image_output = _optional_price()
    reasoning = _optional_price()
    citation = _optional_price()
    per_search = _optional_price()
    per_character = _optional_price()
    per_minute = _optional_price()
    rows = models.JSONField(
        default=list, db_default=Value([], models.JSONField()), blank=True, validators=[validate_rows]
    )

    objects = PriceQuerySet.as_manager()

    class Meta:
        abstract = True

    @property
    def rate(self) -> Rate:
        return Rate(**{name: getattr(self, name) for name in PRICES})

    @property
    def price_list(self) -> PriceList:
        return PriceList(self.rate, tuple(map(PriceRow.from_json, self.rows)))


def columns_of(prices: PriceList) -> dict[str, Any]:
    """The values of PriceColumns. Raises ValidationError for rows that cannot be."""
    rows = [row.to_json() for row in prices.rows]
    validate_rows(rows)
    return {name: getattr(prices.base, name) for name in PRICES} | {"rows": rows}


class Price(PriceColumns):
    """The price of a model from a moment on, until its next price starts. `Model.set_price` adds the next one."""

    SUBJECT = ("model",)

    model = models.ForeignKey("relay.Model", on_delete=models.CASCADE, related_name="prices", db_index=False)

    class Meta:
        ordering = ["model", "-starts_at"]
        constraints = [
            UniqueConstraint(fields=["model", "starts_at"], name="one_price_of_a_model_per_moment"),
            prices_within_limits("price_within_limits"),
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.starts_at:%Y-%m-%d %H:%M}"


class SpaceTerms(PriceColumns):
    """What one space pays for a model, or for all: the list price times a factor, or prices of its own.

    Terms of a model go before the space's terms for all. Without a factor the prices are its own; they need a model.
    """

    SUBJECT = ("space", "model")

    space = models.ForeignKey(Space, on_delete=models.PROTECT, related_name="+", db_index=False)
    model = models.ForeignKey("relay.Model", on_delete=models.CASCADE, related_name="terms", null=True, blank=True)
    factor_millionths = models.BigIntegerField(null=True, blank=True)

    class Meta:
        ordering = ["space", "model", "-starts_at"]
        verbose_name = verbose_name_plural = _("terms of a space")
        constraints = [
            UniqueConstraint(fields=["space", "model", "starts_at"], name="one_terms_of_a_model_per_moment"),
            UniqueConstraint(
                fields=["space", "starts_at"], condition=Q(model=None), name="one_terms_of_all_models_per_moment"
            ),
            CheckConstraint(
                # IS NOT NULL, because a check constraint passes what is neither true nor false.
                condition=Q(factor_millionths__isnull=False, factor_millionths__range=(0, MAX_FACTOR_MILLIONTHS))
                | Q(factor_millionths=None, model__isnull=False),
                name="terms_are_a_factor_or_prices_of_a_model",
            ),
            prices_within_limits("terms_within_limits"),
        ]

    def __str__(self) -> str:
        return f"{self.space}: {self.model or _('all models')}"

    def apply_to(self, prices: PriceList) -> PriceList:
        return self.price_list if self.factor_millionths is None else prices.scaled(self.factor_millionths)

    @property
    def text(self) -> str:
        return str(self.price_list) if self.factor_millionths is None else f"× {format_factor(self.factor_millionths)}"


class CostPrice(PriceColumns):
    """What a model costs the operator at one upstream from a moment on."""

    SUBJECT = ("upstream", "model")

    upstream = models.ForeignKey("relay.Upstream", on_delete=models.CASCADE, related_name="cost_prices", db_index=False)
    model = models.ForeignKey("relay.Model", on_delete=models.CASCADE, related_name="cost_prices")

    class Meta:
        ordering = ["upstream", "model", "-starts_at"]
        verbose_name, verbose_name_plural = _("cost price"), _("cost prices")
        constraints = [
            UniqueConstraint(fields=["upstream", "model", "starts_at"], name="one_cost_price_per_moment"),
            prices_within_limits("cost_price_within_limits"),
        ]

    def __str__(self) -> str:
        return f"{self.upstream}: {self.model} {self.starts_at:%Y-%m-%d %H:%M}"
