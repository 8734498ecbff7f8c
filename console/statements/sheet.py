"""Monthly statements as tables for the page and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from django.utils.translation import gettext as _

from accounts.models import User
from console.credits.journal import Move, actor_label, seen_by
from console.export import BOM, PIECE_CHARS, cell_head_of, date_cell, iso_of, safe_text, text_cell
from core import origin
from core.money import format_alike, format_exact
from quotas.models import Transfer
from quotas.statement import Balance, MemberStatement, SpaceStatement

Kind = Transfer.Kind


class Figure(NamedTuple):
    label: str
    text: str
    is_result: bool = False


class TableLine(NamedTuple):
    """A line of a table; each cell carries its column header, which narrow screens show beside it."""

    name: str
    cells: list[tuple[str, str]]
    is_result: bool = False
    member: User | None = None


class Table(NamedTuple):
    """A table; the first of `heads` is the header of the lines' names."""

    heads: list[str]
    lines: list[TableLine]


def steps(balance: Balance, labels: dict[str, str]) -> list[Figure]:
    """Return opening balance, transfers, charges and closing balance, with as many decimals as add up exactly."""
    parts = [balance.opening_nanos, *(balance.moved(kind) for kind in labels), -balance.spent_nanos]
    closing, *texts = format_alike(balance.closing_nanos, *parts)
    names = [_("Opening balance"), *labels.values(), _("Charges")]
    lines = [Figure(name, text) for name, text in zip(names, texts, strict=True)]
    return [*lines, Figure(_("Closing balance"), closing, is_result=True)]


def shares(whose: str, rows: list[tuple[str, int, int]], nameless: str) -> Table:
    heads = [_("Requests"), _("Charges")]
    texts = format_alike(*(cost for _name, _requests, cost in rows))
    lines = [
        TableLine(name or nameless, list(zip(heads, [f"{requests:,}", text], strict=True)))
        for (name, requests, _cost), text in zip(rows, texts, strict=True)
    ]
    return Table([whose, *heads], lines)


@dataclass(frozen=True)
class MemberSheet:
    statement: MemberStatement

    @property
    def steps(self) -> list[Figure]:
        return steps(self.statement.balance, _member_labels())

    @property
    def models(self) -> Table:
        return shares(_("Model"), self.statement.by_model, _("Unknown model"))

    @property
    def keys(self) -> Table:
        return shares(_("Token"), self.statement.by_key, _("Without a token"))

    @property
    def moves(self) -> list[Move]:
        return [seen_by(self.statement.member, transfer) for transfer in self.statement.transfers]


@dataclass(frozen=True)
class SpaceSheet:
    statement: SpaceStatement

    @property
    def balance(self) -> Table:
        labels = _space_labels()
        sides = [steps(side, labels) for side in (self.statement.pool, self.statement.members, self.statement.combined)]
        heads = [_("Pool"), _("Members"), _("Whole space")]
        return Table(["", *heads], [_beside(heads, figures) for figures in zip(*sides, strict=True)])

    @property
    def pool(self) -> Table:
        labels = [_("Total"), _("Allocated"), _("Own use so far"), _("Left in the pool")]
        at = [self.statement.opening, self.statement.closing]
        sums = [format_alike(one.total_nanos, one.allocated_nanos, one.own_nanos, one.left_nanos) for one in at]
        sides = [
            [Figure(label, text, label == labels[-1]) for label, text in zip(labels, texts, strict=True)]
            for texts in sums
        ]
        heads = [_("At the beginning"), _("At the end") if self.statement.month.has_ended else _("Now")]
        return Table(["", *heads], [_beside(heads, figures) for figures in zip(*sides, strict=True)])

    @property
    def models(self) -> Table:
        return shares(_("Model"), self.statement.by_model, _("Unknown model"))

    @property
    def members(self) -> Table:
        heads = [_("Opening balance"), _("Received"), _("Given back"), _("Charges"), _("Closing balance")]
        lines = [
            TableLine(member.username, list(zip(heads, _member_texts(balance), strict=True)), member=member)
            for member, balance in self.statement.lines
        ]
        return Table([_("User"), *heads], lines)


def _beside(heads: list[str], figures: tuple[Figure, ...]) -> TableLine:
    cells = [(head, figure.text) for head, figure in zip(heads, figures, strict=True)]
    return TableLine(figures[0].label, cells, figures[0].is_result)


def _member_texts(balance: Balance) -> list[str]:
    back = balance.moved(Kind.RECLAIM) + balance.moved(Kind.RETURN)
    came, spent = balance.moved(Kind.ALLOCATE), -balance.spent_nanos
    closing, *texts = format_alike(balance.closing_nanos, balance.opening_nanos, came, back, spent)
    return [*texts, closing]


def _member_labels() -> dict[str, str]:
    return {Kind.ALLOCATE: _("Received"), Kind.RECLAIM: _("Reclaimed"), Kind.RETURN: _("Returned to the pool")}


def _space_labels() -> dict[str, str]:
    return {
        Kind.GRANT: _("Top-up"),
        Kind.REVOKE: _("Taken back"),
        Kind.ALLOCATE: _("Allocated to members"),
        Kind.RECLAIM: _("Reclaimed from members"),
        Kind.RETURN: _("Returned of deleted users"),
    }


# -- CSV ----------------------------------------------------------------------------------------------------------


def member_csv(statement: MemberStatement, *, has_bom: bool) -> Iterator[str]:
    """Return the CSV of a member: opening balance + amounts of transfers and charges = closing balance."""
    time = cell_head_of(_("Time"), statement.month.zone) if has_bom else _("Time")
    heads = [_("Line"), time, _("Description"), _("Who"), _("Requests"), _("Amount (USD)"), _("Balance (USD)")]
    lines = _member_lines(statement, has_bom=has_bom)
    return _pieces([[safe_text(head) for head in heads], *lines], has_bom=has_bom)


def _member_lines(statement: MemberStatement, *, has_bom: bool) -> Iterator[list[str]]:
    text, time = (text_cell, date_cell) if has_bom else (safe_text, iso_of)
    zone, balance = statement.month.zone, statement.balance
    yield [_("Opening balance"), time(statement.month.start, zone), "", "", "", "", format_exact(balance.opening_nanos)]
    for transfer in statement.transfers:
        move = seen_by(statement.member, transfer)
        amount = format_exact(move.signed_nanos)
        at = time(move.at, zone)
        yield [_("Transfer"), at, text(move.label), text(actor_label(transfer)), "", amount, ""]
    for charge in statement.charges:
        key = statement.key_names.get(charge.key_id, "")
        amount = format_exact(-charge.cost_nanos)
        yield [_("Charges"), "", text(charge.model), text(key), str(charge.requests), amount, ""]
    end = min(statement.month.end, origin.now())
    yield [_("Closing balance"), time(end, zone), "", "", "", "", format_exact(balance.closing_nanos)]


def space_csv(statement: SpaceStatement, *, has_bom: bool) -> Iterator[str]:
    """Return the CSV of a space: a line each for the pool, every member, all members and the whole space.

    In each line, opening balance + amounts = closing balance.
    """
    labels, text = _space_labels(), text_cell if has_bom else safe_text
    heads = [_("Owner"), _("User ID"), _("User"), _("Opening balance (USD)"), *labels.values(), _("Charges")]
    lines = [[safe_text(head) for head in [*heads, _("Closing balance (USD)")]]]
    lines.append([_("Pool"), "", "", *_amounts(statement.pool)])
    for line in statement.lines:
        whose = _("Deleted user") if line.member.deleted_at else _("Member")
        lines.append([whose, str(line.member.number), text(line.member.username), *_amounts(line.balance)])
    lines.append([_("All members"), "", "", *_amounts(statement.members)])
    lines.append([_("Whole space"), "", "", *_amounts(statement.combined)])
    return _pieces(lines, has_bom=has_bom)


def _amounts(balance: Balance) -> list[str]:
    parts = [balance.opening_nanos, *map(balance.moved, _space_labels()), -balance.spent_nanos, balance.closing_nanos]
    return [format_exact(nanos) for nanos in parts]


def _pieces(lines: Iterable[list[str]], *, has_bom: bool) -> Iterator[str]:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(lines)
    whole = (BOM if has_bom else "") + buffer.getvalue()
    return iter([whole[at : at + PIECE_CHARS] for at in range(0, len(whole), PIECE_CHARS)])
