"""What is traded: names at each venue, tick and lot sizes, and exact text for prices and quantities."""

from __future__ import annotations

from dataclasses import dataclass

QUOTES = ("USDT", "USDC", "USD", "EUR", "BTC", "ETH", "BNB")

# symbol -> (price decimals, lot decimals, first price in ticks); the steps of the real spot venue.
KNOWN: dict[str, tuple[int, int, int]] = {
    "BTCUSDT": (2, 5, 11_800_000),
    "ETHUSDT": (2, 4, 352_000),
    "SOLUSDT": (2, 3, 18_450),
    "BNBUSDT": (2, 3, 84_000),
    "XRPUSDT": (4, 1, 28_500),
    "DOGEUSDT": (5, 0, 23_750),
    "ETHBTC": (5, 4, 3_000),
}


class UnknownQuote(ValueError):
    """A symbol whose quote asset is not one of QUOTES, so base and quote cannot be told apart."""

    def __init__(self, symbol: str) -> None:
        super().__init__(f"{symbol}: no known quote asset at the end; known are {' '.join(QUOTES)}")
        self.symbol = symbol


@dataclass(frozen=True)
class Instrument:
    """One market. A tick is 10**-price_decimals, a lot 10**-lot_decimals; prices and quantities are whole numbers."""

    symbol: str
    base: str
    quote: str
    price_decimals: int
    lot_decimals: int
    first_price_ticks: int

    @classmethod
    def of(cls, symbol: str) -> Instrument:
        """The instrument of a Binance symbol: "BTCUSDT". Raises UnknownQuote."""
        quote = next((q for q in QUOTES if symbol.endswith(q) and len(symbol) > len(q)), None)
        if quote is None:
            raise UnknownQuote(symbol)
        price_decimals, lot_decimals, first_price = KNOWN.get(symbol, (4, 2, 1_000_000))
        return cls(symbol, symbol[: -len(quote)], quote, price_decimals, lot_decimals, first_price)

    @property
    def stream(self) -> str:
        """Binance stream name: "btcusdt"."""
        return self.symbol.lower()

    @property
    def dollar_quote(self) -> str:
        """Quote asset as the dollar venues write it: USDT and USDC books are offered there as USD."""
        return "USD" if self.quote in ("USDT", "USDC") else self.quote

    @property
    def pair(self) -> str:
        """Kraken v2 symbol: "BTC/USD"."""
        return f"{self.base}/{self.dollar_quote}"

    @property
    def product(self) -> str:
        """Coinbase product id: "BTC-USD"."""
        return f"{self.base}-{self.dollar_quote}"

    @property
    def tick_size(self) -> str:
        return decimal_text(1, self.price_decimals)

    @property
    def lot_size(self) -> str:
        return decimal_text(1, self.lot_decimals)


def decimal_text(units: int, decimals: int) -> str:
    """`units` of 10**-decimals as a decimal string with all its decimals: (971505, 1) -> "97150.5"."""
    if not decimals:
        return str(units)
    text = str(units).rjust(decimals + 1, "0")
    return f"{text[:-decimals]}.{text[-decimals:]}"


def stripped_text(units: int, decimals: int) -> str:
    """As decimal_text without trailing zeros: (971500, 1) -> "97150"."""
    text = decimal_text(units, decimals)
    return text.rstrip("0").rstrip(".") if decimals else text


def units_of(text: str, decimals: int) -> int:
    """Whole units of 10**-decimals in a decimal string: ("97150.5", 1) -> 971505.

    Never rounds: raises ValueError for text that is no plain decimal or has finer digits.
    """
    whole, _, part = text.partition(".")
    if not whole.isdigit() or (part and not part.isdigit()):
        raise ValueError(f"{text!r} is no plain decimal")
    if part[decimals:].strip("0"):
        raise ValueError(f"{text!r} has more than {decimals} decimals")
    return int(whole) * int(10**decimals) + int(part[:decimals].ljust(decimals, "0") or 0)
