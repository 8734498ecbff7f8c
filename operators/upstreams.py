"""Models with their prices in Django admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AdminSplitDateTime
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.fields import AmountField
from core.money import format_balance, format_exact
from operators.deeds import acting_operator
from relay.models import Model, Price, PriceStarted
from relay.pricing import MAX_PRICE_NANOS, Rate
from relay.services import audit_values, record_change, set_price


class UsdField(AmountField):
    """An editable amount in USD: shown with all its digits and parsed to nano-dollars."""

    def prepare_value(self, value: Any) -> Any:
        return format_exact(value) if isinstance(value, int) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed(self.prepare_value(initial), data)

    def clean(self, value: Any) -> int | None:
        nanos = super().clean(value)
        if nanos is not None and nanos > MAX_PRICE_NANOS:
            most = format_balance(MAX_PRICE_NANOS)
            raise forms.ValidationError(_("Enter at most %(most)s.") % {"most": most}, "too_large")
        return nanos


class ModelForm(forms.ModelForm[Model]):
    """A model's limits, ceilings and next price. A price in force is never edited: a new one supersedes it."""

    image_nanos_ceiling = UsdField(label=gettext_lazy("An image costs at most (USD)"))
    audio_minute_nanos_ceiling = UsdField(label=gettext_lazy("A minute of audio costs at most (USD)"))
    input = UsdField(label=gettext_lazy("Input (USD per million tokens)"), required=False)
    cached_input = UsdField(label=gettext_lazy("Cached input (blank: as input)"), required=False)
    output = UsdField(label=gettext_lazy("Output (USD per million tokens)"), required=False)
    per_request = UsdField(label=gettext_lazy("Each request (USD)"), required=False)
    per_image = UsdField(label=gettext_lazy("Each image made (USD)"), required=False)
    per_second = UsdField(label=gettext_lazy("Each second of video made (USD)"), required=False)
    starts_at = forms.SplitDateTimeField(
        label=gettext_lazy("Starts at (UTC; blank: now)"),
        required=False,
        widget=AdminSplitDateTime,
    )

    class Meta:
        model = Model
        fields = (
            "name",
            "is_enabled",
            "default_output_tokens",
            "max_output_tokens",
            "context_tokens",
            "image_nanos_ceiling",
            "audio_minute_nanos_ceiling",
            "task_timeout_s",
        )
        labels = {"is_enabled": gettext_lazy("Enabled"), "task_timeout_s": gettext_lazy("Time for a task (seconds)")}
        help_texts = {
            "name": gettext_lazy("The name that programs send in their requests."),
            "default_output_tokens": gettext_lazy("The limit that a hold covers when a request sets none."),
            "max_output_tokens": gettext_lazy("No request gets more, whatever limit it sets."),
            "context_tokens": gettext_lazy(
                "The input that a hold covers when a request refers to content stored by the upstream."
            ),
            "task_timeout_s": gettext_lazy("A task that has not ended by then fails and costs nothing."),
        }

    def rate(self) -> Rate | None:
        """Return the price that was entered, or None when all its fields are blank."""
        names = Rate.__dataclass_fields__
        given = {name: nanos for name in names if (nanos := self.cleaned_data.get(name)) is not None}
        if not given:
            return None
        return Rate(**{"cached_input": given.get("input", 0)} | given)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        starts_at = cleaned.get("starts_at")
        if starts_at and self.rate() is None:
            self.add_error("starts_at", _("Enter the price that starts then."))
        elif starts_at and starts_at < timezone.now():
            self.add_error("starts_at", _("Enter a time in the future, or leave it blank for now."))
        return cleaned


class PriceInline(admin.TabularInline[Price, Model]):
    """All prices with their start times, read-only."""

    model = Price
    extra = 0
    can_delete = False
    fields = readonly_fields = ("starts_at", "rate_usd")
    ordering = ("-starts_at",)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description=gettext_lazy("Tokens per million, everything else per unit"))
    def rate_usd(self, price: Price) -> str:
        return str(price.rate)


@admin.register(Model)
class ModelAdmin(admin.ModelAdmin[Model]):
    form = ModelForm
    inlines = (PriceInline,)
    list_display = ("name", "is_enabled", "price_now", "max_output_tokens", "context_tokens", "served_by")
    list_filter = ("is_enabled",)
    search_fields = ("name",)
    actions = None
    fieldsets = (
        (None, {"fields": ("name", "is_enabled")}),
        (
            gettext_lazy("Maximum cost of a request"),
            {"fields": ModelForm.Meta.fields[2:7]},
        ),
        (gettext_lazy("Tasks"), {"fields": ("task_timeout_s",)}),
        (
            gettext_lazy("Next price"),
            {
                "description": gettext_lazy(
                    "Enter the whole price: a blank field is free. If all are blank, the price stays."
                ),
                "fields": ("input", "cached_input", "output", "per_request", "per_image", "per_second", "starts_at"),
            },
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Model]:
        return super().get_queryset(request).prefetch_related("prices", "upstreams")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Models are disabled, never deleted, because their prices explain past charges."""
        return False

    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:
        actor = acting_operator(request)
        before = audit_values(obj)
        super().save_model(request, obj, form, change)
        record_change(obj, before=before, actor=actor)
        rate = form.rate()
        if rate is None:
            return
        try:
            set_price(model=obj, rate=rate, starts_at=form.cleaned_data["starts_at"] or timezone.now(), actor=actor)
        except PriceStarted:
            # A race: the start time passed between the form's check and now.
            set_price(model=obj, rate=rate, starts_at=timezone.now(), actor=actor)

    @admin.display(description=gettext_lazy("Price now"))
    def price_now(self, model: Model) -> str:
        now = timezone.now()
        started = [price for price in model.prices.all() if price.starts_at <= now]
        return str(max(started, key=lambda price: price.starts_at).rate) if started else _("None: requests are refused")

    @admin.display(description=gettext_lazy("Served by"))
    def served_by(self, model: Model) -> str:
        return ", ".join(upstream.name for upstream in model.upstreams.all())
