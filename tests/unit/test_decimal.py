"""decimal.hpp: the text of a number -> mantissa and decimals, exactly."""

# ruff: noqa: E501  messages stand on one line, as on the wire
from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lob._native  # noqa: F401
from differential.oracle import EXACT, NUMBER, number
from lob_parse._native import NUMBER_MAX_CHARS, decimal, rescale

INT64_MAX = 2**63 - 1


@pytest.mark.parametrize(
    ("text", "mantissa", "decimals"),
    [
        ("61737.63000000", 6173763000000, 8),
        ("0.00000000", 0, 8),
        ("0", 0, 0),
        ("-0", 0, 0),
        ("63381.0", 633810, 1),
        ("-12.5", -125, 1),
        ("4.9e-7", 49, 8),
        ("9.121E-7", 9121, 10),
        ("2.2e3", 2200, 0),
        ("1e18", 10**18, 0),
        ("1.5e1", 15, 0),
        ("10e-1", 10, 1),
        ("47.914412330000005", 47914412330000005, 15),
        ("9223372036854775807", INT64_MAX, 0),
        ("123456789.123456789", 123456789123456789, 9),
        ("12345678.12345678", 1234567812345678, 8),
    ],
)
def test_numbers_of_the_venues_are_read_as_shown(text: str, mantissa: int, decimals: int) -> None:
    assert decimal(text.encode()) == (mantissa, decimals)


@pytest.mark.parametrize("text", ["", "-", "+1", "01", "00.5", "1.", ".5", "1e", "1e+", "0x1", "1 ", " 1", "1,0", "NaN", "Infinity", "1.2.3", "--1", "1_0", "１"])  # fmt: skip
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decimal(text.encode())


def test_zeros_are_given_up_only_where_they_do_not_fit() -> None:
    assert decimal(b"1." + b"0" * 40) == (10**18, 18)
    assert decimal(b"0." + b"0" * 40) == (0, 40)
    assert decimal(b"92233720368547758.0000000000") == (9223372036854775800, 2)


@pytest.mark.parametrize("text", ["9223372036854775808", "1e19", "0.12345678901234567890123", "123456789012345678901"])
def test_what_no_int64_holds_is_told_apart(text: str) -> None:
    with pytest.raises(IndexError):
        decimal(text.encode())


def test_a_number_may_have_so_many_characters_and_no_more() -> None:
    assert decimal(b"0." + b"0" * (NUMBER_MAX_CHARS - 2))[0] == 0
    with pytest.raises(ValueError):
        decimal(b"0." + b"0" * (NUMBER_MAX_CHARS - 1))


plain = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)


@given(plain)
def test_every_number_equals_decimal_or_does_not_fit(text: str) -> None:
    try:
        expected = number(text)
    except ValueError:
        with pytest.raises(IndexError):
            decimal(text.encode())
        return
    mantissa, decimals = decimal(text.encode())
    assert EXACT.scaleb(Decimal(mantissa), -decimals) == expected.value == Decimal(text)


@given(st.text("0123456789.eE+-", max_size=24))
def test_any_text_is_a_number_for_us_exactly_if_the_grammar_says_so(text: str) -> None:
    try:
        decimal(text.encode())
        fine = True
    except IndexError:
        fine = True
    except ValueError:
        fine = False
    assert fine is (NUMBER.fullmatch(text) is not None)


@given(st.integers(0, INT64_MAX), st.integers(0, 40), st.integers(0, 18))
def test_rescaling_is_exact_or_says_why_not(mantissa: int, decimals: int, scale: int) -> None:
    exact = EXACT.scaleb(Decimal(mantissa), scale - decimals)
    result = rescale(mantissa, decimals, scale)
    if exact != exact.to_integral_value():
        assert result == "finer"
    elif exact > INT64_MAX:
        assert result == "range"
    else:
        assert result == exact


@given(st.integers(0, 10**10), st.integers(0, 8))
def test_trailing_zeros_are_no_finer_digits(units: int, zeros: int) -> None:
    assert rescale(units * 10**zeros, zeros, 0) == units
