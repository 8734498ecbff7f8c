from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.money import (
    MAX_AMOUNT_NANOS,
    MINUS,
    NANOS_PER_CENT,
    AmountError,
    format_balance,
    format_cost,
    format_exact,
    format_parts,
    format_sum,
    parse_usd,
)

AMOUNTS = st.integers(0, MAX_AMOUNT_NANOS)
LIMITS = range(MAX_AMOUNT_NANOS + 1)
PARTS = st.lists(AMOUNTS | st.integers(0, 3 * NANOS_PER_CENT), min_size=1, max_size=6)


@given(AMOUNTS)
def test_an_exact_figure_reads_back_as_itself(nanos: int) -> None:
    assert parse_usd(format_exact(nanos)) == nanos
    assert parse_usd(f"${format_exact(nanos)}") == nanos


@given(st.text())
def test_any_text_is_an_amount_within_limits_or_refused_with_a_known_code(text: str) -> None:
    assert _read(text) in {"not_a_number", "negative", "too_fine", "too_large"} or _read(text) in LIMITS


@given(st.from_regex(r"\$?[0-9,]{0,14}\.?[0-9]{0,12}", fullmatch=True))
def test_what_looks_like_an_amount_is_read_digit_by_digit_or_refused(text: str) -> None:
    try:
        nanos = parse_usd(text)
    except AmountError:
        return
    whole, _, part = text.lstrip("$").replace(",", "").partition(".")
    assert nanos == int(whole + part.ljust(9, "0")[:9])


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("0", 0),
        ("12.50", 12_500_000_000),
        ("$1,000", 1_000_000_000_000),
        ("1,234,567.89", 1_234_567_890_000_000),
        ("0.000000001", 1),
        ("0.1000000000000", 100_000_000),
        ("007", 7_000_000_000),
        (" 5 ", 5_000_000_000),
        ("\t5\n", 5_000_000_000),
        ("1000000000", MAX_AMOUNT_NANOS),
    ],
)
def test_an_amount_as_people_write_it_is_read(text: str, nanos: int) -> None:
    assert parse_usd(text) == nanos


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "not_a_number"),
        (" ", "not_a_number"),
        ("1e30", "not_a_number"),
        ("1e-3", "not_a_number"),
        ("0x10", "not_a_number"),
        ("NaN", "not_a_number"),
        ("inf", "not_a_number"),
        ("٣", "not_a_number"),
        ("３", "not_a_number"),
        ("%", "not_a_number"),
        ("5%", "not_a_number"),
        ("💰", "not_a_number"),
        ("\u200f5", "not_a_number"),
        ("5\u202e", "not_a_number"),
        ("5\x00", "not_a_number"),
        ("\x005", "not_a_number"),
        ("1,00", "not_a_number"),
        ("1,0000", "not_a_number"),
        (",100", "not_a_number"),
        ("1.000,00", "not_a_number"),
        ("1_000", "not_a_number"),
        ("1 000", "not_a_number"),
        ("5.", "not_a_number"),
        (".5", "not_a_number"),
        ("1.2.3", "not_a_number"),
        ("+5", "not_a_number"),
        ("--5", "not_a_number"),
        ("€5", "not_a_number"),
        ("$", "not_a_number"),
        ("-0", "negative"),
        ("-5.00", "negative"),
        ("-$5", "negative"),
        (f"{MINUS}5", "negative"),
        ("0.0000000001", "too_fine"),
        ("1.0000000005", "too_fine"),
        ("1000000000.000000001", "too_large"),
        ("1000000001", "too_large"),
        ("99999999999999999999", "too_large"),
    ],
)
def test_text_that_is_not_an_amount_is_refused_with_its_reason(text: str, code: str) -> None:
    with pytest.raises(AmountError) as refusal:
        parse_usd(text)

    assert refusal.value.code == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("9" * 10_000_000, "too_large"),
        ("0." + "1" * 10_000_000, "too_fine"),
        ("9" * 10_000_000 + "x", "not_a_number"),
        ("1," * 5_000_000, "not_a_number"),
    ],
    ids=["whole", "decimals", "almost", "commas"],
)
def test_ten_megabytes_of_digits_are_refused(text: str, code: str) -> None:
    with pytest.raises(AmountError) as refusal:
        parse_usd(text)

    assert refusal.value.code == code


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "0.00"),
        (1, "0.000000001"),
        (425_000, "0.000425"),
        (12_500_000_000, "12.50"),
        (-20_000_000_000, "-20.00"),
        (MAX_AMOUNT_NANOS, "1000000000.00"),
    ],
)
def test_an_edited_field_holds_every_digit(nanos: int, text: str) -> None:
    assert format_exact(nanos) == text


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "$0.00"),
        (9_999_999, "$0.00"),
        (2_000_000_000, "$2.00"),
        (1_999_999_999, "$1.99"),
        (1_234_567_890_000_000, "$1,234,567.89"),
        (-1, f"{MINUS}$0.01"),
        (-2_000_000_000, f"{MINUS}$2.00"),
    ],
)
def test_a_balance_is_rounded_down_to_cents(nanos: int, text: str) -> None:
    assert format_balance(nanos) == text


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "$0.00"),
        (1, "$0.000000001"),
        (425_000, "$0.000425"),
        (9_999_999, "$0.009999999"),
        (10_000_000, "$0.01"),
        (10_000_001, "$0.02"),
        (1_230_000_001, "$1.24"),
        (999_999_999_999, "$1,000.00"),
    ],
)
def test_a_cost_is_rounded_up_to_cents_and_exact_below_one(nanos: int, text: str) -> None:
    assert format_cost(nanos) == text


@given(AMOUNTS)
def test_a_balance_is_never_shown_too_high_and_a_cost_never_too_low(nanos: int) -> None:
    shown = parse_usd(format_balance(nanos))

    assert shown <= nanos < shown + NANOS_PER_CENT
    assert nanos <= -(-nanos // NANOS_PER_CENT) * NANOS_PER_CENT == _nanos(format_cost(nanos)) or nanos < NANOS_PER_CENT


@given(PARTS)
def test_the_figures_of_a_sum_add_up_as_they_are_shown(parts: list[int]) -> None:
    total, *shown = [_nanos(text) for text in format_sum(sum(parts), *parts)]

    assert total == sum(shown)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (0, "$0.00"),
        (3, "$0.000000000000003"),
        (112_500, "$0.0000000001125"),
        (17_500_000_000, "$0.0000175"),
        (1_000_001, "$0.000000001000001"),
        (-2 * 10**15, f"{MINUS}$2.00"),
        (1_234_500_000_000_000_000, "$1,234.50"),
    ],
)
def test_fractions_of_a_nano_dollar_are_shown_to_the_last_digit(parts: int, text: str) -> None:
    assert format_parts(parts) == text


@given(AMOUNTS, PARTS)
def test_the_figures_of_a_difference_add_up_as_they_are_shown(total: int, parts: list[int]) -> None:
    """The equation of Credits Management: total - allocated - used = available."""
    left, first, *others = [_nanos(text) for text in format_sum(total - sum(parts), total, *(-part for part in parts))]

    assert left == first + sum(others)


@pytest.mark.parametrize(
    ("nanos", "texts"),
    [
        ([5_000_000_000, 3_000_000_000, 2_000_000_000], ["$5.00", "$3.00", "$2.00"]),
        ([10_000_000, 5_000_000, 5_000_000], ["$0.010", "$0.005", "$0.005"]),
        ([2_000_000_000, 5_000_000_000, -3_000_000_000], ["$2.00", "$5.00", f"{MINUS}$3.00"]),
        ([1_999_999_999, 2_000_000_000, -1], ["$1.99", "$2.00", f"{MINUS}$0.01"]),
        (
            [1_990_000_000, 2_000_000_000, -5_000_000, -5_000_000],
            ["$1.990", "$2.000", f"{MINUS}$0.005", f"{MINUS}$0.005"],
        ),
        ([1_000_000_000_000], ["$1,000.00"]),
        ([], []),
    ],
)
def test_a_sum_is_shown_in_cents_if_they_add_up_and_otherwise_to_the_finest_digit(
    nanos: list[int], texts: list[str]
) -> None:
    assert format_sum(*nanos) == texts


def _read(text: str) -> int | str:
    """Return the amount, or the code of the AmountError."""
    try:
        return parse_usd(text)
    except AmountError as error:
        return error.code


def _nanos(text: str) -> int:
    """Parse a displayed figure, which may exceed the limits of parse_usd."""
    whole, part = text.replace(MINUS, "").replace("$", "").replace(",", "").split(".")
    nanos = int(whole + part.ljust(9, "0"))
    return -nanos if MINUS in text else nanos
