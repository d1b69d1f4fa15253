"""A matching engine for one market: price-time priority, one update id an order event.

Prices inside are *keys*: ticks with a sign, negative for bids. Ascending order of keys is then best first on both
sides, and one rule ("an order trades while its key plus the other side's best key is <= 0") serves both:

    bids   -11800003  -11800002  -11799990 ...      best bid 118000.03
    asks    11800004   11800011   11800012 ...      best ask 118000.04

Pure: no clock, no randomness, no I/O. The caller passes the time, which is only copied into the events.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from enum import IntEnum
from typing import NamedTuple

from exchange.instrument import Instrument
from exchange.journal import Journal


class Side(IntEnum):
    BID = 0
    ASK = 1


class Trade(NamedTuple):
    """One fill of one resting order (`maker` is its id). `taker` is the side of the order that came in."""

    trade_id: int
    price_ticks: int
    qty_lots: int
    taker: Side
    maker: int


class Best(NamedTuple):
    """Best bid and offer, 0 where a side is empty."""

    bid_ticks: int
    bid_lots: int
    ask_ticks: int
    ask_lots: int


class Event(NamedTuple):
    """What one order did to the book.

    `changes` holds (key, total lots now at that price), each price once, 0 lots = the level is gone.
    `best` is the new BBO if it moved, else None.
    """

    seq: int
    time_ns: int
    changes: tuple[tuple[int, int], ...]
    trades: tuple[Trade, ...]
    best: Best | None


class Market:
    """The book of one instrument, with every resting order in its queue."""

    def __init__(
        self, instrument: Instrument, first_seq: int = 0, first_trade_id: int = 1, keep_events: int = 200_000
    ) -> None:
        self.instrument = instrument
        self.seq = first_seq
        self.levels: dict[int, int] = {}
        """key -> total lots; both sides, since the sign tells them apart"""
        self.keys: tuple[list[int], list[int]] = ([], [])
        """best first, one list a side"""
        self.queues: dict[int, dict[int, int]] = {}
        """key -> {order id: lots left}, oldest order first"""
        self.orders: dict[int, int] = {}
        """order id -> key"""
        self.next_trade_id = first_trade_id
        self._next_order_id = 1
        self._best = Best(0, 0, 0, 0)
        self.journal = Journal(keep_events, first_seq)
        self.recent: deque[tuple[int, Trade]] = deque(maxlen=100)
        """(time_ns, trade), oldest first: what venues send to a new subscriber of trades"""

    def limit(self, side: Side, price_ticks: int, qty_lots: int, time_ns: int) -> tuple[int, Event]:
        """Match what crosses, rest what is left. Returns the order's id (0 if nothing rests) and the event."""
        key = -price_ticks if side is Side.BID else price_ticks
        left, trades, touched = self._match(side, key, qty_lots)
        order_id = 0
        if left:
            order_id = self._next_order_id
            self._next_order_id += 1
            self.orders[order_id] = key
            queue = self.queues.get(key)
            if queue is None:
                self.queues[key] = {order_id: left}
                self.levels[key] = left
                insort(self.keys[side], key)
            else:
                queue[order_id] = left
                self.levels[key] += left
            touched.append(key)
        return order_id, self._emit(touched, trades, time_ns)

    def market(self, side: Side, qty_lots: int, time_ns: int) -> Event | None:
        """Take up to `qty_lots` from the other side; None if that side is empty, since then nothing happens."""
        other = self.keys[1 - side]
        if not other:
            return None
        _, trades, touched = self._match(side, -other[-1], qty_lots)
        return self._emit(touched, trades, time_ns)

    def cancel(self, order_id: int, time_ns: int) -> Event:
        """Take a resting order out of the book. Raises KeyError if it does not rest."""
        key = self.orders.pop(order_id)
        queue = self.queues[key]
        self._shrink(key, queue.pop(order_id))
        return self._emit([key], [], time_ns)

    def reduce(self, order_id: int, by_lots: int, time_ns: int) -> Event:
        """Make a resting order smaller; it keeps its place in the queue. At least one lot stays."""
        key = self.orders[order_id]
        queue = self.queues[key]
        if not 0 < by_lots < queue[order_id]:
            raise ValueError(f"order {order_id} has {queue[order_id]} lots, cannot give up {by_lots}")
        queue[order_id] -= by_lots
        self.levels[key] -= by_lots
        return self._emit([key], [], time_ns)

    def best(self) -> Best:
        bids, asks = self.keys
        bid, ask = (bids[0] if bids else 0), (asks[0] if asks else 0)
        return Best(-bid, self.levels.get(bid, 0), ask, self.levels.get(ask, 0))

    def side(self, side: Side, depth: int | None = None) -> list[tuple[int, int]]:
        """(price_ticks, qty_lots), best first, `depth` levels or all."""
        return [(abs(key), self.levels[key]) for key in self.keys[side][:depth]]

    def check(self) -> None:
        """Raise AssertionError unless the book is whole: sorted, not crossed, totals equal to their queues."""
        bids, asks = self.keys
        assert bids == sorted(set(bids)) and asks == sorted(set(asks)), "sides sorted, each price once"
        assert set(bids) | set(asks) == set(self.levels) == set(self.queues), "one price, one level, one queue"
        assert all(key < 0 for key in bids) and all(key > 0 for key in asks), "prices positive"
        assert not (bids and asks) or -bids[0] < asks[0], "not crossed, not locked"
        for key, queue in self.queues.items():
            assert all(lots > 0 for lots in queue.values()), "quantities positive"
            assert list(queue) == sorted(queue), "time priority"
            assert sum(queue.values()) == self.levels[key], "total equals its orders"
        assert {o: k for k, queue in self.queues.items() for o in queue} == self.orders, "orders and queues agree"

    def _match(self, side: Side, key: int, qty_lots: int) -> tuple[int, list[Trade], list[int]]:
        """Trade against the other side while prices cross; returns lots left, fills, keys touched."""
        other = self.keys[1 - side]
        trades: list[Trade] = []
        touched: list[int] = []
        while qty_lots and other and key + other[0] <= 0:
            resting = other[0]
            queue = self.queues[resting]
            touched.append(resting)
            filled = 0
            while qty_lots and queue:
                order_id, lots = next(iter(queue.items()))
                fill = min(lots, qty_lots)
                qty_lots -= fill
                filled += fill
                trades.append(Trade(self.next_trade_id, abs(resting), fill, side, order_id))
                self.next_trade_id += 1
                if fill == lots:
                    del queue[order_id], self.orders[order_id]
                else:
                    queue[order_id] = lots - fill
            self._shrink(resting, filled)
        return qty_lots, trades, touched

    def _shrink(self, key: int, by_lots: int) -> None:
        """Take lots off a level that its queue has given up already; drop the level when it is empty."""
        left = self.levels[key] - by_lots
        if left:
            self.levels[key] = left
            return
        del self.levels[key], self.queues[key]
        keys = self.keys[Side.BID if key < 0 else Side.ASK]
        del keys[bisect_left(keys, key)]

    def _emit(self, touched: list[int], trades: list[Trade], time_ns: int) -> Event:
        self.seq += 1
        levels = self.levels
        changes = tuple([(key, levels.get(key, 0)) for key in touched])
        self.journal.append(self.seq, changes)
        best = self.best()
        if trades:
            self.recent.extend([(time_ns, trade) for trade in trades])
        moved = best if best != self._best else None
        self._best = best
        return Event(self.seq, time_ns, changes, tuple(trades), moved)
