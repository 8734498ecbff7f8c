"""Read-only sums over the wallets of a space, for screens."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count, F, Q, Sum

from quotas.models import Wallet
from tenants.models import Space

MAX_RICHEST = 5


@dataclass(frozen=True)
class MembersShare:
    """How much of a space's allocated money is used and left, in nanos. `used` includes deleted members' spending."""

    used: int
    left: int
    deleted_used: int
    deleted_count: int


def pool_of(space: Space) -> Wallet:
    return Wallet.objects.get(space=space, kind=Wallet.Kind.POOL)


def members_share(space: Space) -> MembersShare:
    closed = Q(is_closed=True)
    sums = Wallet.objects.filter(space=space, kind=Wallet.Kind.MEMBER).aggregate(
        total=Sum("total", default=0),
        used=Sum("spent", default=0),
        deleted_used=Sum("spent", filter=closed, default=0),
        deleted_count=Count("pk", filter=closed & Q(spent__gt=0)),
    )
    return MembersShare(
        used=sums["used"],
        left=sums["total"] - sums["used"],
        deleted_used=sums["deleted_used"],
        deleted_count=sums["deleted_count"],
    )


def richest_of(space: Space) -> list[Wallet]:
    wallets = Wallet.objects.filter(space=space, kind=Wallet.Kind.MEMBER, is_closed=False)
    # Sort ids only, then fetch the few rows: the sort has to visit every wallet of the space.
    most = list(wallets.order_by(F("spent") - F("total"), "user_id").values_list("pk", flat=True)[:MAX_RICHEST])
    found = wallets.select_related("user").in_bulk(most)
    return [found[pk] for pk in most if pk in found]
