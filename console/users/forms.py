from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.models import User
from core.errors import BelowHeld, InsufficientPool, QuotaError, StaleTotal
from core.fields import AmountField, DisplayNameField, NewPasswordField, UsernameField, refuse_similar
from core.money import format_balance, format_exact
from quotas.members import MemberChanges
from quotas.models import Wallet
from tenants.policies import can_demote, can_set_password
from tenants.roles import Role


class AddUserForm(forms.Form):
    username = UsernameField()
    display_name = DisplayNameField()
    password = NewPasswordField()

    def clean(self) -> None:
        refuse_similar(self, "password", self.cleaned_data.get("username", ""))

    def name_taken(self) -> None:
        self.add_error("username", _("This username is not available."))


class EditUserForm(forms.Form):
    """Compares with the values that the dialog showed (`was_…`), so that only edited fields are saved.

    A field missing from the POST keeps its value.
    """

    username = UsernameField(required=False)
    display_name = DisplayNameField()
    password = NewPasswordField(required=False)
    remaining = AmountField(required=False)
    admin = forms.BooleanField(required=False)
    was_total = AmountField(required=False, widget=forms.HiddenInput)
    was_remaining = AmountField(required=False, widget=forms.HiddenInput)
    was_admin = forms.ChoiceField(
        choices=[("true", "true"), ("false", "false")], required=False, widget=forms.HiddenInput
    )

    data: Any

    def __init__(self, data: Any = None, *, member: User, actor: User) -> None:
        self.member = member
        self.actor = actor
        super().__init__(data, initial=_shown(member) if data is None else None)

    def clean(self) -> None:
        # A field that was sent empty is an error; one that was not sent keeps its value.
        if "username" in self.data and self.cleaned_data.get("username") == "":
            self.add_error("username", UsernameField.default_error_messages["required"])
        if "remaining" in self.data and self.cleaned_data.get("remaining", 0) is None:
            self.add_error("remaining", _("Enter an amount of $0.00 or more."))
        if any(name in self.errors for name in ("was_total", "was_remaining", "was_admin")):
            raise forms.ValidationError(_("This form is out of date. Close it and open it again."), "stale")
        if self._wants_admin() is False and self.member.role == Role.ADMIN and not can_demote(self.actor, self.member):
            self.add_error("admin", _("You cannot demote yourself."))
        if self.cleaned_data.get("password") and not can_set_password(self.actor, self.member):
            self.add_error("password", _("Change your own password in Personal Settings."))
        if self.cleaned_data.get("password"):
            refuse_similar(self, "password", self.cleaned_data.get("username") or self.member.username)

    def changes(self) -> MemberChanges:
        remaining = self._sent("remaining")
        if remaining is not None and remaining == self.cleaned_data["was_remaining"]:
            remaining = None
        return MemberChanges(
            username=self._sent("username"),
            display_name=self._sent("display_name"),
            password=self._sent("password"),
            remaining_nanos=remaining,
            was_total_nanos=self.cleaned_data["was_total"],
            is_admin=self._wants_admin(),
        )

    def name_taken(self) -> None:
        self.add_error("username", _("This username is not available."))

    def quota_refused(self, error: QuotaError, *, pool: Wallet, wallet: Wallet) -> None:
        """Add the error with current figures. StaleTotal also updates the hidden fields, so a second POST works."""
        self.add_error("remaining", quota_message(error, pool=pool, wallet=wallet))
        if isinstance(error, StaleTotal):
            now = {"was_total": format_exact(wallet.total), "was_remaining": format_exact(wallet.remaining)}
            self.data = {**self.data.dict(), **now}

    def _sent(self, name: str) -> Any:
        return self.cleaned_data.get(name) if name in self.data else None

    def _wants_admin(self) -> bool | None:
        """Return whether the member is to be an admin, or None if the switch was left as the dialog showed it."""
        wanted = self.cleaned_data.get("admin", False)
        shown = self.cleaned_data.get("was_admin")
        if not shown:
            return wanted if "admin" in self.data else None
        return None if wanted == (shown == "true") else wanted


class SecurityForm(forms.Form):
    required = forms.ChoiceField(
        choices=[("true", "true"), ("false", "false")],
        error_messages={
            "required": _("Send required=true or required=false."),
            "invalid_choice": _("Send true or false."),
        },
    )

    def is_required(self) -> bool:
        return bool(self.cleaned_data["required"] == "true")


class PreviewForm(forms.Form):
    remaining = AmountField(error_messages={"required": _("Enter an amount of $0.00 or more.")})


class DeleteUserForm(forms.Form):
    confirm = forms.CharField(required=False)

    def __init__(self, data: Any = None, *, member: User) -> None:
        self.member = member
        super().__init__(data)

    def clean_confirm(self) -> str:
        typed: str = self.cleaned_data["confirm"]
        if typed != self.member.username:
            text = _("That does not match. Type %(username)s to delete this user.")
            raise forms.ValidationError(text, "mismatch", {"username": self.member.username})
        return typed


def quota_message(error: QuotaError, *, pool: Wallet, wallet: Wallet) -> str:
    match error:
        case InsufficientPool():
            return gettext("Only %(available)s is available in this space. The most you can set is %(most)s.") % {
                "available": format_balance(error.available),
                "most": format_balance(pool.available + wallet.remaining),
            }
        case BelowHeld():
            return gettext("%(held)s is in flight. Set at least that much, or wait until it is settled.") % {
                "held": f"${format_exact(error.held)}"
            }
        case StaleTotal():
            return gettext(
                "Somebody else changed this quota: it is now %(remaining)s / %(total)s. "
                "Check the amount and submit again."
            ) % {"remaining": format_balance(error.remaining), "total": format_balance(error.total)}
        case _:
            return gettext("This amount cannot be set.")


def _shown(member: User) -> dict[str, Any]:
    remaining, total = format_exact(member.wallet.remaining), format_exact(member.wallet.total)
    is_admin = member.role == Role.ADMIN
    return {
        "username": member.username,
        "display_name": member.display_name,
        "remaining": remaining,
        "admin": is_admin,
        "was_total": total,
        "was_remaining": remaining,
        "was_admin": "true" if is_admin else "false",
    }
