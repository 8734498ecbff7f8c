"""Models with their prices, the terms of spaces, and what models cost at upstreams, in Django admin.

A price in force is never edited: a new one supersedes it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
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
from operators.browse import listed
from operators.deeds import acting_operator
from relay.models import CostPrice, Model, Price, PriceStarted, SpaceTerms
from relay.price_rows import PriceError, format_row, parse_factor, parse_rows
from relay.prices import MAX_PRICE_NANOS, PRICES, PriceList, PriceRow, Rate
from relay.services import audit_values, record_change, set_cost_price, set_price, set_space_terms

PRICE_LABELS = {
    "input": gettext_lazy("Input (USD per million tokens)"),
    "cached_input": gettext_lazy("Cached input (blank: as input)"),
    "output": gettext_lazy("Output (USD per million tokens)"),
    "cached_input_explicit": gettext_lazy("Input from an explicit cache (blank: as cached input)"),
    "cache_write_5m": gettext_lazy("Cache write, 5 or 30 minutes (blank: as input)"),
    "cache_write_1h": gettext_lazy("Cache write, 1 hour (blank: as 5 minutes)"),
    "cache_write_12h": gettext_lazy("Cache write, 12 hours (blank: as 1 hour)"),
    "audio_input": gettext_lazy("Audio input (blank: as input)"),
    "audio_output": gettext_lazy("Audio output (blank: requests for it are refused)"),
    "image_input": gettext_lazy("Image input (blank: as input)"),
    "image_output": gettext_lazy("Image output (blank: as output)"),
    "reasoning": gettext_lazy("Reasoning (blank: as output)"),
    "citation": gettext_lazy("Citations (blank: as input)"),
    "per_request": gettext_lazy("Each request (USD)"),
    "per_image": gettext_lazy("Each image made (USD)"),
    "per_second": gettext_lazy("Each second of video made (USD)"),
    "per_search": gettext_lazy("Each web search (USD; blank: requests for one are refused)"),
    "per_character": gettext_lazy("Each character spoken (USD)"),
    "per_minute": gettext_lazy("Each minute (USD)"),
}
_ROWS_HELP = gettext_lazy(
    "One row a line: prices above a number of input tokens (above=200000 input=5.00 output=15.00; from=200000 includes "
    "it) or under conditions (service_tier=priority input=5.00, or service_tier=flex factor=0.5)."
)


def default_of(name: str) -> int:
    field: Any = Model._meta.get_field(name)
    return int(field.default)


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


class FactorField(forms.CharField):
    def clean(self, value: Any) -> int | None:
        text = super().clean(value)
        try:
            return parse_factor(text) if text else None
        except PriceError as error:
            raise forms.ValidationError(str(error), "factor") from None


class RowsField(forms.CharField):
    widget = forms.Textarea(attrs={"rows": 5, "cols": 100, "spellcheck": "false"})

    def clean(self, value: Any) -> tuple[PriceRow, ...]:
        try:
            return parse_rows(super().clean(value).splitlines())
        except PriceError as error:
            raise forms.ValidationError(str(error), "rows") from None


class PricesForm(forms.ModelForm[Any]):
    """The whole of a price list and the moment from which it holds; each column is a field of its name."""

    rows = RowsField(label=gettext_lazy("Prices under conditions"), required=False, help_text=_ROWS_HELP)
    starts_at = forms.SplitDateTimeField(
        label=gettext_lazy("Starts at (UTC; blank: now)"), required=False, widget=AdminSplitDateTime
    )

    def prices(self) -> PriceList | None:
        """Return the prices that were entered, or None when all their fields are blank."""
        given = {name: nanos for name in PRICES if (nanos := self.cleaned_data.get(name)) is not None}
        if not given:
            return None
        base = Rate.of({"cached_input": given.get("input", 0)} | given)
        return PriceList(base, self.cleaned_data.get("rows") or ())

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        starts_at = cleaned.get("starts_at")
        if cleaned.get("rows") and self.prices() is None:
            self.add_error("rows", _("Enter the prices that hold otherwise."))
        if starts_at and starts_at < timezone.now():
            self.add_error("starts_at", _("Enter a time in the future, or leave it blank for now."))
        return cleaned

    def set_from_start(self, set_from: Callable[[datetime], object]) -> None:
        try:
            set_from(self.cleaned_data["starts_at"] or timezone.now())
        except PriceStarted:
            # A race: the start time passed between the form's check and now.
            set_from(timezone.now())


# The fields of PricesForm, one for each price; they are not written out, so that none can be forgotten.
PricesForm.base_fields.update({name: UsdField(label=PRICE_LABELS[name], required=False) for name in PRICES})
PRICE_FIELDS = (*PRICE_LABELS, "rows", "starts_at")


class ModelForm(PricesForm):
    """A model's limits, ceilings and next price."""

    image_nanos_ceiling = UsdField(
        label=gettext_lazy("An image costs at most (USD)"), initial=default_of("image_nanos_ceiling")
    )
    audio_minute_nanos_ceiling = UsdField(
        label=gettext_lazy("A minute of audio costs at most (USD)"), initial=default_of("audio_minute_nanos_ceiling")
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
            "default_output_tokens": gettext_lazy("The usual limit, for requests that set none and have little money."),
            "max_output_tokens": gettext_lazy("No request gets more, whatever limit it sets."),
            "context_tokens": gettext_lazy("No request is held for more input than this."),
            "task_timeout_s": gettext_lazy("A task that has not ended by then fails and costs nothing."),
        }

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if cleaned.get("starts_at") and self.prices() is None:
            self.add_error("starts_at", _("Enter the price that starts then."))
        return cleaned


class PriceInline(admin.TabularInline[Price, Model]):
    """All prices with their start times, read-only."""

    model = Price
    extra = 0
    can_delete = False
    fields = readonly_fields = ("starts_at", "rate_usd", "rows_text")
    ordering = ("-starts_at",)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description=gettext_lazy("Tokens per million, everything else per unit"))
    def rate_usd(self, price: Price) -> str:
        return str(price.rate)

    @admin.display(description=gettext_lazy("Prices under conditions"), empty_value="")
    def rows_text(self, price: Price) -> str:
        return "\n".join(map(format_row, price.price_list.rows))


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
        (gettext_lazy("Maximum cost of a request"), {"fields": ModelForm.Meta.fields[2:7]}),
        (gettext_lazy("Tasks"), {"fields": ("task_timeout_s",)}),
        (
            gettext_lazy("Next price"),
            {
                "description": gettext_lazy(
                    "Enter the whole price: a blank field is free. If all are blank, the price stays."
                ),
                "fields": PRICE_FIELDS,
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
        if (prices := form.prices()) is not None:
            form.set_from_start(lambda start: set_price(model=obj, prices=prices, starts_at=start, actor=actor))

    @admin.display(description=gettext_lazy("Price now"))
    def price_now(self, model: Model) -> str:
        now = timezone.now()
        started = [price for price in model.prices.all() if price.starts_at <= now]
        if not started:
            return _("None: requests are refused")
        return str(max(started, key=lambda price: price.starts_at).price_list)

    @admin.display(description=gettext_lazy("Served by"))
    def served_by(self, model: Model) -> str:
        return listed([upstream.name for upstream in model.upstreams.all()])


class _History(admin.ModelAdmin[Any]):
    """Rows with a start: they can be added and read, never changed or deleted."""

    actions = None

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        # The columns of prices are read by PricesForm, so the form must not set them on the row itself.
        return super().get_form(request, obj, change, **kwargs | {"fields": self.form._meta.fields})

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description=gettext_lazy("Prices"))
    def prices_text(self, row: Any) -> str:
        return str(row.price_list)


class TermsForm(PricesForm):
    factor = FactorField(
        label=gettext_lazy("Factor"),
        required=False,
        help_text=gettext_lazy("The list price times this, like 1.2 or 0.9; 1 ends earlier terms."),
    )

    class Meta:
        model = SpaceTerms
        fields = ("space", "model")
        help_texts = {"model": gettext_lazy("Blank: all models, with a factor.")}

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        has_factor = cleaned.get("factor") is not None
        if has_factor == (self.prices() is not None) and not self.errors:
            self.add_error("factor", _("Enter either a factor or prices."))
        elif not has_factor and cleaned.get("model") is None and not self.errors:
            self.add_error("model", _("Choose the model that these prices are for."))
        return cleaned


@admin.register(SpaceTerms)
class SpaceTermsAdmin(_History):
    form = TermsForm
    list_display = ("space", "model_name", "terms_text", "starts_at")
    list_filter = ("space",)
    list_select_related = ("space", "model")
    ordering = ("space", "model", "-starts_at")

    def get_fields(self, request: HttpRequest, obj: SpaceTerms | None = None) -> Any:
        return ("space", "model", "factor", *PRICE_FIELDS) if obj is None else self.list_display

    def get_readonly_fields(self, request: HttpRequest, obj: SpaceTerms | None = None) -> Any:
        return () if obj is None else self.list_display

    @admin.display(description=gettext_lazy("Model"))
    def model_name(self, terms: SpaceTerms) -> str:
        return terms.model.name if terms.model else _("all models")

    @admin.display(description=gettext_lazy("Terms"))
    def terms_text(self, terms: SpaceTerms) -> str:
        return terms.text

    def save_model(self, request: HttpRequest, obj: SpaceTerms, form: Any, change: bool) -> None:
        terms = {"space": obj.space, "model": obj.model, "prices": form.prices()}
        terms |= {"factor_millionths": form.cleaned_data["factor"], "actor": acting_operator(request)}
        form.set_from_start(lambda start: set_space_terms(**terms, starts_at=start))
        # The service wrote the row; Django's history needs its key.
        obj.pk = SpaceTerms.objects.filter(space=obj.space, model=obj.model).latest("starts_at").pk


class CostForm(PricesForm):
    class Meta:
        model = CostPrice
        fields = ("upstream", "model")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if self.prices() is None and not self.errors:
            self.add_error("input", _("Enter a price."))
        return cleaned


@admin.register(CostPrice)
class CostPriceAdmin(_History):
    form = CostForm
    list_display = ("upstream", "model", "prices_text", "starts_at")
    list_filter = ("upstream",)
    list_select_related = ("upstream", "model")
    search_fields = ("model__name",)

    def get_fields(self, request: HttpRequest, obj: CostPrice | None = None) -> Any:
        return ("upstream", "model", *PRICE_FIELDS) if obj is None else self.list_display

    def get_readonly_fields(self, request: HttpRequest, obj: CostPrice | None = None) -> Any:
        return () if obj is None else self.list_display

    def save_model(self, request: HttpRequest, obj: CostPrice, form: Any, change: bool) -> None:
        cost = {"upstream": obj.upstream, "model": obj.model, "prices": form.prices()}
        actor = acting_operator(request)
        form.set_from_start(lambda start: set_cost_price(**cost, starts_at=start, actor=actor))
        obj.pk = CostPrice.objects.filter(upstream=obj.upstream, model=obj.model).latest("starts_at").pk
