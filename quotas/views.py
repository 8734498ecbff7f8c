from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from quotas.models import FIRST_GRANT, Reconciliation, Transfer, Wallet
from quotas.money import MINUS, format_balance, format_sum
from quotas.pool import members_share, pool_of
from tenants.guards import space_view
from tenants.middleware import SpaceRequest

PAGE = 20
Kind = Transfer.Kind


@dataclass(frozen=True)
class Move:
    """A transfer as one side sees it: what came is positive, what went negative."""

    kind: str
    label: str
    member_name: str
    actor_label: str
    detail: str
    at: datetime
    signed_nanos: int
    after_nanos: int


@require_safe
@space_view
def credits_page(request: SpaceRequest) -> HttpResponse:
    context = _pool_context(request) if request.user.is_manager else _wallet_context(request)
    return render(request, "quotas/credits.html", context | _balanced(request))


def _pool_context(request: SpaceRequest) -> dict[str, Any]:
    pool = pool_of(request.space)
    share = members_share(request.space)
    journal = Transfer.objects.filter(space=request.space)
    return {
        "pool": pool,
        "sum": _sum(pool),
        "members_used_nanos": share.used,
        "members_left_nanos": share.left,
        "deleted_used_nanos": share.deleted_used,
        "deleted_count": share.deleted_count,
        **_journal(request, journal, _seen_by_manager),
    }


def _wallet_context(request: SpaceRequest) -> dict[str, Any]:
    journal = Transfer.objects.filter(space=request.space, member_number=request.user.number)
    return {
        "pool": None,
        "wallet": Wallet.objects.get(space=request.space, user=request.user),
        **_journal(request, journal, _seen_by_member),
    }


def _balanced(request: SpaceRequest) -> dict[str, Any]:
    last = Reconciliation.objects.filter(space=request.space, is_balanced=True).first()
    return {"balanced_at": last.at if last else None}


def _sum(pool: Wallet) -> list[tuple[str, str, str]]:
    """(label, sign, figure) of Total - Allocated - Own use - In flight = Available."""
    labels = [_("Total"), _("Allocated"), _("Own use"), _("In flight"), _("Available")]
    figures = format_sum(pool.total, pool.allocated, pool.spent, pool.held, pool.available)
    return list(zip(labels, ["", MINUS, MINUS, MINUS, "="], figures, strict=True))


def _journal(request: SpaceRequest, journal: QuerySet[Transfer], seen: Any) -> dict[str, Any]:
    """One page, newest first, going on below a cursor: as quick at any depth."""
    cursor = _cursor(request.GET.get("cursor", ""))
    rows = list((journal.filter(id__lt=cursor) if cursor else journal).order_by("-id")[: PAGE + 1])
    has_older = len(rows) > PAGE
    return {
        "transfers": [seen(transfer) for transfer in rows[:PAGE]],
        "older_url": f"/me/credits/?cursor={rows[PAGE - 1].pk}" if has_older else "",
        "newest_url": "/me/credits/" if cursor else "",
    }


def _cursor(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _seen_by_manager(transfer: Transfer) -> Move:
    inward = transfer.kind in (Kind.GRANT, Kind.RECLAIM, Kind.RETURN)
    return Move(
        kind=transfer.kind,
        label=_label(transfer),
        member_name=transfer.member_name,
        actor_label=_actor_label(transfer),
        detail=_detail(transfer),
        at=transfer.at,
        signed_nanos=transfer.amount if inward else -transfer.amount,
        after_nanos=transfer.pool_available_after,
    )


def _seen_by_member(transfer: Transfer) -> Move:
    assert transfer.member_remaining_after is not None
    inward = transfer.kind == Kind.ALLOCATE
    return Move(
        kind=transfer.kind,
        label=_("Received") if inward else str(transfer.get_kind_display()),
        member_name="",
        actor_label=_actor_label(transfer),
        detail=_detail(transfer),
        at=transfer.at,
        signed_nanos=transfer.amount if inward else -transfer.amount,
        after_nanos=transfer.member_remaining_after,
    )


def _label(transfer: Transfer) -> str:
    match transfer.kind:
        case Kind.GRANT:
            return _("Top-up")
        case Kind.REVOKE:
            return _("Taken back")
        case Kind.ALLOCATE:
            return _("Allocated to %(name)s") % {"name": transfer.member_name}
        case Kind.RECLAIM:
            return _("Reclaimed from %(name)s") % {"name": transfer.member_name}
    return _("Returned from %(name)s") % {"name": transfer.member_name}


def _actor_label(transfer: Transfer) -> str:
    """Operators are one office to a space; without an actor it was the system itself."""
    if transfer.kind in (Kind.GRANT, Kind.REVOKE):
        return _("Operator")
    return transfer.actor_name or _("System")


def _detail(transfer: Transfer) -> str:
    if transfer.member_total_after is None:
        before = transfer.pool_total_after - _sign(transfer) * transfer.amount
        reason = _(FIRST_GRANT) if transfer.reason == FIRST_GRANT else transfer.reason
        return reason or _total_change(before, transfer.pool_total_after)
    if transfer.kind == Kind.RETURN:
        return _("User deleted, %(used)s already used") % {"used": format_balance(transfer.member_total_after)}
    return _total_change(transfer.member_total_after - _sign(transfer) * transfer.amount, transfer.member_total_after)


def _sign(transfer: Transfer) -> int:
    return 1 if transfer.kind in (Kind.GRANT, Kind.ALLOCATE) else -1


def _total_change(before: int, after: int) -> str:
    if before == 0:
        return _("New total %(after)s") % {"after": format_balance(after)}
    return _("Total %(before)s → %(after)s") % {"before": format_balance(before), "after": format_balance(after)}
