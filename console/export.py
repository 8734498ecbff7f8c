"""Streamed CSV exports of the logs, protected against CSV injection in spreadsheet programs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, tzinfo
from threading import BoundedSemaphore
from typing import Any, Generic, TypeVar
from uuid import UUID

from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils import timezone
from django.utils.http import content_disposition_header
from django.utils.text import slugify
from django.utils.translation import gettext as _

from console.guards import SpaceRequest
from console.logs import Log
from core import origin
from core.ids import id_at
from core.money import format_exact
from tenants.models import Space

Row = TypeVar("Row")
ModelRow = TypeVar("ModelRow", bound=Model)

BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
# Every chunk of a streaming response has a fixed cost, whatever its size, so chunks are large.
PIECE_CHARS = 1 << 16
BATCH_ROWS = 2000
# A download occupies one of the PAGE_THREADS of spacemanage.asgi until the client has received it, so their number
# is bounded and the other threads stay free for pages.
MAX_CONCURRENT_EXPORTS = 3
# CSV injection: a spreadsheet program evaluates a cell that starts with one of these characters as a formula, or
# skips the character (tab, CR, LF) and evaluates the rest.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_MONTHS = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    "|nov(?:ember)?|dec(?:ember)?"
)
# Texts that a spreadsheet program converts to a number, date, time, boolean or error: 007, 1e5, $5, 3/4, 12:30 pm,
# Oct 1, 10月1日, TRUE, #N/A.
_READ_AS_VALUE = re.compile(
    rf"true|false|#(?:n/a|[a-z/0]+[!?])|(?!')(?=\D*\d)[\W\d_年月日时時分秒]*(?:e[+-]?\d+|[ap]m?|(?:{_MONTHS})[\W\d_]*)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class CsvColumn(Generic[Row]):
    """A column: its header, how its value is read from a row and formatted, and whether the last line sums it up.

    `cell_head` and `write_cell` replace `head` and `write` in the variant for spreadsheet programs.
    """

    head: str
    value: Callable[[Row], Any]
    write: Callable[[Any], str]
    is_summed: bool = False
    cell_head: str = ""
    write_cell: Callable[[Any], str] | None = None

    def for_spreadsheet(self) -> CsvColumn[Row]:
        return replace(self, head=self.cell_head or self.head, write=self.write_cell or self.write)


def text(head: str, value: Callable[[Row], object]) -> CsvColumn[Row]:
    return CsvColumn(head, value, safe_text, write_cell=text_cell)


def count(head: str, value: Callable[[Row], int | None], *, is_summed: bool = False) -> CsvColumn[Row]:
    return CsvColumn(head, value, str, is_summed)


def money(head: str, value: Callable[[Row], int | None], *, is_summed: bool = False) -> CsvColumn[Row]:
    # format_exact writes every digit and no currency sign, so that any program reads a number.
    return CsvColumn(head, value, format_exact, is_summed)


def moment(head: str, value: Callable[[Row], datetime | None]) -> CsvColumn[Row]:
    # Read now: the file is written after the request, when the active time zone has been reset.
    zone = timezone.get_current_timezone()
    return CsvColumn(
        head,
        value,
        lambda at: iso_of(at, zone),
        cell_head=cell_head_of(head, zone),
        write_cell=lambda at: date_cell(at, zone),
    )


def iso_of(at: datetime, zone: tzinfo) -> str:
    return at.astimezone(zone).isoformat(timespec="milliseconds")


def date_cell(at: datetime, zone: tzinfo) -> str:
    # Spreadsheet programs read a time with a UTC offset as text.
    return at.astimezone(zone).replace(tzinfo=None).isoformat(" ", "seconds")


def cell_head_of(head: str, zone: tzinfo) -> str:
    return f"{head} ({zone})"


def safe_text(value: object) -> str:
    """Prefix an apostrophe, which marks a cell as text, to a value that would be evaluated as a formula."""
    written = str(value)
    return f"'{written}" if written.lstrip(" ").startswith(FORMULA_STARTS) else written


def text_cell(value: object) -> str:
    """Like `safe_text`, and also for values that would be converted: a user called 007 is not the number 7."""
    written = safe_text(value)
    return f"'{written}" if _READ_AS_VALUE.fullmatch(written) else written


def batches(rows: QuerySet[ModelRow]) -> Iterator[list[ModelRow]]:
    """Yield all rows, newest first, by keyset pagination with one query per batch.

    A server-side cursor would be lost behind a connection pooler in transaction mode. Rows written after the start are
    left out, so that the export ends.
    """
    before: UUID = id_at(origin.now())
    while True:
        batch = list(rows.filter(pk__lt=before).order_by("-pk")[:BATCH_ROWS])
        yield batch
        if len(batch) < BATCH_ROWS:
            return
        before = batch[-1].pk


def sheet(
    columns: list[CsvColumn[Row]],
    groups: Iterable[list[Row]],
    *,
    has_bom: bool = False,
    has_sums: bool = True,
    note: str = "",
) -> Iterator[str]:
    """Return the chunks of the CSV file: the header line first, then the rows, the line of sums and the note.

    When a query fails midway, the exception breaks the connection before the line of sums: its absence marks an
    incomplete file.
    """
    if has_bom:
        columns = [column.for_spreadsheet() for column in columns]
    # Translated here and not in the generator: it runs after the request, when the active language has been reset.
    return _pieces(columns, groups, start=BOM if has_bom else "", total=_("Total") if has_sums else "", note=note)


def _pieces(
    columns: list[CsvColumn[Row]], groups: Iterable[list[Row]], *, start: str, total: str, note: str
) -> Iterator[str]:
    buffer = io.StringIO(newline="")
    lines = csv.writer(buffer)
    lines.writerow([safe_text(column.head) for column in columns])
    yield start + _drain(buffer)
    sums = [0] * len(columns)
    for group in groups:
        for row in group:
            lines.writerow(_cells(columns, row, sums))
            if buffer.tell() >= PIECE_CHARS:
                yield _drain(buffer)
    if total:
        lines.writerow([total, *_sum_cells(columns, sums)[1:]])
    if note:
        lines.writerow([safe_text(note)])
    yield _drain(buffer)


class ExportSlot:
    """Holds one of the MAX_CONCURRENT_EXPORTS permits of a process from `take` until the response is closed."""

    _FREE = BoundedSemaphore(MAX_CONCURRENT_EXPORTS)

    def __init__(self, pieces: Iterator[str], taken_of: BoundedSemaphore) -> None:
        self._pieces = pieces
        self._taken_of = taken_of
        self._is_taken = True

    @classmethod
    def take(cls, pieces: Iterator[str]) -> ExportSlot | None:
        return cls(pieces, cls._FREE) if cls._FREE.acquire(blocking=False) else None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        # Django calls this when the response ends, completely downloaded or not.
        if self._is_taken:
            self._is_taken = False
            self._taken_of.release()

    # Releases the permit of a response that was never sent, and therefore never closed.
    __del__ = close


def log_csv(
    request: SpaceRequest, log: Log[Any, Any], sheet_of: Callable[..., Iterator[str]], what: str
) -> HttpResponseBase:
    pieces = sheet_of(log, has_bom=wants_bom(request))
    return csv_answer(pieces, file_name(request.space, what, *log.filters.period))


def csv_answer(pieces: Iterator[str], file_name: str) -> HttpResponseBase:
    """Stream the CSV file, or answer 429 while MAX_CONCURRENT_EXPORTS downloads are running."""
    slot = ExportSlot.take(pieces)
    if slot is None:
        busy = _("Other exports are being written. Try again in a minute.")
        return HttpResponse(busy, status=429, content_type="text/plain; charset=utf-8", headers={"Retry-After": "60"})
    response = StreamingHttpResponse(slot, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = content_disposition_header(True, file_name) or "attachment"
    response["X-Content-Type-Options"] = "nosniff"
    # Disables response buffering in nginx: the client counts rows as they arrive, to show progress.
    response["X-Accel-Buffering"] = "no"
    return response


def wants_bom(request: HttpRequest) -> bool:
    # Spreadsheet programs read a file without a byte order mark in a legacy code page.
    return request.GET.get("bom") == "1"


def file_name(space: Space, what: str, start: date | None, end: date | None) -> str:
    """`halcyon-labs-usage-2026-10-01-to-2026-10-31.csv`"""
    name = slugify(space.name, allow_unicode=True) or "space"
    period = [start.isoformat() if start else "", f"to-{end.isoformat()}" if end else ""]
    return "-".join(filter(None, [name, what, *period])) + ".csv"


def _cells(columns: list[CsvColumn[Row]], row: Row, sums: list[int]) -> list[str]:
    cells = []
    for place, column in enumerate(columns):
        value = column.value(row)
        if column.is_summed:
            sums[place] += value or 0
        cells.append("" if value is None else column.write(value))
    return cells


def _sum_cells(columns: list[CsvColumn[Row]], sums: list[int]) -> list[str]:
    return [column.write(total) if column.is_summed else "" for column, total in zip(columns, sums, strict=True)]


def _drain(buffer: io.StringIO) -> str:
    taken = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return taken
