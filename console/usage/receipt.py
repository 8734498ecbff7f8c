"""The receipt of a request: lines that add up exactly to its cost."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from django.utils.translation import gettext as _

from core.ids import NIL
from core.money import PARTS_PER_NANO, format_parts
from quotas.charging import SWEPT
from relay.pricing import Rate, Term, Usage, terms
from usage.models import UsageRecord


@dataclass(frozen=True)
class ReceiptLine:
    """A line of a receipt. `parts` are millionths of a nano-dollar, so that prices × tokens are exact integers."""

    label: str
    how: str
    parts: int

    @property
    def usd(self) -> str:
        return format_parts(self.parts)


@dataclass(frozen=True)
class ReceiptId:
    """An id to copy, with a link to the log; `place` is the DOM id of its element, unique on the page."""

    label: str
    text: str
    url: str
    place: str


@dataclass(frozen=True)
class Receipt:
    lines: list[ReceiptLine]
    record: UsageRecord

    @property
    def held_usd(self) -> str:
        return format_parts(self.record.held * PARTS_PER_NANO)

    @property
    def charged_usd(self) -> str:
        return format_parts(self.record.cost * PARTS_PER_NANO)

    @property
    def released_usd(self) -> str:
        return format_parts(max(0, self.record.held - self.record.cost) * PARTS_PER_NANO)

    @property
    def before_usd(self) -> str:
        return format_parts((self.record.available_after + self.record.cost) * PARTS_PER_NANO)

    @property
    def ids(self) -> list[ReceiptId]:
        record = self.record
        ids = [self._id(_("Request ID"), record.request_id, "request_id")]
        if record.key_id != NIL:
            ids.append(self._id(_("Token ID"), record.key_id, "token"))
        return [*ids, self._id(_("Record ID"), record.pk, "request_id")]

    def _id(self, label: str, identifier: UUID, name: str) -> ReceiptId:
        url = f"/console/usage/?{name}={identifier}"
        return ReceiptId(label, str(identifier), url, f"id-{self.record.pk.hex[-16:]}-{identifier.hex[-16:]}")

    @property
    def available_usd(self) -> str:
        return format_parts(self.record.available_after * PARTS_PER_NANO)


def receipt_of(record: UsageRecord) -> Receipt:
    """Return the lines of prices × tokens, rounding and adjustments, which add up to the cost.

    Members may not see the shortfall (operators do), so one line says that the charge was limited instead.
    """
    lines = [] if record.kind == UsageRecord.Kind.ERROR else _priced(record)
    due = (record.cost + record.shortfall) * PARTS_PER_NANO
    if other := due - sum(line.parts for line in lines):
        lines.append(ReceiptLine(_reason(record, other), "", other))
    if record.shortfall:
        lines.append(ReceiptLine(_("Limited to what was available"), "", -record.shortfall * PARTS_PER_NANO))
    return Receipt(lines, record)


def _priced(record: UsageRecord) -> list[ReceiptLine]:
    usage = Usage(
        input_tokens=record.input_tokens,
        cached_tokens=min(record.cached_tokens, record.input_tokens),
        output_tokens=record.output_tokens,
        images=record.images,
        seconds=record.seconds,
    )
    lines = [ReceiptLine(_label(term), _how(term), term.parts) for term in terms(Rate.of(record.price), usage)]
    if rest := -sum(line.parts for line in lines) % PARTS_PER_NANO:
        lines.append(ReceiptLine(_("Rounded up to a whole nano-dollar"), "", rest))
    return lines


def _label(term: Term) -> str:
    labels = {
        "input": _("Input"),
        "cached_input": _("Cached input"),
        "output": _("Output"),
        "request": _("Request"),
        "images": _("Images"),
        "seconds": _("Seconds"),
    }
    return labels[term.name]


def _how(term: Term) -> str:
    if term.per == 1:
        return f"{term.quantity:,} × ${term.price_usd}"
    return _("%(quantity)s tokens × $%(price)s per million") % {
        "quantity": f"{term.quantity:,}",
        "price": term.price_usd,
    }


def _reason(record: UsageRecord, other: int) -> str:
    if record.code == SWEPT:
        return _("Delivered before the request was cut off")
    if other < 0:
        return _("Limited to what was held") if record.is_estimated else _("Charged by an earlier row")
    return _("Without a price on record")
