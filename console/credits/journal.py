"""The journal of transfers: the pool's for the manager, their own wallet's for everybody else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any

from django.db.models import Count, Q, QuerySet, Sum
from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from accounts.models import User
from console.choices import Choice, Link
from console.export import CsvColumn, batches, count, moment, money, sheet, text
from console.logs import MAX_SUGGESTIONS, LogFilters, TableLog, people_called, text_in, uuid_of
from console.periods import FIRST_DAY, LAST_DAY, Period
from core.money import format_balance
from quotas.models import FIRST_GRANT, Transfer
from usage.figures import first_id

Kind = Transfer.Kind
ALL_TIME = Period(FIRST_DAY, LAST_DAY)
INTO_POOL = (Kind.GRANT, Kind.RECLAIM, Kind.RETURN)


@dataclass(frozen=True)
class Move:
    """A transfer from the side of one wallet: incoming is positive, outgoing negative."""

    transfer: Transfer
    label: str
    actor_label: str
    detail: str
    signed_nanos: int
    after_nanos: int

    @property
    def kind(self) -> str:
        return self.transfer.kind

    @property
    def at(self) -> datetime:
        return self.transfer.at


@dataclass(frozen=True, kw_only=True)
class JournalFilters(LogFilters):
    """Filters of the journal. Without `from` and `to` the period is ALL_TIME."""

    kind: str

    @classmethod
    def parse(cls, query: QueryDict, *, today: date) -> dict[str, Any]:
        kind = text_in(query, "kind")
        parsed = super().parse(query, today=today) | {"request_id": ""}
        has_period = text_in(query, "from") or text_in(query, "to")
        return parsed | {
            "period": parsed["period"] if has_period else ALL_TIME,
            "kind": kind if kind in Kind.values else "",
        }


@dataclass(frozen=True)
class JournalTotals:
    transfers: int
    in_nanos: int
    out_nanos: int


class Journal(TableLog[Transfer, JournalFilters]):
    address = "/me/credits/"

    @property
    def default_period(self) -> Period:
        return ALL_TIME

    def _filters(self, query: QueryDict) -> JournalFilters:
        return JournalFilters.of(query, today=self.today)

    def _visible(self) -> QuerySet[Transfer]:
        return transfers_visible_to(self.user)

    def _of_request(self, text: str) -> QuerySet[Transfer]:
        identifier = uuid_of(text)
        return self._visible().filter(pk=identifier) if identifier else Transfer.objects.none()

    def _matching(self) -> QuerySet[Transfer]:
        asked = self.filters
        moves = self._visible()
        if asked.period != ALL_TIME:
            first, after = map(first_id, self.moments)
            moves = moves.filter(id__gte=first, id__lt=after)
        if asked.user:
            people = User.everyone.filter(pk__in=people_called(asked.user, space_id=self.user.space_id))
            moves = moves.filter(member_number__in=list(people.values_list("number", flat=True)))
        return moves.filter(kind=asked.kind) if asked.kind else moves

    @property
    def is_whole_space(self) -> bool:
        """Only the manager sees the pool's journal; an admin sees their own wallet's."""
        return self.user.is_manager

    @property
    def has_period(self) -> bool:
        return self.filters.period != ALL_TIME

    @cached_property
    def moves(self) -> list[Move]:
        return [seen_by(self.user, transfer) for transfer in self.page.records]

    @cached_property
    def totals(self) -> JournalTotals:
        inward = Q(kind__in=_inward(self.user))
        found = self.records.aggregate(
            transfers=Count("id"), came=Sum("amount", filter=inward), went=Sum("amount", filter=~inward)
        )
        return JournalTotals(found["transfers"], found["came"] or 0, found["went"] or 0)

    @property
    def periods(self) -> list[Link]:
        whole = Link(_("All time"), self.url(period=ALL_TIME), self.filters.period == ALL_TIME)
        return [whole, *super().periods[1:]]

    @property
    def kinds(self) -> list[Choice]:
        shown = [kind for kind in Kind if self.is_whole_space or kind not in (Kind.GRANT, Kind.REVOKE)]
        options = [("", _("All changes")), *((kind.value, _kind_label(self.user, kind)) for kind in shown)]
        return [Choice(value, label, value == self.filters.kind) for value, label in options]

    @property
    def user_names(self) -> list[str]:
        return [name for name in super().user_names if name != self.user.username][:MAX_SUGGESTIONS]


def transfers_visible_to(user: User) -> QuerySet[Transfer]:
    transfers = Transfer.objects.filter(space=user.space_id)
    return transfers if user.is_manager else transfers.filter(member_number=user.number)


def seen_by(user: User, transfer: Transfer) -> Move:
    is_in = transfer.kind in _inward(user)
    after = transfer.pool_available_after if user.is_manager else transfer.member_remaining_after
    assert after is not None
    return Move(
        transfer=transfer,
        label=_label(transfer) if user.is_manager else _kind_label(user, Kind(transfer.kind)),
        actor_label=actor_label(transfer),
        detail=_detail(transfer),
        signed_nanos=transfer.amount if is_in else -transfer.amount,
        after_nanos=after,
    )


def journal_sheet(journal: Journal, user: User, *, has_bom: bool = False) -> Iterator[str]:
    rows = ([seen_by(user, transfer) for transfer in batch] for batch in batches(journal.records))
    return sheet(_columns(user), rows, has_bom=has_bom)


def _columns(user: User) -> list[CsvColumn[Move]]:
    kinds = {kind.value: _kind_label(user, kind) for kind in Kind}
    after = _("Available after (USD)") if user.is_manager else _("Remaining after (USD)")
    member: list[CsvColumn[Move]] = [
        text(_("User"), lambda move: move.transfer.member_name),
        count(_("User ID"), lambda move: move.transfer.member_number),
    ]
    return [
        moment(_("Time"), lambda move: move.at),
        text(_("Change"), lambda move: kinds[move.kind]),
        *(member if user.is_manager else []),
        text(_("By"), lambda move: move.actor_label),
        money(_("Amount (USD)"), lambda move: move.signed_nanos, is_summed=True),
        money(after, lambda move: move.after_nanos),
        money(_("User’s total after (USD)"), lambda move: move.transfer.member_total_after),
        text(_("Reason"), lambda move: move.transfer.reason),
        text(_("Transfer ID"), lambda move: move.transfer.pk),
    ]


def _inward(user: User) -> tuple[str, ...]:
    return INTO_POOL if user.is_manager else (Kind.ALLOCATE,)


def _kind_label(user: User, kind: Transfer.Kind) -> str:
    if kind == Kind.ALLOCATE and not user.is_manager:
        return _("Received")
    return _("Top-up") if kind == Kind.GRANT else str(kind.label)


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


def actor_label(transfer: Transfer) -> str:
    # Operators appear without a name.
    if transfer.kind in (Kind.GRANT, Kind.REVOKE):
        return _("Operator")
    return transfer.actor_name or pgettext("actor", "System")


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
