"""The receipt of a request: lines that add up exactly to its cost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.ids import NIL
from core.money import PARTS_PER_NANO, format_cost, format_parts
from quotas.charging import SWEPT
from relay.pricing import Rate, Term, terms, usage_of_columns
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
    """`notes` say in sentences what figures do not: which prices, a limit, a client that left."""

    lines: list[ReceiptLine]
    record: UsageRecord
    notes: list[str] = field(default_factory=list)

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
    due = (record.cost + record.shortfall) * PARTS_PER_NANO
    # A request that failed costs nothing, except for what was due and could not be charged.
    lines = [] if record.kind == UsageRecord.Kind.ERROR and not due else _priced(record)
    lines += _differences(record, due, sum(line.parts for line in lines))
    if record.shortfall:
        lines.append(ReceiptLine(_("Limited to what was available"), "", -record.shortfall * PARTS_PER_NANO))
    return Receipt(lines, record, list(_notes(record)))


def _priced(record: UsageRecord) -> list[ReceiptLine]:
    usage = usage_of_columns(
        input_tokens=record.input_tokens,
        cached_tokens=record.cached_tokens,
        output_tokens=record.output_tokens,
        images=record.images,
        seconds=record.seconds,
        quantities=record.quantities,
    )
    tool_rates = {name: Rate.of(price) for name, price in record.details.get("tool_rates", {}).items()}
    charged = terms(Rate.of(record.price), usage, tool_rates)
    lines = [ReceiptLine(_label(term), _how(term), term.parts) for term in charged]
    if rest := -sum(line.parts for line in lines) % PARTS_PER_NANO:
        lines.append(ReceiptLine(_("Rounded up to a whole nano-dollar"), "", rest))
    return lines


_LABELS = {
    "input": gettext_lazy("Input"),
    "cached_input": gettext_lazy("Cached input"),
    "cached_input_explicit": gettext_lazy("Input from an explicit cache"),
    "cache_write_5m": gettext_lazy("Cache write, short"),
    "cache_write_1h": gettext_lazy("Cache write, 1 hour"),
    "cache_write_12h": gettext_lazy("Cache write, 12 hours"),
    "output": gettext_lazy("Output"),
    "audio_input": gettext_lazy("Audio input"),
    "audio_output": gettext_lazy("Audio output"),
    "image_input": gettext_lazy("Image input"),
    "image_output": gettext_lazy("Image output"),
    "reasoning": gettext_lazy("Reasoning"),
    "citation": gettext_lazy("Citations"),
    "request": gettext_lazy("Request"),
    "images": gettext_lazy("Images"),
    "seconds": gettext_lazy("Seconds"),
    "searches": gettext_lazy("Web searches"),
    "characters": gettext_lazy("Characters"),
    "minutes": gettext_lazy("Minutes"),
}


def _label(term: Term) -> str:
    label = str(_LABELS[term.name])
    return _("%(tool)s: %(label)s") % {"tool": term.tool, "label": label} if term.tool else label


def _how(term: Term) -> str:
    if term.per == 1:
        return f"{term.quantity:,} × ${term.price_usd}"
    return _("%(quantity)s tokens × $%(price)s per million") % {
        "quantity": f"{term.quantity:,}",
        "price": term.price_usd,
    }


def _differences(record: UsageRecord, due: int, priced: int) -> Iterator[ReceiptLine]:
    """What the charge has beyond the prices, or below them."""
    told = _told_parts(record, due)
    if told is not None and told != priced:
        words = _("Difference to the provider's own figure, which was charged")
        yield ReceiptLine(words if priced else _("The provider's own figure"), "", told - priced)
        priced = told
    if other := due - priced:
        yield ReceiptLine(_reason(record, other), "", other)


def _told_parts(record: UsageRecord, due: int) -> int | None:
    """The provider's own figure, if it was charged instead of the prices."""
    details = record.details
    if details.get("told_nanos") is None or details.get("cut"):
        # The figure of a cut charge is what cannot be, and not what was charged.
        return None
    told: int = details["told_nanos"] * PARTS_PER_NANO
    # Records of before do not say which was charged.
    return told if details.get("is_told") or (told == due and not record.is_estimated) else None


def _reason(record: UsageRecord, other: int) -> str:
    if record.code == SWEPT:
        return _("Sent and delivered before the request was cut off")
    is_limited = record.is_estimated or record.details.get("cut")
    if other < 0 and not record.held:
        # The sweep had charged a part, and its row has the hold.
        return _("Charged by an earlier row, or beyond the hold") if is_limited else _("Charged by an earlier row")
    if record.is_estimated and other > 0:
        return _("Pictures and sound, at their most")
    if record.details.get("cut") and other > 0:
        return _("The provider's own figure, limited to what was held")
    if other < 0:
        return _("Limited to what was held") if is_limited else _("Less than the prices on record")
    return _("Without a price on record")


# -- What else a reader should know -------------------------------------------------------------------------------


def row_of(record: UsageRecord) -> str:
    """The price row in words, like `service_tier=priority, above 200,000 input tokens`; empty for the base row."""
    parts = str(record.details.get("row", "")).replace(",", "").split()
    return ", ".join(_THRESHOLD.sub(_threshold, part) for part in parts)


_THRESHOLD = re.compile(r"(above|from)=([0-9]+)")


def _threshold(found: re.Match[str]) -> str:
    tokens = f"{int(found[2]):,}"
    if found[1] == "above":
        return _("above %(tokens)s input tokens") % {"tokens": tokens}
    return _("from %(tokens)s input tokens on") % {"tokens": tokens}


_FLAGS = {
    "client_left": gettext_lazy("The program left before the answer was complete."),
    "cut": gettext_lazy("More was reported than can be; the charge stops at what was held."),
}


def _notes(record: UsageRecord) -> Iterator[str]:
    details = record.details
    if row := row_of(record):
        yield _("Prices of %(row)s.") % {"row": row}
    if said := details.get("message") or _lack_of_money(details):
        yield str(said)
    if (answered := details.get("answered_model")) and answered != record.model:
        yield _("Answered by %(model)s.") % {"model": answered}
    if limit := details.get("output_limit"):
        words = _("The answer was limited to %(tokens)s output tokens, which is what the money covered.")
        yield words % {"tokens": f"{limit:,}"}
    yield from (str(words) for name, words in _FLAGS.items() if details.get(name))
    if record.is_estimated and record.code != SWEPT and record.kind != UsageRecord.Kind.ERROR:
        yield _estimate(details)


def _estimate(details: Mapping[str, Any]) -> str:
    if details.get("client_left"):
        return _("Estimated from what was sent and delivered and how long it took: its usage was not reported in full.")
    return _("Estimated from what was sent and delivered, because its usage was not reported in full.")


def _lack_of_money(details: Mapping[str, Any]) -> str:
    if "available" not in details or "amount" not in details:
        return ""
    figures = {name: format_cost(details[name]) for name in ("amount", "available")}
    return _("It could have cost %(amount)s; %(available)s was left.") % figures
