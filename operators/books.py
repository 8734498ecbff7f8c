"""Read-only pages of journal, wallets, holds and reconciliations."""

from __future__ import annotations

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from core.money import format_balance, format_cost
from operators.browse import BrowseOnly
from quotas.models import Hold, Reconciliation, Transfer, Wallet


@admin.register(Wallet)
class WalletAdmin(BrowseOnly[Wallet]):
    list_display = ("space", "kind", "user", "total_usd", "allocated_usd", "spent_usd", "held_usd", "available_usd")
    list_filter = ("kind", "is_closed")
    list_select_related = ("space", "user")
    search_fields = ("space__name", "user__username")
    ordering = ("space", "pk")

    @admin.display(description=_("Total"), ordering="total")
    def total_usd(self, wallet: Wallet) -> str:
        return format_balance(wallet.total)

    @admin.display(description=_("Allocated"))
    def allocated_usd(self, wallet: Wallet) -> str:
        return format_balance(wallet.allocated)

    @admin.display(description=_("Spent"))
    def spent_usd(self, wallet: Wallet) -> str:
        return format_cost(wallet.spent)

    @admin.display(description=_("Held"))
    def held_usd(self, wallet: Wallet) -> str:
        return format_cost(wallet.held)

    @admin.display(description=_("Available"))
    def available_usd(self, wallet: Wallet) -> str:
        return format_balance(wallet.available)


@admin.register(Transfer)
class TransferAdmin(BrowseOnly[Transfer]):
    list_display = ("at", "space", "kind", "amount_usd", "member_name", "actor_name", "reason", "available_after")
    list_filter = ("kind",)
    list_select_related = ("space",)
    search_fields = ("space__name", "member_name", "actor_name", "idempotency_key")

    @admin.display(description=_("Amount"))
    def amount_usd(self, transfer: Transfer) -> str:
        return format_cost(transfer.amount)

    @admin.display(description=_("Available after"))
    def available_after(self, transfer: Transfer) -> str:
        return format_balance(transfer.pool_available_after)


@admin.register(Hold)
class HoldAdmin(BrowseOnly[Hold]):
    list_display = ("created_at", "space", "model", "amount_usd", "expires_at")
    list_select_related = ("space",)
    search_fields = ("id", "space__name")
    ordering = ("-created_at",)

    @admin.display(description=_("Amount"))
    def amount_usd(self, hold: Hold) -> str:
        return format_cost(hold.amount)


@admin.register(Reconciliation)
class ReconciliationAdmin(BrowseOnly[Reconciliation]):
    list_display = ("at", "space", "is_balanced")
    list_filter = ("is_balanced",)
    list_select_related = ("space",)
    search_fields = ("space__name",)
