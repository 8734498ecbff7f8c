"""Rows of a price list as people write them: `service_tier=priority input=5.00 output=20.00`, `above=200000 input=5`.

Commands and Django admin read and show rows this way. All functions raise PriceError, whose text names what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from core.money import AmountError, format_balance, format_exact, parse_usd
from relay.prices import MAX_PRICE_NANOS, MAX_TOKENS, MILLION, PRICES, PriceRow, format_factor

MAX_ROWS = 100
# Facts that a request or its answer can have, so that a row may depend on them.
CONDITIONS = (
    *("service_tier", "speed", "inference_geo", "size", "quality", "resolution", "generate_audio"),
    *("tool", "moderation"),
)
MAX_FACTOR_MILLIONTHS = 1000 * MILLION
# Names of a price of service that mean the same to providers.
_SAME = {("service_tier", "fast"): "priority"}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}", re.ASCII)
_WHOLE = re.compile(r"[0-9]{1,10}", re.ASCII)
_FACTOR = re.compile(r"([0-9]{1,4})(?:\.([0-9]{1,6}))?", re.ASCII)
_AMOUNT_ERRORS = {
    "not_a_number": gettext_lazy("not a number"),
    "negative": gettext_lazy("negative"),
    "too_fine": gettext_lazy("too fine, more than nine decimals"),
    "too_large": gettext_lazy("too large"),
}
_THRESHOLDS = {"above": False, "from": True}
_KNOWN = (*PRICES, *CONDITIONS, *_THRESHOLDS, "factor")


class PriceError(ValueError):
    """A price, factor or row that cannot be. The text says why, and names the part."""


def parse_price(text: str) -> int:
    """Nano-dollars of an amount in USD, at most MAX_PRICE_NANOS."""
    try:
        nanos = parse_usd(text)
    except AmountError as error:
        raise PriceError(str(_AMOUNT_ERRORS[error.code])) from None
    if nanos > MAX_PRICE_NANOS:
        raise PriceError(_("at most %(most)s") % {"most": format_balance(MAX_PRICE_NANOS)})
    return nanos


def parse_factor(text: str) -> int:
    """Millionths of a factor like `1.2`."""
    match = _FACTOR.fullmatch(text.strip())
    if not match:
        raise PriceError(_("give a factor like 1.2, with at most six decimals"))
    millionths = int(match[1]) * MILLION + int((match[2] or "").ljust(6, "0"))
    if millionths > MAX_FACTOR_MILLIONTHS:
        raise PriceError(_("at most %(most)s") % {"most": format_factor(MAX_FACTOR_MILLIONTHS)})
    return millionths


def parse_row(text: str) -> PriceRow:
    """A row of `name=value` pairs: prices, `above` or `from`, `factor`, and CONDITIONS."""
    given: dict[str, str] = {}
    for pair in text.split():
        name, sign, value = pair.partition("=")
        name = name.replace("-", "_")
        if not sign or not value:
            raise _wrong(pair, _("write name=value"))
        if name in given:
            raise _wrong(name, _("given twice"))
        if name not in _KNOWN:
            raise _unknown(name)
        given[name] = value
    prices = {name: _named(name, parse_price, value) for name, value in given.items() if name in PRICES}
    thresholds = [name for name in _THRESHOLDS if name in given]
    if len(thresholds) > 1:
        raise PriceError(_("give above or from, not both"))
    row = PriceRow(
        prices=prices,
        when=_conditions(
            {name: value for name, value in given.items() if name not in {*prices, *_THRESHOLDS, "factor"}}
        ),
        above=_named(thresholds[0], _parse_tokens, given[thresholds[0]]) if thresholds else None,
        is_inclusive=thresholds == ["from"],
        factor_millionths=_named("factor", parse_factor, given["factor"]) if "factor" in given else MILLION,
    )
    return _checked(row)


def _unknown(name: str) -> PriceError:
    said = _("not the name of a price or of a condition that the relay knows")
    alike = get_close_matches(name, _KNOWN, n=1)
    meant = _(" (did you mean %(name)s?)") % {"name": alike[0]} if alike else ""
    return _wrong(name, f"{said}{meant}. " + _("Conditions: %(names)s") % {"names": ", ".join(CONDITIONS)})


def parse_rows(lines: Iterable[str]) -> tuple[PriceRow, ...]:
    rows = tuple(parse_row(line) for line in lines if line.strip())
    check_rows(rows)
    return rows


def format_row(row: PriceRow) -> str:
    """The text that `parse_row` reads."""
    factor = [f"factor={format_factor(row.factor_millionths)}"] if row.factor_millionths != MILLION else []
    return " ".join([row.label, *factor, *(f"{name}={format_exact(price)}" for name, price in row.prices.items())])


def rows_of_json(stored: Any) -> tuple[PriceRow, ...]:
    """The rows of a database's JSON, which must be exactly what PriceRow.to_json makes."""
    if not isinstance(stored, list):
        raise PriceError(_("not rows of prices"))
    try:
        rows = tuple(PriceRow.from_json(each) for each in stored)
    except (AttributeError, TypeError, ValueError):
        raise PriceError(_("not rows of prices")) from None
    if [row.to_json() for row in rows] != stored:
        raise PriceError(_("not rows of prices"))
    for row in rows:
        _checked(row)
    check_rows(rows)
    return rows


def check_rows(rows: Iterable[PriceRow]) -> None:
    labels = [row.label for row in rows]
    if len(labels) > MAX_ROWS:
        raise PriceError(_("at most %(most)s rows") % {"most": MAX_ROWS})
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise _wrong(twice, _("given twice"))


def _checked(row: PriceRow) -> PriceRow:
    if not row.prices and row.factor_millionths == MILLION:
        raise PriceError(": ".join(filter(None, [row.label, _("give it a price or a factor")])))
    if not row.label:
        raise PriceError(_("give a condition such as service_tier=priority, or above=200000"))
    for name, price in row.prices.items():
        if not 0 <= price <= MAX_PRICE_NANOS:
            raise _wrong(name, _("at most %(most)s") % {"most": format_balance(MAX_PRICE_NANOS)})
    if row.above is not None and not 0 <= row.above <= MAX_TOKENS:
        raise _wrong("above", _("at most %(most)s tokens") % {"most": f"{MAX_TOKENS:,}"})
    if not 0 <= row.factor_millionths <= MAX_FACTOR_MILLIONTHS:
        raise _wrong("factor", _("at most %(most)s") % {"most": format_factor(MAX_FACTOR_MILLIONTHS)})
    _conditions(dict(row.when))
    return row


def _conditions(given: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    for name, value in given.items():
        if not _NAME.fullmatch(name) or name in {*PRICES, *_THRESHOLDS, "factor"}:
            raise _wrong(name, _("not the name of a price or condition"))
        if not _VALUE.fullmatch(value):
            raise _wrong(name, _("%(value)s is not a value") % {"value": value})
    return tuple(sorted((name, _SAME.get((name, value), value)) for name, value in given.items()))


def _parse_tokens(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise PriceError(_("give a number of input tokens"))
    return int(text)


def _named(name: str, parse: Any, text: str) -> int:
    try:
        return int(parse(text))
    except PriceError as error:
        raise _wrong(name, str(error)) from None


def _wrong(name: str, why: str) -> PriceError:
    return PriceError(f"{name}: {why}")
