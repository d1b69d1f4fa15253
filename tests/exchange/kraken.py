"""Kraken's WebSocket v2 protocol: a session, and the window of a book that it shows.

Source: docs.kraken.com/api, "WebSocket v2". The client must cut its book to the subscribed depth; the venue says
nothing of a level that is pushed out and sends it again when it comes back.
"""

from __future__ import annotations

from typing import Any

import orjson

from exchange import kraken_messages as messages
from exchange.engine import Event, Market, Side
from exchange.session import Out
from exchange.times import SECOND
from exchange.venue import Venue

DEPTHS = (10, 25, 100, 500, 1000)
HEARTBEAT_NS = SECOND


class Window:
    """The best `depth` levels a side of a market, as one client sees them."""

    def __init__(self, market: Market, depth: int) -> None:
        self.market, self.depth = market, depth
        self._last_keys = [self._last_key(side) for side in Side]
        self.crc = messages.book_checksum(market)

    def update(self, event: Event) -> tuple[list[tuple[int, int]], list[tuple[int, int]]] | None:
        """(bids, asks) as (price_ticks, lots) that take the client from the window before `event` to the one after.

        None if the event lies outside. Must see every event, in order.
        """
        sides: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        near = False
        for side in Side:
            changes = [change for change in event.changes if (change[0] < 0) == (side is Side.BID)]
            if not changes:
                continue
            keys = self.market.keys[side]
            before, after = self._last_keys[side], self._last_key(side)
            out = sides[side]
            for key, lots in changes:
                limit = after if lots else before
                if limit is None or key <= limit:
                    out.append((abs(key), lots))
                    near = near or len(keys) <= 10 or key <= keys[messages.CHECKSUM_LEVELS - 1]
            if before is not None and (after is None or after > before):
                out.extend(self._entered(side, before, {key for key, _ in changes}))
            self._last_keys[side] = after
        if near:
            self.crc = messages.book_checksum(self.market)
        return sides if sides[0] or sides[1] else None

    def _last_key(self, side: Side) -> int | None:
        """The deepest price in the window; None while the window is not full, since then every price is inside."""
        keys = self.market.keys[side]
        return keys[self.depth - 1] if len(keys) >= self.depth else None

    def _entered(self, side: Side, before: int, changed: set[int]) -> list[tuple[int, int]]:
        """Levels beyond the old edge `before` that are inside now, nearest first."""
        entered: list[tuple[int, int]] = []
        for key in reversed(self.market.keys[side][: self.depth]):
            if key <= before:
                break
            if key not in changed:
                entered.append((abs(key), self.market.levels[key]))
        return entered[::-1]


class KrakenSession:
    venue = "kraken"

    def __init__(self, venue_markets: Venue, connection_id: int, time_ns: int) -> None:
        self._markets = venue_markets
        self._connection_id = connection_id
        self._windows: dict[str, Window] = {}
        self._trades: set[str] = set()
        self._instrument = False
        self._next_heartbeat_ns = time_ns + HEARTBEAT_NS

    def connected(self, time_ns: int) -> list[Out]:
        return [Out("other", "", "status", messages.status(self._connection_id))]

    def streams(self) -> list[str]:
        books = [f"book-{window.depth}:{window.market.instrument.pair}" for window in self._windows.values()]
        return books + [f"trade:{symbol}" for symbol in sorted(self._trades)]

    def shutdown(self, time_ns: int) -> list[Out]:
        return []

    def receive(self, text: str, time_ns: int) -> list[Out]:
        try:
            request = orjson.loads(text)
        except orjson.JSONDecodeError:
            request = None
        if not isinstance(request, dict):
            return [_other(messages.answer("error", time_ns, None, error="Malformed request"))]
        method, params, req_id = request.get("method"), request.get("params", {}), request.get("req_id")
        if method == "ping":
            return [_other(messages.answer("pong", time_ns, req_id))]
        if method in ("subscribe", "unsubscribe") and isinstance(params, dict):
            return self._change(method, params, req_id, time_ns)
        return [_other(messages.answer("error", time_ns, req_id, error="Malformed request"))]

    def event(self, market: Market, event: Event) -> list[Out]:
        symbol = market.instrument.symbol
        out: list[Out] = []
        if (window := self._windows.get(symbol)) and (sides := window.update(event)):
            text = messages.book("update", market.instrument, *sides, window.crc, event.time_ns)
            out.append(Out("depth", symbol, "book", text))
        if event.trades and symbol in self._trades:
            fills = [(event.time_ns, trade) for trade in event.trades]
            out.append(Out("trade", symbol, "trade", messages.trades("update", market.instrument, fills)))
        return out

    def tick(self, time_ns: int) -> list[Out]:
        """A heartbeat each second while subscribed, also beside data, as in captures of 2026."""
        if time_ns < self._next_heartbeat_ns:
            return []
        self._next_heartbeat_ns = max(self._next_heartbeat_ns + HEARTBEAT_NS, time_ns)
        return [_other(messages.HEARTBEAT)] if self._windows or self._trades or self._instrument else []

    def _change(self, method: str, params: dict[str, Any], req_id: object, time_ns: int) -> list[Out]:
        """One ack a symbol, then the snapshots."""
        channel, depth = params.get("channel"), params.get("depth", 10)
        if channel == "instrument":
            self._instrument = method == "subscribe"
            ack = messages.answer(method, time_ns, req_id, result={"channel": "instrument", "snapshot": True})
            return [_other(ack), _other(messages.instruments(self._markets.markets))][: 1 + self._instrument]
        symbols = params.get("symbol")
        if channel not in ("book", "trade") or not isinstance(symbols, list):
            return [_other(messages.answer(method, time_ns, req_id, error="Malformed request"))]
        if depth not in DEPTHS:
            return [_other(messages.answer(method, time_ns, req_id, error=f"Book depth not supported {depth}"))]
        snapshot = params.get("snapshot", True) is True
        acks: list[Out] = []
        snapshots: list[Out] = []
        for pair in symbols:
            market = self._markets.find(pair) if isinstance(pair, str) and "/" in pair else None
            error = f"Currency pair not supported {pair}" if market is None else ""
            if market is not None:
                change = self._subscribe if method == "subscribe" else self._unsubscribe
                error = change(channel, depth, market)
            if error or market is None:
                acks.append(_other(messages.answer(method, time_ns, req_id, error=error, symbol=str(pair))))
                continue
            result: dict[str, object] = {"channel": channel}
            if channel == "book":
                result["depth"] = depth
            result |= {"snapshot": snapshot, "symbol": pair}
            acks.append(_other(messages.answer(method, time_ns, req_id, result=result)))
            if method == "subscribe" and snapshot:
                snapshots.append(self._snapshot(channel, depth, market, time_ns))
        return acks + snapshots

    def _subscribe(self, channel: str, depth: int, market: Market) -> str:
        """Returns the reason why not, or ""."""
        symbol = market.instrument.symbol
        if symbol in (self._windows if channel == "book" else self._trades):
            return "Already subscribed"
        if channel == "book":
            self._windows[symbol] = Window(market, depth)
        else:
            self._trades.add(symbol)
        return ""

    def _unsubscribe(self, channel: str, depth: int, market: Market) -> str:
        symbol = market.instrument.symbol
        if channel == "trade" and symbol in self._trades:
            self._trades.remove(symbol)
        elif channel == "book" and symbol in self._windows and self._windows[symbol].depth == depth:
            del self._windows[symbol]
        else:
            return "Subscription Not Found"
        return ""

    def _snapshot(self, channel: str, depth: int, market: Market, time_ns: int) -> Out:
        inst = market.instrument
        if channel == "trade":
            return Out("snapshot", inst.symbol, "trade", messages.trades("snapshot", inst, list(market.recent)[-50:]))
        bids, asks = market.side(Side.BID, depth), market.side(Side.ASK, depth)
        text = messages.book("snapshot", inst, bids, asks, messages.book_checksum(market), time_ns)
        return Out("snapshot", inst.symbol, "book", text)


def _other(text: str) -> Out:
    return Out("other", "", "", text)
