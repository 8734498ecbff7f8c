"""Users and API keys in Django admin: operators read all, and edit only a manager's names and password."""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import ApiKey, User
from accounts.second_factor import reset_second_factor
from accounts.throttle import unlock
from core.errors import NameTakenError
from core.fields import DisplayNameField, NewPasswordField, UsernameField, refuse_similar
from core.money import format_cost
from operators.browse import BrowseOnly
from operators.deeds import acting_operator, name_taken
from quotas.members import MemberChanges, reset_manager

# Groups are unused, since roles belong to spaces. The other tables hold credentials, which nobody may read.
admin.site.unregister([Group, Authenticator, EmailAddress, UserSession])


class ManagerForm(forms.ModelForm[User]):
    username = UsernameField(label=gettext_lazy("Username"))
    display_name = DisplayNameField(label=gettext_lazy("Display name"))
    new_password = NewPasswordField(
        label=gettext_lazy("New password"), required=False, help_text=gettext_lazy("Blank: unchanged.")
    )

    class Meta:
        model = User
        fields = ("username", "display_name")

    def clean_username(self) -> str:
        username: str = self.cleaned_data["username"]
        try:
            taken = User.objects.get_by_natural_key(username) != self.instance
        except User.DoesNotExist:
            taken = False
        if taken:
            raise forms.ValidationError(_("This username is not available."), "taken")
        return username

    def clean(self) -> None:
        super().clean()
        refuse_similar(self, "new_password", self.cleaned_data.get("username", ""))


@admin.register(User)
class PeopleAdmin(admin.ModelAdmin[User]):
    form = ManagerForm
    list_display = ("username", "display_name", "space", "number", "role", "is_active")
    list_filter = ("role", "is_active")
    list_select_related = ("space",)
    search_fields = ("username", "space__name")
    ordering = ("space", "number")
    readonly_fields = ("space", "number", "role", "is_active", "last_login", "created_at")
    fields = ("username", "display_name", "new_password", *readonly_fields)
    actions = ["let_in_again", "reset_two_factor"]

    @admin.action(description=gettext_lazy("Unlock sign-in after too many tries"))
    def let_in_again(self, request: HttpRequest, people: QuerySet[User]) -> None:
        actor = acting_operator(request)
        unlocked = [person.username for person in people if unlock(user=person, actor=actor)]
        self._report(
            request, unlocked, done=_("Unlocked: %(names)s."), nothing=_("None of these users was locked out.")
        )

    @admin.action(description=gettext_lazy("Reset two-factor sign-in"))
    def reset_two_factor(self, request: HttpRequest, people: QuerySet[User]) -> None:
        actor = acting_operator(request)
        others = people.exclude(pk=actor.pk).select_related("space")
        reset = [person.username for person in others if reset_second_factor(target=person, actor=actor)]
        nothing = _("None of these users has two-factor sign-in; your own cannot be reset here.")
        self._report(request, reset, done=_("Two-factor sign-in is off for: %(names)s."), nothing=nothing)

    def _report(self, request: HttpRequest, names: list[str], *, done: str, nothing: str) -> None:
        if names:
            messages.success(request, done % {"names": ", ".join(names)})
        else:
            messages.warning(request, nothing)

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Refuse filters by password in the URL, such as ?password__startswith=…, which would leak the hash."""
        return not lookup.startswith("password") and super().lookup_allowed(lookup, value, request)

    def get_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        if self.has_change_permission(request, obj):
            return self.fields
        return ("username", "display_name", *self.readonly_fields)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Only managers can be edited: a space manages its members itself."""
        return super().has_change_permission(request, obj) and (obj is None or obj.is_manager)

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        given = form.cleaned_data
        changes = MemberChanges(
            username=given["username"], display_name=given["display_name"], password=given["new_password"]
        )
        reset_manager(manager=obj, changes=changes, actor=acting_operator(request))

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except NameTakenError as error:
            manager = User.objects.filter(pk=object_id or 0).first()
            return name_taken(request, error, deed="manager.reset", target=manager, fields=("username",))

    def log_change(self, *args: Any, **kwargs: Any) -> Any:
        """Skip Django's admin log: the service records the event in the trail."""


@admin.register(ApiKey)
class ApiKeyAdmin(BrowseOnly[ApiKey]):
    """API keys, read-only and without their hashes, which cannot be searched by either."""

    list_display = ("shown", "space", "user", "name", "status", "spent_usd", "limit_usd", "last_used_at", "deleted_at")
    list_filter = ("is_enabled",)
    list_select_related = ("space", "user")
    search_fields = ("name", "last_four", "user__username", "space__name")
    ordering = ("space", "user", "number")
    fields = (
        *("space", "user", "number", "name", "shown", "status", "is_enabled", "old_until"),
        *("limit_usd", "spent_usd", "held_usd", "models_allowed", "ips_allowed"),
        *("expires_at", "last_used_at", "created_at", "deleted_at"),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return ApiKey.with_deleted.all()

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return not lookup.startswith(("hash", "old_hash")) and super().lookup_allowed(lookup, value, request)

    @admin.display(description=gettext_lazy("Key"))
    def shown(self, key: ApiKey) -> str:
        return key.shown

    @admin.display(description=gettext_lazy("Status"))
    def status(self, key: ApiKey) -> str:
        return str(key.status.label)

    @admin.display(description=gettext_lazy("Limit"), ordering="limit")
    def limit_usd(self, key: ApiKey) -> str | None:
        return None if key.limit is None else format_cost(key.limit)

    @admin.display(description=gettext_lazy("Spent"), ordering="spent")
    def spent_usd(self, key: ApiKey) -> str:
        return format_cost(key.spent)

    @admin.display(description=gettext_lazy("Held"))
    def held_usd(self, key: ApiKey) -> str:
        return format_cost(key.held)
