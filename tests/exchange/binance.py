"""Binance's WebSocket protocol: subscriptions, raw and combined payloads, conflated diffs. Spot and USD-M futures.

Source: developers.binance.com, "WebSocket Streams" of spot and of USD-M futures. What differs between the two (ids,
padding, fields) is in a dialect: `Spot` here, `UsdM` in binance_usdm.py.

A test extension: `<symbol>@depth@<n>ms` with any n; 0 is one message for every event.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from exchange.engine import Best, Event, Market, Side, Trade
from exchange.instrument import Instrument, decimal_text
from exchange.session import Kind, Out
from exchange.times import MS
from exchange.venue import Venue

Changes = Iterable[tuple[int, int]]

STREAM = re.compile(
    r"(?P<symbol>[^@!/ ]+)@(?:depth(?P<depth>5|10|20)?(?:@(?P<interval_ms>\d{1,5})ms)?|(?P<channel>[A-Za-z][\w.]*))"
)


class Dialect(Protocol):
    """The text of one Binance market's messages."""

    venue: str
    default_interval_ms: int

    def depth_update(self, market: Market, first: int, last: int, prev: int, changes: Changes, time_ms: int) -> str: ...

    def partial(self, market: Market, depth: int, time_ms: int) -> str: ...

    def book_ticker(self, market: Market, seq: int, best: Best, time_ms: int) -> str: ...

    def trade(self, market: Market, trade: Trade, time_ms: int) -> str: ...

    def agg_trade(self, market: Market, first: Trade, last: Trade, qty_lots: int, time_ms: int) -> str: ...

    def snapshot(self, market: Market, seq: int, book: dict[int, int], limit: int, time_ms: int) -> str: ...


def padded(units: int, decimals: int, to: int = 8) -> str:
    """Decimal text padded to `to` decimals: (971505, 1) -> "97150.50000000"."""
    return decimal_text(units * 10 ** (to - decimals), to)


class Spot:
    """Spot: ids contiguous (U = previous u + 1), prices and quantities padded to 8 decimals."""

    venue = "binance"
    default_interval_ms = 1000

    def depth_update(self, market: Market, first: int, last: int, prev: int, changes: Changes, time_ms: int) -> str:
        bids, asks = both_sides(market.instrument, changes, padded)
        return (
            f'{{"e":"depthUpdate","E":{time_ms},"s":"{market.instrument.symbol}","U":{first},"u":{last},'
            f'"b":[{bids}],"a":[{asks}]}}'
        )

    def partial(self, market: Market, depth: int, time_ms: int) -> str:
        return self.snapshot(market, market.seq, market.levels, depth, time_ms)

    def book_ticker(self, market: Market, seq: int, best: Best, time_ms: int) -> str:
        price, lot = market.instrument.price_decimals, market.instrument.lot_decimals
        return (
            f'{{"u":{seq},"s":"{market.instrument.symbol}",'
            f'"b":"{padded(best.bid_ticks, price)}","B":"{padded(best.bid_lots, lot)}",'
            f'"a":"{padded(best.ask_ticks, price)}","A":"{padded(best.ask_lots, lot)}"}}'
        )

    def trade(self, market: Market, trade: Trade, time_ms: int) -> str:
        inst = market.instrument
        return (
            f'{{"e":"trade","E":{time_ms},"s":"{inst.symbol}","t":{trade.trade_id},'
            f'"p":"{padded(trade.price_ticks, inst.price_decimals)}","q":"{padded(trade.qty_lots, inst.lot_decimals)}",'
            f'"T":{time_ms},"m":{buyer_is_maker(trade)},"M":true}}'
        )

    def agg_trade(self, market: Market, first: Trade, last: Trade, qty_lots: int, time_ms: int) -> str:
        inst = market.instrument
        return (
            f'{{"e":"aggTrade","E":{time_ms},"s":"{inst.symbol}","a":{first.trade_id},'
            f'"p":"{padded(first.price_ticks, inst.price_decimals)}","q":"{padded(qty_lots, inst.lot_decimals)}",'
            f'"f":{first.trade_id},"l":{last.trade_id},"T":{time_ms},"m":{buyer_is_maker(first)},"M":true}}'
        )

    def snapshot(self, market: Market, seq: int, book: dict[int, int], limit: int, time_ms: int) -> str:
        bids, asks = both_sides(market.instrument, nearest(book, limit), padded)
        return f'{{"lastUpdateId":{seq},"bids":[{bids}],"asks":[{asks}]}}'


def both_sides(inst: Instrument, changes: Changes, text: Callable[[int, int], str]) -> tuple[str, str]:
    """The levels of bids and of asks, joined, with numbers as `text` (units, decimals) writes them."""
    sides: tuple[list[str], list[str]] = ([], [])
    for key, lots in changes:
        level = f'["{text(abs(key), inst.price_decimals)}","{text(lots, inst.lot_decimals)}"]'
        sides[0 if key < 0 else 1].append(level)
    return ",".join(sides[0]), ",".join(sides[1])


def nearest(book: dict[int, int], limit: int) -> list[tuple[int, int]]:
    """The best `limit` levels a side of a key -> lots book, best first."""
    keys = sorted(book)
    bids = [key for key in keys if key < 0][:limit]
    asks = [key for key in keys if key > 0][:limit]
    return [(key, book[key]) for key in bids + asks]


def buyer_is_maker(trade: Trade) -> str:
    return "true" if trade.taker is Side.ASK else "false"


@dataclass
class Stream:
    """One subscription. `pending` is what changed since the last message, `last_seq` the id that one ended with."""

    name: str
    market: Market
    channel: str
    interval_ms: int
    depth: int
    last_seq: int
    prev_sent: int
    slot: int = -1
    pending: dict[int, int] = field(default_factory=dict)


class BinanceSession:
    """One connection to `/ws...` or `/stream...`."""

    def __init__(self, venue_markets: Venue, dialect: Dialect, streams: Iterable[str], combined: bool, time_ns: int):
        self.venue = dialect.venue
        self._markets = venue_markets
        self._dialect = dialect
        self._combined = combined
        self._names: list[str] = []
        self._by_symbol: dict[str, list[Stream]] = {}
        for name in streams:
            self._subscribe(name, time_ns)

    def connected(self, time_ns: int) -> list[Out]:
        return []

    def streams(self) -> list[str]:
        return list(self._names)

    def shutdown(self, time_ns: int) -> list[Out]:
        text = f'{{"e":"serverShutdown","E":{time_ns // MS}}}'
        return [Out("other", "", "", self._wrapped("!serverShutdown", text))]

    def receive(self, text: str, time_ns: int) -> list[Out]:
        try:
            request = orjson.loads(text)
        except orjson.JSONDecodeError:
            return [_out({"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"})]
        if not isinstance(request, dict):
            return [_out({"code": 2, "msg": "Invalid request: request must be an object"})]
        ident, method, params = request.get("id"), request.get("method"), request.get("params", [])
        if not isinstance(params, list):
            return [_out({"code": 2, "msg": "Invalid request: params must be an array", "id": ident})]
        if method in ("SUBSCRIBE", "UNSUBSCRIBE"):
            return self._change(method == "SUBSCRIBE", params, ident, time_ns)
        if method == "LIST_SUBSCRIPTIONS":
            return [_out({"result": self._names, "id": ident})]
        if method == "SET_PROPERTY":
            if len(params) != 2 or params[0] != "combined":
                return [_out({"code": 0, "msg": "Unknown property", "id": ident})]
            if not isinstance(params[1], bool):
                return [_out({"code": 1, "msg": "Invalid value type: expected Boolean", "id": ident})]
            self._combined = params[1]
            return [_out({"result": None, "id": ident})]
        if method == "GET_PROPERTY" and params == ["combined"]:
            return [_out({"result": self._combined, "id": ident})]
        return [_out({"code": 2, "msg": f"Invalid request: unknown variant `{method}`", "id": ident})]

    def event(self, market: Market, event: Event) -> list[Out]:
        streams = self._by_symbol.get(market.instrument.symbol)
        if not streams:
            return []
        out: list[Out] = []
        time_ms = event.time_ns // MS
        for stream in streams:
            if stream.channel == "depth":
                stream.pending.update(event.changes)
                if not stream.interval_ms:
                    self._flush(stream, time_ms, out)
            elif stream.channel == "bookTicker":
                if event.best:
                    text = self._dialect.book_ticker(market, event.seq, event.best, time_ms)
                    out.append(self._out("ticker", stream, text))
            elif event.trades and stream.channel == "trade":
                for trade in event.trades:
                    out.append(self._out("trade", stream, self._dialect.trade(market, trade, time_ms)))
            elif event.trades and stream.channel == "aggTrade":
                for first, last, lots in _aggregated(event.trades):
                    text = self._dialect.agg_trade(market, first, last, lots, time_ms)
                    out.append(self._out("trade", stream, text))
        return out

    def tick(self, time_ns: int) -> list[Out]:
        out: list[Out] = []
        time_ms = time_ns // MS
        for streams in self._by_symbol.values():
            for stream in streams:
                if stream.interval_ms and (slot := time_ms // stream.interval_ms) != stream.slot:
                    stream.slot = slot
                    if stream.market.seq > stream.last_seq:
                        self._flush(stream, time_ms, out)
        return out

    def _flush(self, stream: Stream, time_ms: int, out: list[Out]) -> None:
        market, last = stream.market, stream.market.seq
        if stream.channel == "partial":
            out.append(self._out("snapshot", stream, self._dialect.partial(market, stream.depth, time_ms)))
        else:
            changes = sorted(stream.pending.items()) if stream.interval_ms else stream.pending.items()
            text = self._dialect.depth_update(market, stream.last_seq + 1, last, stream.prev_sent, changes, time_ms)
            out.append(self._out("depth", stream, text))
            stream.pending.clear()
        stream.last_seq = stream.prev_sent = last

    def _change(self, subscribe: bool, names: list[Any], ident: Any, time_ns: int) -> list[Out]:
        for name in names:
            if not isinstance(name, str) or not (name.startswith("!") or STREAM.fullmatch(name)):
                return [_out({"error": {"code": 2, "msg": "Invalid request: invalid stream"}, "id": ident})]
        for name in names:
            if subscribe:
                self._subscribe(name, time_ns)
            else:
                self._unsubscribe(name)
        return [_out({"result": None, "id": ident})]

    def _subscribe(self, name: str, time_ns: int) -> None:
        """Streams of unknown symbols and kinds are listed and stay silent, as on the venue."""
        if name in self._names:
            return
        self._names.append(name)
        match = STREAM.fullmatch(name)
        market = self._markets.find(match["symbol"]) if match else None
        if not match or market is None or match["symbol"] != market.instrument.stream:
            return
        channel = match["channel"] or ("partial" if match["depth"] else "depth")
        interval_ms = 0
        if channel in ("depth", "partial"):
            interval_ms = int(match["interval_ms"] or self._dialect.default_interval_ms)
            if channel == "partial":
                interval_ms = max(interval_ms, 1)
        stream = Stream(name, market, channel, interval_ms, int(match["depth"] or 0), market.seq, market.seq)
        stream.slot = time_ns // MS // interval_ms if interval_ms else -1
        self._by_symbol.setdefault(market.instrument.symbol, []).append(stream)

    def _unsubscribe(self, name: str) -> None:
        if name in self._names:
            self._names.remove(name)
        for streams in self._by_symbol.values():
            streams[:] = [stream for stream in streams if stream.name != name]

    def _out(self, kind: Kind, stream: Stream, text: str) -> Out:
        return Out(kind, stream.market.instrument.symbol, stream.name, self._wrapped(stream.name, text))

    def _wrapped(self, name: str, text: str) -> str:
        return f'{{"stream":"{name}","data":{text}}}' if self._combined else text


def _aggregated(trades: Iterable[Trade]) -> list[tuple[Trade, Trade, int]]:
    """Fills of one order joined by price: (first, last, lots together)."""
    joined: list[tuple[Trade, Trade, int]] = []
    for trade in trades:
        if joined and joined[-1][0].price_ticks == trade.price_ticks:
            first, _, lots = joined[-1]
            joined[-1] = (first, trade, lots + trade.qty_lots)
        else:
            joined.append((trade, trade, trade.qty_lots))
    return joined


def _out(answer: dict[str, Any]) -> Out:
    return Out("other", "", "", orjson.dumps(answer).decode())
