"""Upstreams with write-only credentials, in Django admin."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.contrib import admin
from django.core.exceptions import ImproperlyConfigured
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_post_parameters

from audit.services import record
from core import vault
from operators.deeds import acting_operator
from relay.models import Upstream, validate_credential
from relay.services import audit_values, record_change


class UpstreamForm(forms.ModelForm[Upstream]):
    """An upstream with a write-only credential: it is never shown, and a blank field keeps the stored one."""

    new_credential = forms.CharField(
        label=gettext_lazy("Credential"),
        required=False,
        max_length=4000,
        widget=forms.PasswordInput(render_value=False, attrs={"autocomplete": "new-password", "class": "vTextField"}),
        help_text=gettext_lazy("Stored encrypted and never shown. Leave blank to keep the current one."),
    )

    class Meta:
        model = Upstream
        fields = ("name", "base_url", "models", "priority", "weight", "timeout_s", "is_enabled")
        labels = {
            "base_url": gettext_lazy("Base URL"),
            "timeout_s": gettext_lazy("Timeout (seconds)"),
            "is_enabled": gettext_lazy("Enabled"),
        }
        help_texts = {
            "base_url": gettext_lazy("What comes before /chat/completions, like https://api.openai.com/v1."),
            "priority": gettext_lazy("The upstream with the lowest number is tried first, the next when it fails."),
            "weight": gettext_lazy("Its share of the requests among those of the same priority."),
            "timeout_s": gettext_lazy("A request fails when the upstream sends nothing for this long."),
        }

    def clean_new_credential(self) -> str:
        """Return the credential encrypted, so that no later code handles the clear text."""
        clear: str = self.cleaned_data["new_credential"]
        if not clear:
            return ""
        validate_credential(clear)
        try:
            return vault.encrypt(clear)
        except ImproperlyConfigured as error:
            raise forms.ValidationError(str(error), "no_key") from None

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        former = self.initial.get("base_url", "")
        moved = "base_url" in cleaned and _origin(cleaned["base_url"]) != _origin(former)
        if moved and self.instance.has_credential and cleaned.get("new_credential") == "":
            # Otherwise an operator could read the credential: by pointing the upstream at a server of their own.
            self.add_error(
                "new_credential", _("Enter it again: the stored credential belongs to the previous address.")
            )
        return cleaned


def _origin(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return parts.scheme, parts.netloc


@admin.register(Upstream)
class UpstreamAdmin(admin.ModelAdmin[Upstream]):
    form = UpstreamForm
    list_display = ("name", "base_url", "is_enabled", "credential_state", "serves", "priority", "weight")
    list_filter = ("is_enabled",)
    search_fields = ("name", "base_url")
    filter_horizontal = ("models",)
    readonly_fields = ("credential_state", "created_at")
    actions = None
    fields = (
        "name",
        "base_url",
        "credential_state",
        "new_credential",
        "models",
        "priority",
        "weight",
        "timeout_s",
        "is_enabled",
        "created_at",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Upstream]:
        return super().get_queryset(request).prefetch_related("models")

    @method_decorator(sensitive_post_parameters("new_credential"))
    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return super().changeform_view(request, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: Upstream, form: Any, change: bool) -> None:
        form.before = audit_values(obj)
        if sealed := form.cleaned_data["new_credential"]:
            obj.credential = sealed
        super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Record the change only here, because Django saves the many-to-many `models` last."""
        super().save_related(request, form, formsets, change)
        is_new = bool(form.cleaned_data["new_credential"])
        actor = acting_operator(request)
        record_change(form.instance, before=form.before, actor=actor, is_credential_new=is_new)

    def delete_model(self, request: HttpRequest, obj: Upstream) -> None:
        record("upstream.deleted", space=None, actor=acting_operator(request), target=obj, before=audit_values(obj))
        super().delete_model(request, obj)

    @admin.display(description=gettext_lazy("Credential kept"))
    def credential_state(self, upstream: Upstream) -> str:
        return _("set") if upstream.has_credential else _("not set")

    @admin.display(description=gettext_lazy("Serves"))
    def serves(self, upstream: Upstream) -> str:
        return ", ".join(model.name for model in upstream.models.all())
