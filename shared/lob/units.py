"""Exact numbers: decimal text <-> scaled integers. Never a float, never rounded. Pure."""

from __future__ import annotations

from decimal import Context, Decimal, DecimalException

INT64_MAX = 2**63 - 1

# Wide enough that no number a venue can send is rounded on the way.
_EXACT = Context(prec=200)


def decimal_text(mantissa: int, scale: int) -> str:
    """mantissa / 10^scale as plain decimal text without trailing zeros: (6160000, 2) -> "61600"."""
    if scale == 0:
        return str(mantissa)
    sign, digits = ("-", -mantissa) if mantissa < 0 else ("", mantissa)
    text = str(digits).rjust(scale + 1, "0")
    whole, fraction = text[:-scale], text[-scale:].rstrip("0")
    return f"{sign}{whole}.{fraction}" if fraction else sign + whole


def mantissa(text: str | Decimal, scale: int) -> int:
    """The integer m with text == m / 10^scale: ("61600.5", 2) -> 6160050.

    Raises ValueError if there is none or it does not fit int64: a rounded price is another level of the book.
    """
    try:
        value = Decimal(text).scaleb(scale, _EXACT)
    except DecimalException:
        raise ValueError(f"'{text}' is no number") from None
    if not value.is_finite() or value != value.to_integral_value():
        raise ValueError(f"{text} has more than {scale} decimals")
    result = int(value)
    if abs(result) > INT64_MAX:
        raise ValueError(f"{text} at {scale} decimals does not fit 64 bits")
    return result


def decimals(step: str) -> int:
    """Decimals that a step needs: "0.01000000" -> 2, "1" -> 0, "10" -> 0."""
    exponent = Decimal(step).normalize().as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"{step} is no step")
    return max(0, -exponent)
