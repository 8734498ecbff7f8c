"""Rows of a price list as people write them: `service_tier=priority input=5.00 output=20.00`, `above=200000 input=5`.

Commands and Django admin read and show rows this way. All functions raise PriceError, whose text names what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from core.money import AmountError, format_balance, format_exact, parse_usd
from relay.prices import MAX_PRICE_NANOS, MAX_TOKENS, MILLION, PRICES, PriceRow, format_factor

MAX_ROWS = 100
MAX_FACTOR_MILLIONTHS = 1000 * MILLION
# Names of a price of service that mean the same to providers.
_SAME = {("service_tier", "fast"): "priority"}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}", re.ASCII)
_WHOLE = re.compile(r"[0-9]{1,10}", re.ASCII)
_FACTOR = re.compile(r"([0-9]{1,4})(?:\.([0-9]{1,6}))?", re.ASCII)
_THRESHOLDS = {"above": False, "from": True}


class PriceError(ValueError):
    """A price, factor or row that cannot be. The text says why, and names the part."""


def parse_price(text: str) -> int:
    """Nano-dollars of an amount in USD, at most MAX_PRICE_NANOS."""
    try:
        nanos = parse_usd(text)
    except AmountError as error:
        raise PriceError(error.code.replace("_", " ")) from None
    if nanos > MAX_PRICE_NANOS:
        raise PriceError(f"at most {format_balance(MAX_PRICE_NANOS)}")
    return nanos


def parse_factor(text: str) -> int:
    """Millionths of a factor like `1.2`."""
    match = _FACTOR.fullmatch(text.strip())
    if not match:
        raise PriceError("give a factor like 1.2, with at most six decimals")
    millionths = int(match[1]) * MILLION + int((match[2] or "").ljust(6, "0"))
    if millionths > MAX_FACTOR_MILLIONTHS:
        raise PriceError(f"at most {format_factor(MAX_FACTOR_MILLIONTHS)}")
    return millionths


def parse_row(text: str) -> PriceRow:
    """A row of `name=value` pairs: prices, `above` or `from`, `factor`, and conditions, which are all other names."""
    given: dict[str, str] = {}
    for pair in text.split():
        name, sign, value = pair.partition("=")
        name = name.replace("-", "_")
        if not sign or not value:
            raise PriceError(f"{pair}: write name=value")
        if name in given:
            raise PriceError(f"{name}: given twice")
        given[name] = value
    prices = {name: _named(name, parse_price, value) for name, value in given.items() if name in PRICES}
    thresholds = [name for name in _THRESHOLDS if name in given]
    if len(thresholds) > 1:
        raise PriceError("give above or from, not both")
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
        raise PriceError("not a list")
    try:
        rows = tuple(PriceRow.from_json(each) for each in stored)
    except (AttributeError, TypeError, ValueError):
        raise PriceError("not rows of prices") from None
    if [row.to_json() for row in rows] != stored:
        raise PriceError("not rows of prices")
    for row in rows:
        _checked(row)
    check_rows(rows)
    return rows


def check_rows(rows: Iterable[PriceRow]) -> None:
    labels = [row.label for row in rows]
    if len(labels) > MAX_ROWS:
        raise PriceError(f"at most {MAX_ROWS} rows")
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise PriceError(f"{twice}: given twice")


def _checked(row: PriceRow) -> PriceRow:
    if not row.prices and row.factor_millionths == MILLION:
        raise PriceError(f"{row.label or 'a row'}: give it a price or a factor")
    if not row.label:
        raise PriceError("give a condition such as service_tier=priority, or above=200000")
    for name, price in row.prices.items():
        if not 0 <= price <= MAX_PRICE_NANOS:
            raise PriceError(f"{name}: between 0 and {format_balance(MAX_PRICE_NANOS)}")
    if row.above is not None and not 0 <= row.above <= MAX_TOKENS:
        raise PriceError(f"above: at most {MAX_TOKENS:,} tokens")
    if not 0 <= row.factor_millionths <= MAX_FACTOR_MILLIONTHS:
        raise PriceError(f"factor: at most {format_factor(MAX_FACTOR_MILLIONTHS)}")
    _conditions(dict(row.when))
    return row


def _conditions(given: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    for name, value in given.items():
        if not _NAME.fullmatch(name) or name in {*PRICES, *_THRESHOLDS, "factor"}:
            raise PriceError(f"{name}: not the name of a price or condition")
        if not _VALUE.fullmatch(value):
            raise PriceError(f"{name}: {value} is not a value")
    return tuple(sorted((name, _SAME.get((name, value), value)) for name, value in given.items()))


def _parse_tokens(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise PriceError("give a number of input tokens")
    return int(text)


def _named(name: str, parse: Any, text: str) -> int:
    try:
        return int(parse(text))
    except PriceError as error:
        raise PriceError(f"{name}: {error}") from None
