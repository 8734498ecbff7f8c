"""The members who spent most in a period, found without adding up every member."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from django.db.models import Case, F, QuerySet, Subquery, When

from accounts.models import User
from quotas.models import Wallet
from usage import figures
from usage.figures import Figures, Scope

# `top_spenders` sums this many wallets with the highest spending, then more, before it sums all.
TOP_CANDIDATES = (200, 2000)


class TopMember(NamedTuple):
    user: User
    cost_nanos: int
    requests: int
    percent: str


def top_spenders(scope: Scope, first: datetime, after: datetime, *, limit: int) -> list[tuple[int, Figures]]:
    """Return (user id, figures) of the users who spent most in the period, at most `limit`.

    A user's spending in the period cannot exceed `wallet.spent`, their spending of all time. So only the wallets with
    the highest `spent` are summed first; the result is final once its last row exceeds `spent` of the next wallet.
    """
    wallets = Wallet.objects.filter(space=scope.space_id, spent__gt=0).order_by("-spent", "pk")
    owner = Case(When(kind=Wallet.Kind.POOL, then=Subquery(_manager_ids(scope.space_id))), default=F("user_id"))
    for count in TOP_CANDIDATES:
        spenders = list(wallets.annotate(owner=owner).values_list("owner", "spent")[: count + 1])
        candidates = frozenset(user for user, _spent in spenders[:count])
        ranked = _ranked(figures.totals_by_user(scope.replace(user_ids=candidates), first, after))[:limit]
        next_spent = spenders[count][1] if len(spenders) > count else 0
        if not next_spent or (len(ranked) == limit and ranked[-1][1].cost_nanos > next_spent):
            return ranked
    return _ranked(figures.totals_by_user(scope, first, after))[:limit]


def _manager_ids(space_id: int) -> QuerySet[User, int]:
    return User.everyone.filter(space=space_id, number=1).values_list("pk", flat=True)


def _ranked(spent: dict[int, Figures]) -> list[tuple[int, Figures]]:
    return sorted(
        ((user, sums) for user, sums in spent.items() if sums.cost_nanos),
        key=lambda pair: (-pair[1].cost_nanos, pair[0]),
    )
