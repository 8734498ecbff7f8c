"""CSV export of the usage log."""

from __future__ import annotations

from collections.abc import Iterator

from django.utils.translation import gettext as _

from console.export import CsvColumn, batches, count, moment, money, sheet, text
from console.usage.log import UsageLog
from console.usage.receipt import row_of
from usage.models import UsageRecord


def usage_sheet(log: UsageLog, *, has_bom: bool = False) -> Iterator[str]:
    columns = _usage_columns(is_whole_space=log.is_whole_space)
    note = " ".join(filter(None, [log.cut_note, log.keys_note]))
    return sheet(columns, _checked_batches(log), has_bom=has_bom, note=note)


def _checked_batches(log: UsageLog) -> Iterator[list[UsageRecord]]:
    """Raise PrunedError after the last batch, before the line of sums, if rows were pruned during the export."""
    # No column needs the price snapshot, and it takes longer to read than all other fields together.
    yield from batches(log.records.defer("price", "upstream_cost"))
    log.check_complete()


def _usage_columns(*, is_whole_space: bool) -> list[CsvColumn[UsageRecord]]:
    kinds = {kind.value: str(kind.label) for kind in UsageRecord.Kind}
    estimated = {True: _("estimated"), False: ""}
    return [
        moment(_("Time"), lambda record: record.at),
        *([text(_("User"), lambda record: record.username)] if is_whole_space else []),
        text(_("Token"), lambda record: record.key_name),
        text(_("Model"), lambda record: record.model),
        text(_("Type"), lambda record: kinds[record.kind]),
        count(_("Duration (ms)"), lambda record: record.duration_ms),
        count(_("First token (ms)"), lambda record: record.first_token_ms),
        count(_("Input tokens"), lambda record: record.input_tokens, is_summed=True),
        count(_("Cached input tokens"), lambda record: record.cached_tokens, is_summed=True),
        count(_("Output tokens"), lambda record: record.output_tokens, is_summed=True),
        count(_("Images"), lambda record: record.images, is_summed=True),
        count(_("Seconds"), lambda record: record.seconds, is_summed=True),
        *(_quantity(label, *names) for label, names in _quantities()),
        money(_("Held (USD)"), lambda record: record.held),
        money(_("Cost (USD)"), lambda record: record.cost, is_summed=True),
        money(_("Available after (USD)"), lambda record: record.available_after),
        count(_("Status"), lambda record: record.status),
        text(_("Code"), lambda record: record.code),
        text(_("Message"), lambda record: record.details.get("message", "")),
        text(_("Prices of"), row_of),
        text(_("Estimated"), lambda record: estimated[record.is_estimated]),
        text(_("Request ID"), lambda record: record.request_id),
        text(_("Token ID"), lambda record: record.key_id),
        text(_("The program’s own ID"), lambda record: record.details.get("client_request_id", "")),
    ]


def _quantities() -> list[tuple[str, tuple[str, ...]]]:
    """Columns of counts that few requests have, each with the counts that it adds up."""
    return [
        (_("Cache write tokens"), ("cache_write_5m", "cache_write_1h", "cache_write_12h")),
        (_("Reasoning tokens"), ("reasoning",)),
        (_("Audio tokens"), ("audio_input", "audio_output")),
        (_("Image tokens"), ("image_input", "image_output")),
        (_("Web searches"), ("searches",)),
        (_("Characters"), ("characters",)),
        (_("Minutes"), ("minutes",)),
    ]


def _quantity(label: str, *names: str) -> CsvColumn[UsageRecord]:
    return count(label, lambda record: sum(record.quantities.get(name, 0) for name in names), is_summed=True)
