"""Spaces in Django admin: create one with its manager and first grant, grant and take back, suspend and resume."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import User
from audit.services import record_refused_deed
from core.errors import InsufficientPool, KeyReused, NameTakenError, PoolLimit, QuotaError
from core.fields import AmountField, DisplayNameField, NewPasswordField, UsernameField, refuse_similar
from core.money import format_balance
from operators.deeds import acting_operator, name_taken
from quotas.models import Wallet
from quotas.pool import pool_of
from quotas.services import grant, revoke
from quotas.spaces import create_space, rename_space, set_suspended
from tenants.models import Space


class SpaceForm(forms.ModelForm[Space]):
    class Meta:
        model = Space
        fields = ("name",)

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if Space.objects.filter(name__iexact=name).exclude(pk=self.instance.pk).exists():
            raise forms.ValidationError(_("There is a space of this name."), "taken")
        return name


class NewSpaceForm(SpaceForm):
    """Creates a space, its manager and the first grant together."""

    manager_username = UsernameField(label=gettext_lazy("Manager's username"))
    manager_display_name = DisplayNameField(label=gettext_lazy("Manager's display name"))
    manager_password = NewPasswordField(label=gettext_lazy("Manager's password"))
    grant = AmountField(label=gettext_lazy("First grant (USD)"), required=False)

    def clean_manager_username(self) -> str:
        username: str = self.cleaned_data["manager_username"]
        try:
            User.objects.get_by_natural_key(username)
        except User.DoesNotExist:
            return username
        raise forms.ValidationError(_("This username is not available."), "taken")

    def clean(self) -> None:
        super().clean()
        refuse_similar(self, "manager_password", self.cleaned_data.get("manager_username", ""))


class MoveForm(forms.Form):
    """Grant or take back. The hidden idempotency key makes a second submit, such as a double click, move nothing."""

    deed = forms.ChoiceField(
        choices=[("grant", gettext_lazy("Grant")), ("revoke", gettext_lazy("Take back"))],
        label=gettext_lazy("Action"),
        widget=forms.RadioSelect,
        initial="grant",
    )
    amount = AmountField(label=gettext_lazy("Amount (USD)"))
    reason = forms.CharField(label=gettext_lazy("Reason"), max_length=200)
    key = forms.UUIDField(widget=forms.HiddenInput, initial=uuid4)

    def clean_amount(self) -> int:
        nanos: int = self.cleaned_data["amount"]
        if nanos == 0:
            raise forms.ValidationError(_("Enter more than $0.00."), "zero")
        return nanos

    def move(self, space: Space, actor: User) -> None:
        deed = grant if self.cleaned_data["deed"] == "grant" else revoke
        deed(
            space=space,
            amount_nanos=self.cleaned_data["amount"],
            reason=self.cleaned_data["reason"],
            actor=actor,
            key=str(self.cleaned_data["key"]),
        )


def move_message(error: QuotaError) -> str:
    match error:
        case InsufficientPool():
            return _("Only %(amount)s is available in this space.") % {"amount": format_balance(error.available)}
        case PoolLimit():
            return _("At most %(amount)s more fits into this pool.") % {"amount": format_balance(error.room)}
        case KeyReused():
            return _("This form was sent before with another amount. Open it again.")
    return _("This amount cannot be moved.")


@admin.register(Space)
class SpaceAdmin(admin.ModelAdmin[Space]):
    form = SpaceForm
    list_display = ("name", "manager", "pool_total", "pool_available", "state", "created_at")
    search_fields = ("name",)
    ordering = ("name",)
    readonly_fields = ("manager", "pool_total", "pool_available", "state", "created_at")
    change_form_template = "admin/tenants/space/change_form.html"
    actions = None

    def get_form(self, request: HttpRequest, obj: Space | None = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **({"form": NewSpaceForm} if obj is None else {}) | kwargs)

    def get_fields(self, request: HttpRequest, obj: Space | None = None) -> Any:
        if obj is None:
            return ("name", "manager_username", "manager_display_name", "manager_password", "grant")
        return ("name", *self.readonly_fields)

    def get_readonly_fields(self, request: HttpRequest, obj: Space | None = None) -> Any:
        return self.readonly_fields if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: Space | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Space, form: Any, change: bool) -> None:
        actor = acting_operator(request)
        if change:
            stored = Space.objects.get(pk=obj.pk)
            rename_space(space=stored, name=obj.name, actor=actor)
            return
        given = form.cleaned_data
        made = create_space(
            name=given["name"],
            manager_username=given["manager_username"],
            manager_display_name=given["manager_display_name"],
            manager_password=given["manager_password"],
            grant_nanos=given["grant"] or 0,
            actor=actor,
        )
        obj.pk, obj.created_at = made.pk, made.created_at

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except NameTakenError as error:
            deed = "space.renamed" if object_id else "space.created"
            target = Space.objects.filter(pk=object_id).first() if object_id else None
            return name_taken(request, error, deed=deed, target=target, fields=("name", "manager_username"))

    # Django's admin log is skipped, because the services record the event in the trail.
    def log_addition(self, *args: Any, **kwargs: Any) -> Any:
        return None

    def log_change(self, *args: Any, **kwargs: Any) -> Any:
        return None

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:pk>/move/", view(self.move_view), name="tenants_space_move"),
            path("<int:pk>/suspend/", view(self.suspend_view), name="tenants_space_suspend"),
            *super().get_urls(),
        ]

    def move_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        space = get_object_or_404(Space, pk=pk)
        form = MoveForm(request.POST if request.method == "POST" else None)
        if form.is_valid():
            try:
                form.move(space, acting_operator(request))
            except QuotaError as error:
                kind = f"pool.{form.cleaned_data['deed']}"
                record_refused_deed(kind, error, actor=acting_operator(request), target=space)
                form.add_error("amount", move_message(error))
            else:
                messages.success(request, _("Done. %(total)s in total now.") % {"total": self.pool_total(space)})
                return HttpResponseRedirect(_change_url(space))
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "original": space,
            "title": _("Grant or take back quota"),
            "subtitle": space.name,
            "form": form,
            "pool": pool_of(space),
        }
        status = 422 if form.is_bound else 200
        return TemplateResponse(request, "admin/tenants/space/move.html", context, status=status)

    def suspend_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        if request.method != "POST":
            return HttpResponse(status=405, headers={"Allow": "POST"})
        space = get_object_or_404(Space, pk=pk)
        is_suspended = request.POST.get("suspended") == "true"
        set_suspended(space=space, is_suspended=is_suspended, actor=acting_operator(request))
        text = _("Suspended: nobody in this space can sign in or spend.") if is_suspended else _("Resumed.")
        messages.success(request, text)
        return HttpResponseRedirect(_change_url(space))

    @admin.display(description=gettext_lazy("Manager"))
    def manager(self, space: Space) -> str:
        return User.objects.get(space=space, number=1).username

    @admin.display(description=gettext_lazy("Total"))
    def pool_total(self, space: Space) -> str:
        return format_balance(_pool(space).total)

    @admin.display(description=gettext_lazy("Available"))
    def pool_available(self, space: Space) -> str:
        return format_balance(_pool(space).available)

    @admin.display(description=gettext_lazy("State"))
    def state(self, space: Space) -> str:
        return _("Suspended") if space.is_suspended else _("Active")


def _pool(space: Space) -> Wallet:
    return pool_of(space)


def _change_url(space: Space) -> str:
    return reverse("admin:tenants_space_change", args=[space.pk])
