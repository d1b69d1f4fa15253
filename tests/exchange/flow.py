"""Seeded random order flow: adds near and far, cancels, market orders, a fair price that walks.

The sequence of events depends on the seed and the symbol alone, never on time or on who listens.
"""

from __future__ import annotations

import random

from exchange.engine import Event, Market, Side
from exchange.instrument import Instrument

MARKET_ORDERS = 0.025
REDUCTIONS = 0.01
NEAR_ADDS = 0.55
FIRST_SEQ = 50_093_239_000


class OrderFlow:
    """Drives one market. `levels` is the number of levels a side around which the book is kept."""

    def __init__(self, instrument: Instrument, seed: int, levels: int = 500, keep_events: int = 200_000) -> None:
        self.random = random.Random(f"{seed}:{instrument.symbol}")
        first_seq = FIRST_SEQ + self.random.randrange(1_000_000_000)
        self.market = Market(instrument, first_seq, self.random.randrange(10**9, 5 * 10**9), keep_events)
        self.levels = levels
        self.fair_ticks = float(instrument.first_price_ticks)
        self._volatility_ticks = max(0.15, instrument.first_price_ticks * 2e-6)
        self._near_ticks = max(3.0, min(levels * 2.0, instrument.first_price_ticks * 0.002))
        self._far_ticks = max(levels * 1.5, min(levels * 60.0, instrument.first_price_ticks * 0.05))
        self._mean_lots = _mean_lots(instrument)
        self._open: list[int] = []
        self._place: dict[int, int] = {}
        while min(len(keys) for keys in self.market.keys) < levels:
            self._add(Side.BID if len(self.market.keys[0]) < len(self.market.keys[1]) else Side.ASK, 0)
        self.market.journal.start(self.market.seq, self.market.levels)

    def step(self, time_ns: int) -> Event:
        """The next event; exactly one, and it always changes the book."""
        rnd = self.random
        self.fair_ticks += rnd.gauss(0.0, self._volatility_ticks)
        self.fair_ticks += (self.market.instrument.first_price_ticks - self.fair_ticks) * 1e-6
        what = rnd.random()
        side = Side.BID if rnd.random() < 0.5 else Side.ASK
        if what < MARKET_ORDERS and len(self.market.keys[1 - side]) > 20:
            event = self.market.market(side, self._lots(), time_ns)
            assert event is not None
            self._forget_filled(event)
            return event
        count = len(self.market.keys[side])
        add = 0.5 + 2.0 * (self.levels - count) / self.levels
        if not self._open or rnd.random() < min(0.9, max(0.1, add)):
            return self._add(side, time_ns)
        order_id = self._random_open(side)
        if what > 1 - REDUCTIONS:
            lots = self.market.queues[self.market.orders[order_id]][order_id]
            if lots > 1:
                return self.market.reduce(order_id, rnd.randrange(1, lots), time_ns)
        self._close(order_id)
        return self.market.cancel(order_id, time_ns)

    def _add(self, side: Side, time_ns: int) -> Event:
        rnd = self.random
        spread = self._near_ticks if rnd.random() < NEAR_ADDS else self._far_ticks
        distance = 1 + int(rnd.expovariate(1.0 / spread))
        price = max(1, int(self.fair_ticks) - distance if side is Side.BID else int(self.fair_ticks) + 1 + distance)
        order_id, event = self.market.limit(side, price, self._lots(), time_ns)
        self._forget_filled(event)
        if order_id:
            self._place[order_id] = len(self._open)
            self._open.append(order_id)
        return event

    def _lots(self) -> int:
        lots = 1 + int(self.random.expovariate(1.0 / self._mean_lots))
        return max(1, lots // 100) * 100 if self.random.random() < 0.2 else lots

    def _random_open(self, side: Side) -> int:
        """An order to cancel: of three drawn, the first on `side`, or else the last."""
        for _ in range(3):
            order_id = self._open[int(self.random.random() * len(self._open))]
            if (self.market.orders[order_id] < 0) == (side is Side.BID):
                break
        return order_id

    def _forget_filled(self, event: Event) -> None:
        for trade in event.trades:
            if trade.maker not in self.market.orders:
                self._close(trade.maker)

    def _close(self, order_id: int) -> None:
        """Take an order out of the list of open ones, in constant time."""
        place, last = self._place.pop(order_id), self._open.pop()
        if last != order_id:
            self._open[place] = last
            self._place[last] = place


def _mean_lots(instrument: Instrument) -> float:
    """Lots of an order of usual size: about 20,000 dollars, or 0.3 of a coin that serves as quote."""
    notional = 20_000 if instrument.quote in ("USDT", "USDC", "USD", "EUR") else 0.3
    price = instrument.first_price_ticks / float(10**instrument.price_decimals)
    return max(20.0, notional / price * float(10**instrument.lot_decimals))
