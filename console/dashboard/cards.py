"""The figures on the dashboard's cards."""

from __future__ import annotations

from typing import NamedTuple

from django.utils.translation import gettext as _

from quotas.models import Wallet
from usage.figures import Figures

PACE_DAYS = 7


class RecentSpend(NamedTuple):
    """Spending today, this month and in the last PACE_DAYS days, independent of the selected period."""

    today_nanos: int
    month_nanos: int
    pace_nanos: int


class WalletCard(NamedTuple):
    """The wallet shown on the card. The runway divides `left_nanos`; for a space it includes what members have left."""

    label: str
    now_nanos: int
    total_nanos: int
    left_nanos: int


class Runway(NamedTuple):
    left_nanos: int
    pace_nanos: int

    @property
    def per_day_nanos(self) -> int:
        return -(-self.pace_nanos // PACE_DAYS)

    @property
    def days(self) -> int | None:
        return max(0, self.left_nanos) * PACE_DAYS // self.pace_nanos if self.pace_nanos else None


class NearlyOut(NamedTuple):
    wallet: Wallet
    runway: Runway


class ModelShare(NamedTuple):
    model: str
    figures: Figures
    look: int
    percent: str

    @property
    def name(self) -> str:
        # `model` is empty when a request was refused before its model was known.
        return self.model or _("Unknown model")


class Failures(NamedTuple):
    errors: int
    requests: int

    @property
    def percent(self) -> str:
        return f"{self.errors * 100 // self.requests}%"


class SpendChange(NamedTuple):
    """Comparison with the preceding period of equal length; `percent` is empty if nothing was spent in it."""

    percent: str
    days: int
