"""Parse and format amounts of money.

Money is an int of nano-dollars everywhere: 1 USD = 1,000,000,000 nanos.
"""

from __future__ import annotations

import re

NANOS_PER_USD = 1_000_000_000
NANOS_PER_CENT = NANOS_PER_USD // 100
# Prices are per million tokens, so the cost of one token can be a fraction of a nano-dollar.
PARTS_PER_NANO = 1_000_000

# The maximum amount of a wallet. All sums over one space then fit into a BIGINT (9.2e18).
MAX_AMOUNT_NANOS = 1_000_000_000 * NANOS_PER_USD

MINUS = "\N{MINUS SIGN}"

_AMOUNT = re.compile(r"\$?(?P<whole>[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)(?:\.(?P<part>[0-9]+))?", re.ASCII)


class AmountError(ValueError):
    """The text is not an amount. `code` is one of: not_a_number, negative, too_fine, too_large."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def parse_usd(text: str) -> int:
    """Return the nano-dollars of a text such as `12.50`, `$1,000` or `0.000000001`.

    Raises AmountError for anything else: signs, exponents, digits of other scripts, more than nine decimals, more
    than MAX_AMOUNT_NANOS.
    """
    text = text.strip()
    if text.startswith(("-", MINUS)) and _AMOUNT.fullmatch(text[1:]):
        raise AmountError("negative")
    match = _AMOUNT.fullmatch(text)
    if not match:
        raise AmountError("not_a_number")
    part = (match["part"] or "").rstrip("0")
    if len(part) > 9:
        raise AmountError("too_fine")
    whole = match["whole"].replace(",", "").lstrip("0") or "0"
    # Checked before int(), which raises its own ValueError for thousands of digits.
    if len(whole) > len(str(MAX_AMOUNT_NANOS // NANOS_PER_USD)):
        raise AmountError("too_large")
    nanos = int(whole) * NANOS_PER_USD + int(part.ljust(9, "0"))
    if nanos > MAX_AMOUNT_NANOS:
        raise AmountError("too_large")
    return nanos


def format_exact(nanos: int) -> str:
    """Format with every digit, at least two decimals and no currency sign (`12.50`, `0.000425`), for form fields."""
    whole, decimals = _split_amount(nanos, 9)
    return f"{'-' if nanos < 0 else ''}{whole}.{decimals}"


def format_balance(nanos: int) -> str:
    """Format a balance (`$2.00`), rounded down to cents, so that it never shows money that is not there."""
    cents = abs(nanos) // NANOS_PER_CENT if nanos >= 0 else -(nanos // NANOS_PER_CENT)
    return _format_cents(cents, negative=nanos < 0)


def format_cost(nanos: int) -> str:
    """Format a cost (`$1.24`), rounded up to cents; below one cent with every digit (`$0.000425`)."""
    if 0 < nanos < NANOS_PER_CENT:
        return f"${format_exact(nanos)}"
    return _format_cents(-(-nanos // NANOS_PER_CENT), negative=False)


def format_parts(parts: int) -> str:
    whole, decimals = _split_amount(parts, 15)
    return f"{MINUS if parts < 0 else ''}${whole:,}.{decimals}"


def format_sum(*nanos: int) -> list[str]:
    """Format the amounts of `first = second + third + …` so that the displayed figures add up.

    In cents if the rounded figures add up, else all with as many decimals as the finest needs.
    """
    cents = [value // NANOS_PER_CENT for value in nanos]
    if cents and cents[0] == sum(cents[1:]):
        return [format_balance(value) for value in nanos]
    return format_alike(*nanos)


def format_alike(*nanos: int) -> list[str]:
    """Format with as many decimals as the finest amount needs, so that amounts that add up also do as displayed."""
    decimals = max((len(format_exact(value).partition(".")[2]) for value in nanos), default=2)
    return [f"{MINUS if value < 0 else ''}${_fixed(abs(value), decimals)}" for value in nanos]


def _split_amount(amount: int, digits: int) -> tuple[int, str]:
    # `amount` is in units of 1/10**digits dollars.
    whole, part = divmod(abs(amount), 10**digits)
    return whole, f"{part:0{digits}d}".rstrip("0").ljust(2, "0")


def _fixed(nanos: int, decimals: int) -> str:
    whole, part = divmod(nanos, NANOS_PER_USD)
    fraction = f"{part:09d}"[:decimals]
    return f"{whole:,}.{fraction}"


def _format_cents(cents: int, *, negative: bool) -> str:
    whole, rest = divmod(abs(cents), 100)
    return f"{MINUS if negative else ''}${whole:,}.{rest:02d}"
