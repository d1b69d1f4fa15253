"""Exact numbers."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lob.units import INT64_MAX, decimal_text, decimals, mantissa


@pytest.mark.parametrize(
    ("text", "scale", "number"),
    [("61600.5", 2, 6160050), ("61600.50000000", 1, 616005), ("-0.001", 3, -1), ("0", 8, 0), ("-0.0", 0, 0),
     ("1E+3", 0, 1000), ("9223372036854775807", 0, INT64_MAX), ("92233720368.54775807", 8, INT64_MAX),
     (Decimal("0.10"), 1, 1)],
)  # fmt: skip
def test_a_mantissa_is_exact(text: str | Decimal, scale: int, number: int) -> None:
    assert mantissa(text, scale) == number


@pytest.mark.parametrize(
    ("text", "scale", "sentence"),
    [("0.05", 1, "more than 1 decimals"), ("92233720368.54775808", 8, "does not fit 64 bits"),
     ("1E+400", 0, "no number|fit"),
     ("nan", 0, "decimals"), ("Infinity", 0, "decimals"), ("", 0, "no number"), ("1,5", 1, "no number")],
)  # fmt: skip
def test_what_is_not_exact_is_an_error_and_never_rounded(text: str, scale: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        mantissa(text, scale)


@pytest.mark.parametrize(
    ("number", "scale", "text"),
    [(6160000, 2, "61600"), (1, 8, "0.00000001"), (-105, 1, "-10.5"), (-5, 1, "-0.5"), (0, 5, "0"), (70, 0, "70")],
)
def test_text_has_no_trailing_zeros(number: int, scale: int, text: str) -> None:
    assert decimal_text(number, scale) == text


@given(st.integers(-INT64_MAX, INT64_MAX), st.integers(0, 18))
def test_text_and_back_is_the_same_number(number: int, scale: int) -> None:
    text = decimal_text(number, scale)
    assert mantissa(text, scale) == number
    assert Decimal(text) == Decimal(number).scaleb(-scale)
    assert "E" not in text


@pytest.mark.parametrize(
    ("step", "count"), [("0.01000000", 2), ("1", 0), ("10", 0), ("1.0", 0), ("0.00000001", 8), ("1e-5", 5)]
)
def test_decimals_of_a_step(step: str, count: int) -> None:
    assert decimals(step) == count


def test_a_step_that_is_no_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="is no step"):
        decimals("Infinity")
