"""Preview of a change of a member's quota. It is not binding: set_remaining decides under the wallets' lock."""

from __future__ import annotations

from dataclasses import dataclass

from quotas.models import Wallet


@dataclass(frozen=True)
class Preview:
    """`short_nanos` is what the pool lacks, or 0; `max_nanos` is the highest remaining that can be set."""

    used_nanos: int
    remaining_nanos: int
    total_nanos: int
    pool_before_nanos: int
    pool_after_nanos: int
    short_nanos: int
    max_nanos: int
    error: str = ""


def preview(*, pool: Wallet, wallet: Wallet, remaining_nanos: int, error: str = "") -> Preview:
    after = pool.available - (remaining_nanos - wallet.remaining)
    return Preview(
        used_nanos=wallet.spent,
        remaining_nanos=remaining_nanos,
        total_nanos=remaining_nanos + wallet.spent,
        pool_before_nanos=pool.available,
        pool_after_nanos=max(after, 0),
        short_nanos=max(-after, 0),
        max_nanos=pool.available + wallet.remaining,
        error=error,
    )
