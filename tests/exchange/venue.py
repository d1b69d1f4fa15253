"""All markets of the simulated venue, found by any of their names."""

from __future__ import annotations

from collections.abc import Iterable

from exchange.engine import Event, Market
from exchange.flow import OrderFlow
from exchange.instrument import Instrument
from exchange.tops import Tops


class SameName(ValueError):
    """Two symbols that the dollar venues would both call by one name."""

    def __init__(self, first: str, second: str, name: str) -> None:
        super().__init__(f"{first} and {second} are both {name} at the dollar venues; offer one of them")


class Venue:
    """Markets by Binance symbol, each with its flow; the same books are shown by all protocols."""

    def __init__(self, symbols: Iterable[str], seed: int, levels: int = 500, keep_events: int = 200_000) -> None:
        self.seed = seed
        self.flows: dict[str, OrderFlow] = {}
        self.tops: dict[str, Tops] = {}
        self._by_name: dict[str, Market] = {}
        for symbol in symbols:
            instrument = Instrument.of(symbol)
            if instrument.pair in self._by_name:
                raise SameName(self._by_name[instrument.pair].instrument.symbol, symbol, instrument.pair)
            flow = OrderFlow(instrument, seed, levels, keep_events)
            self.flows[symbol] = flow
            self.tops[symbol] = Tops(flow.market.journal)
            for name in (symbol, instrument.stream, instrument.pair, instrument.product):
                self._by_name[name] = flow.market

    @property
    def markets(self) -> list[Market]:
        return [flow.market for flow in self.flows.values()]

    def find(self, name: str) -> Market | None:
        """The market called `name`: "BTCUSDT", "btcusdt", "BTC/USD" or "BTC-USD"; None if there is none."""
        return self._by_name.get(name)

    def step(self, symbol: str, time_ns: int) -> Event:
        return self.flows[symbol].step(time_ns)
