from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_safe
from django.views.decorators.vary import vary_on_headers

from console.answers import page_or_piece
from console.credits.journal import Journal, journal_sheet
from console.export import csv_answer, file_name, wants_bom
from console.frame import pool_of_request
from console.guards import SpaceRequest, space_view
from core.money import MINUS, format_sum
from quotas.models import Reconciliation, Wallet
from quotas.pool import members_share, richest_of


@require_safe
@vary_on_headers("HX-Request", "HX-Target")
@space_view
def credits_page(request: SpaceRequest) -> HttpResponse:
    journal = Journal(request.user, request.GET)
    return page_or_piece(
        request,
        "console/credits/credits.html",
        {"log": journal},
        piece="console/credits/credits.html#journal",
        target="journal",
        shown_url=journal.shown_url,
        rest=lambda: (_pool_context if request.user.is_manager else _wallet_context)(request) | _balanced(request),
    )


@require_GET
@space_view
def credits_csv(request: SpaceRequest) -> HttpResponseBase:
    journal = Journal(request.user, request.GET)
    pieces = journal_sheet(journal, request.user, has_bom=wants_bom(request))
    period = journal.filters.period if journal.has_period else (None, None)
    return csv_answer(pieces, file_name(request.space, "credits", *period))


def _pool_context(request: SpaceRequest) -> dict[str, Any]:
    pool = pool_of_request(request)
    share = members_share(request.space)
    return {
        "pool": pool,
        "sum": _sum(pool),
        "members_used_nanos": share.used,
        "members_left_nanos": share.left,
        "deleted_used_nanos": share.deleted_used,
        "deleted_count": share.deleted_count,
        "richest": richest_of(request.space),
    }


def _wallet_context(request: SpaceRequest) -> dict[str, Any]:
    return {"pool": None, "wallet": Wallet.objects.get(space=request.space, user=request.user)}


def _balanced(request: SpaceRequest) -> dict[str, Any]:
    last = Reconciliation.objects.filter(space=request.space, is_balanced=True).first()
    return {"balanced_at": last.at if last else None}


def _sum(pool: Wallet) -> list[tuple[str, str, str]]:
    """Return (label, sign, figure) of Total - Allocated - Own use - In flight = Available."""
    labels = [_("Total"), _("Allocated"), _("Own use"), _("In flight"), _("Available")]
    figures = format_sum(pool.total, pool.allocated, pool.spent, pool.held, pool.available)
    return list(zip(labels, ["", MINUS, MINUS, MINUS, "="], figures, strict=True))
