"""Upstreams in Django admin, with write-only credentials and headers, and a button that tries one out."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_post_parameters

from audit.services import record
from core import vault
from operators.browse import listed
from operators.deeds import acting_operator
from operators.pairs import KEPT, HeadersField, PairsField
from relay.models import Upstream, validate_credential
from relay.probe import sensible_model, try_out
from relay.profiles import KINDS, READERS
from relay.services import audit_values, record_change
from relay.upstream_settings import split_proxy


class UpstreamForm(forms.ModelForm[Upstream]):
    """An upstream with a write-only credential: it is never shown, and a blank field keeps the stored one."""

    kind = forms.ChoiceField(
        label=gettext_lazy("Kind"),
        choices=[(kind, kind) for kind in KINDS],
        required=False,
        help_text=gettext_lazy("The provider, which sets how it is addressed and what it understands."),
    )
    new_credential = forms.CharField(
        label=gettext_lazy("Credential"),
        required=False,
        max_length=4000,
        widget=forms.PasswordInput(render_value=False, attrs={"autocomplete": "new-password", "class": "vTextField"}),
        help_text=gettext_lazy("Stored encrypted and never shown. Leave blank to keep the current one."),
    )
    model_names = PairsField(
        label=gettext_lazy("Names there"),
        help_text=gettext_lazy("PUBLIC=THERE, one a line, for models that have another name at this upstream."),
    )
    new_headers = HeadersField(
        label=gettext_lazy("Headers"),
        help_text=gettext_lazy("Name: value, one a line. Values are stored encrypted; dots keep the stored one."),
    )
    query = PairsField(
        label=gettext_lazy("Query parameters"),
        help_text=gettext_lazy("NAME=VALUE, one a line, such as api-version=2024-10-21."),
    )
    settings = PairsField(label=gettext_lazy("Settings that differ from the kind's"))
    new_proxy = forms.CharField(
        label=gettext_lazy("Proxy"),
        required=False,
        max_length=1000,
        widget=forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off"}),
        help_text=gettext_lazy("http://USER:PASSWORD@HOST:PORT, or blank. A stored password is shown as dots."),
    )

    class Meta:
        model = Upstream
        fields = (
            *("name", "kind", "base_url", "models", "model_names", "query", "settings"),
            *("priority", "weight", "timeout_s", "is_enabled"),
        )
        labels = {
            "base_url": gettext_lazy("Base URL"),
            "timeout_s": gettext_lazy("Timeout (seconds)"),
            "is_enabled": gettext_lazy("Enabled"),
        }
        help_texts = {
            "base_url": gettext_lazy("What comes before /chat/completions, like https://api.openai.com/v1."),
            "priority": gettext_lazy("The upstream with the lowest number is tried first, the next when it fails."),
            "weight": gettext_lazy("Its share of the conversations among those of the same priority."),
            "timeout_s": gettext_lazy("A request fails when the upstream sends nothing for this long."),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["new_headers"] = self.instance.headers
        self.initial["new_proxy"] = _shown_proxy(self.instance)
        keys = _("KEY=VALUE, one a line: %(keys)s.") % {"keys": ", ".join(READERS)}
        self.fields["settings"].help_text = keys

    def clean_kind(self) -> str:
        return self.cleaned_data["kind"] or self.instance.kind

    def clean_new_credential(self) -> str:
        """Return the credential encrypted, so that no later code handles the clear text."""
        clear: str = self.cleaned_data["new_credential"]
        if not clear:
            return ""
        validate_credential(clear)
        return _encrypted(clear)

    def clean_new_headers(self) -> dict[str, str]:
        """Return names and encrypted values."""
        stored = {name.lower(): sealed for name, sealed in self.instance.headers.items()}
        headers = {}
        for name, value in self.cleaned_data["new_headers"].items():
            if value == KEPT and name.lower() not in stored:
                raise forms.ValidationError(_("Enter the value of %(name)s.") % {"name": name}, "no_value")
            headers[name] = stored[name.lower()] if value == KEPT else _encrypted(value)
        return headers

    def clean_new_proxy(self) -> tuple[str, str]:
        """Return the address and the encrypted credential."""
        text: str = self.cleaned_data["new_proxy"]
        if not text:
            return "", ""
        if text == _shown_proxy(self.instance):
            return self.instance.proxy, self.instance.proxy_credential
        address, credential = split_proxy(text.replace(f"{KEPT}@", ""))
        if KEPT in text:
            # The stored credential belongs to the previous address.
            raise forms.ValidationError(_("Enter the proxy's password again, or leave it out."), "credential")
        return address, _encrypted(credential) if credential else ""

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not self._has_moved(cleaned):
            return cleaned
        # Otherwise an operator could read secrets: by pointing the upstream at a server of their own.
        if self.instance.has_credential and cleaned.get("new_credential") == "":
            self.add_error(
                "new_credential", _("Enter it again: the stored credential belongs to the previous address.")
            )
        if set(self.instance.headers.values()) & set(cleaned.get("new_headers", {}).values()):
            self.add_error("new_headers", _("Enter the values again: the stored ones belong to the previous address."))
        return cleaned

    def _has_moved(self, cleaned: dict[str, Any]) -> bool:
        """Whether secrets would go to another server. Through a proxy, http:// lets the proxy read them."""
        if "base_url" not in cleaned or "new_proxy" not in cleaned:
            return False
        is_elsewhere = _origin(cleaned["base_url"]) != _origin(self.initial.get("base_url", ""))
        is_readable = cleaned["base_url"].startswith("http://") and bool(cleaned["new_proxy"][0])
        return is_elsewhere or (is_readable and cleaned["new_proxy"][0] != self.instance.proxy)


def _encrypted(clear: str) -> str:
    try:
        return vault.encrypt(clear)
    except ImproperlyConfigured as error:
        raise forms.ValidationError(str(error), "no_key") from None


def _shown_proxy(upstream: Upstream) -> str:
    credential = f"{KEPT}@" if upstream.proxy_credential else ""
    return upstream.proxy.replace("://", f"://{credential}", 1)


def _origin(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return parts.scheme, parts.netloc


@admin.register(Upstream)
class UpstreamAdmin(admin.ModelAdmin[Upstream]):
    form = UpstreamForm
    list_display = ("name", "kind", "address", "is_enabled", "credential_in_list", "serves", "order")
    list_filter = ("is_enabled", "kind")
    search_fields = ("name", "base_url")
    filter_horizontal = ("models",)
    readonly_fields = ("credential_state", "created_at")
    change_form_template = "admin/relay/upstream/change_form.html"
    actions = None
    fieldsets = (
        (
            None,
            {"fields": ("name", "kind", "base_url", "credential_state", "new_credential", "models", "model_names")},
        ),
        (gettext_lazy("Order"), {"fields": ("priority", "weight", "timeout_s", "is_enabled", "created_at")}),
        (gettext_lazy("Where it differs"), {"fields": ("settings", "new_headers", "query", "new_proxy")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Upstream]:
        return super().get_queryset(request).prefetch_related("models")

    @method_decorator(sensitive_post_parameters("new_credential", "new_headers", "new_proxy"))
    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return super().changeform_view(request, *args, **kwargs)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Django's page with the models that the Test button may ask for."""
        upstream = self.get_object(request, object_id)
        served = sorted(model.name for model in upstream.models.all()) if upstream else []
        context = {"served": served, "sensible": sensible_model(upstream) if upstream else ""}
        return super().change_view(request, object_id, form_url, context | (extra_context or {}))

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.test_view)
        return [path("<int:pk>/test/", view, name="relay_upstream_test"), *super().get_urls()]

    @method_decorator(sensitive_post_parameters("new_credential", "new_headers", "new_proxy"))
    def test_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Try out the upstream as it is stored, and show the result on its page."""
        if request.method != "POST":
            return HttpResponse(status=405, headers={"Allow": "POST"})
        upstream = get_object_or_404(Upstream, pk=pk)
        if not self.has_change_permission(request, upstream):
            raise PermissionDenied
        model = request.POST.get("test_model", "")
        if model and not upstream.models.filter(name=model).exists():
            messages.error(request, _("It does not serve that model."))
        else:
            result = try_out(upstream=upstream, model=model, actor=acting_operator(request))
            messages.add_message(request, messages.SUCCESS if result.is_ok else messages.ERROR, result.text())
        return HttpResponseRedirect(reverse("admin:relay_upstream_change", args=[upstream.pk]))

    def save_model(self, request: HttpRequest, obj: Upstream, form: Any, change: bool) -> None:
        form.before = audit_values(obj)
        # The form's instance has the stored values still; its new ones are those of the form alone.
        form.entered = [name for name, sealed in form.cleaned_data["new_headers"].items() if sealed not in _sealed(obj)]
        if sealed := form.cleaned_data["new_credential"]:
            obj.credential = sealed
        obj.headers = form.cleaned_data["new_headers"]
        obj.proxy, obj.proxy_credential = form.cleaned_data["new_proxy"]
        super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Record the change only here, because Django saves the many-to-many `models` last."""
        super().save_related(request, form, formsets, change)
        record_change(
            form.instance,
            before=form.before,
            actor=acting_operator(request),
            is_credential_new=bool(form.cleaned_data["new_credential"]),
            new_headers=form.entered,
        )

    def delete_model(self, request: HttpRequest, obj: Upstream) -> None:
        record("upstream.deleted", space=None, actor=acting_operator(request), target=obj, before=audit_values(obj))
        super().delete_model(request, obj)

    @admin.display(description=gettext_lazy("Credential kept"))
    def credential_state(self, upstream: Upstream) -> str:
        return _("set") if upstream.has_credential else _("not set")

    @admin.display(description=gettext_lazy("Address"), ordering="base_url")
    def address(self, upstream: Upstream) -> str:
        return urlsplit(upstream.base_url).netloc

    # The list has short titles, so that its columns fit beside the filters.
    @admin.display(description=gettext_lazy("Credential"))
    def credential_in_list(self, upstream: Upstream) -> str:
        return self.credential_state(upstream)

    @admin.display(description=gettext_lazy("Serves"))
    def serves(self, upstream: Upstream) -> str:
        return listed([model.name for model in upstream.models.all()])

    @admin.display(description=gettext_lazy("Order"), ordering="priority")
    def order(self, upstream: Upstream) -> str:
        """Priority, and the weight where it is not 1."""
        return str(upstream.priority) if upstream.weight == 1 else f"{upstream.priority} × {upstream.weight}"


def _sealed(upstream: Upstream) -> set[str]:
    return set(upstream.headers.values())
