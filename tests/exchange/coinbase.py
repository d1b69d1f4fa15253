"""Coinbase Advanced Trade's WebSocket protocol: level2 (as l2_data), market_trades, heartbeats.

Source: docs.cdp.coinbase.com, "Advanced Trade WebSocket". `sequence_num` counts every message of the connection, acks
and heartbeats too. Quantities are absolute, "0" removes, sides are `bid` and `offer`, decimals have no trailing zeros.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from exchange.engine import Event, Market, Side, Trade
from exchange.instrument import stripped_text
from exchange.session import Kind, Out
from exchange.times import MS, SECOND, rfc3339
from exchange.venue import Venue

CHANNELS = ("level2", "market_trades", "heartbeats")
BATCH_NS = {"level2": 50 * MS, "market_trades": 250 * MS}


@dataclass
class Feed:
    """What one product has to tell on one channel since its last message."""

    market: Market
    changes: dict[int, int] = field(default_factory=dict)
    fills: list[tuple[int, Trade]] = field(default_factory=list)
    time_ns: int = 0


class CoinbaseSession:
    venue = "coinbase"

    def __init__(self, venue_markets: Venue, time_ns: int) -> None:
        self._markets = venue_markets
        self._next_seq = 0
        self._feeds: dict[str, dict[str, Feed]] = {}
        self._heartbeats = False
        self._heartbeat_counter = 0
        self._next_heartbeat_ns = 0
        self._slots = {channel: time_ns // batch_ns for channel, batch_ns in BATCH_NS.items()}

    def connected(self, time_ns: int) -> list[Out]:
        return []

    def shutdown(self, time_ns: int) -> list[Out]:
        return []

    def streams(self) -> list[str]:
        products = [f"{channel}:{product}" for channel, feeds in self._feeds.items() for product in feeds]
        return products + (["heartbeats"] if self._heartbeats else [])

    def receive(self, text: str, time_ns: int) -> list[Out]:
        try:
            request = orjson.loads(text)
            kind, channel, products = request["type"], request["channel"], request.get("product_ids", [])
            if kind not in ("subscribe", "unsubscribe") or channel not in CHANNELS or not isinstance(products, list):
                raise ValueError(kind)
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError):
            return [self._error("failure to parse subscription message")]
        if channel == "heartbeats":
            self._heartbeats = kind == "subscribe"
            self._next_heartbeat_ns = time_ns + SECOND
            return [self._subscriptions(time_ns)]
        markets = [market for product in products if (market := self._markets.find(product)) and "-" in product]
        if len(markets) != len(products):
            return [self._error("invalid product_ids")]
        feeds = self._feeds.setdefault(channel, {})
        out: list[Out] = []
        for market in markets:
            product = market.instrument.product
            if kind == "unsubscribe":
                feeds.pop(product, None)
            else:
                feeds[product] = Feed(market)
                out.append(self._snapshot(channel, market, time_ns))
        return [*out, self._subscriptions(time_ns)]

    def event(self, market: Market, event: Event) -> list[Out]:
        product = market.instrument.product
        if feed := self._feeds.get("level2", {}).get(product):
            feed.changes.update(event.changes)
            feed.time_ns = event.time_ns
        if event.trades and (feed := self._feeds.get("market_trades", {}).get(product)):
            feed.fills.extend((event.time_ns, trade) for trade in event.trades)
        return []

    def tick(self, time_ns: int) -> list[Out]:
        out: list[Out] = []
        for channel, batch_ns in BATCH_NS.items():
            if (slot := time_ns // batch_ns) == self._slots[channel]:
                continue
            self._slots[channel] = slot
            for feed in self._feeds.get(channel, {}).values():
                if feed.changes:
                    changes = sorted(feed.changes.items())
                    out.append(self._level2("update", feed.market, changes, feed.time_ns, time_ns))
                    feed.changes.clear()
                elif feed.fills:
                    out.append(self._trades("update", feed.market, feed.fills, time_ns))
                    feed.fills.clear()
        if self._heartbeats and time_ns >= self._next_heartbeat_ns:
            self._next_heartbeat_ns = max(self._next_heartbeat_ns + SECOND, time_ns)
            out.append(self._heartbeat(time_ns))
        return out

    def _snapshot(self, channel: str, market: Market, time_ns: int) -> Out:
        if channel == "level2":
            keys = market.keys[Side.BID] + market.keys[Side.ASK]
            return self._level2("snapshot", market, [(key, market.levels[key]) for key in keys], time_ns, time_ns)
        return self._trades("snapshot", market, list(market.recent), time_ns)

    def _level2(self, kind: str, market: Market, changes: list[tuple[int, int]], event_ns: int, time_ns: int) -> Out:
        inst = market.instrument
        event_time = rfc3339(event_ns)
        updates = ",".join(
            f'{{"side":"{"bid" if key < 0 else "offer"}","event_time":"{event_time}",'
            f'"price_level":"{stripped_text(abs(key), inst.price_decimals)}",'
            f'"new_quantity":"{stripped_text(lots, inst.lot_decimals)}"}}'
            for key, lots in changes
        )
        event = f'{{"type":"{kind}","product_id":"{inst.product}","updates":[{updates}]}}'
        return self._message("depth" if kind == "update" else "snapshot", market, "l2_data", event, time_ns)

    def _trades(self, kind: str, market: Market, fills: list[tuple[int, Trade]], time_ns: int) -> Out:
        """Newest first. `side` is the maker's, as on Coinbase Exchange; the Advanced pages do not say."""
        inst = market.instrument
        trades = ",".join(
            f'{{"product_id":"{inst.product}","trade_id":"{fill.trade_id}",'
            f'"price":"{stripped_text(fill.price_ticks, inst.price_decimals)}",'
            f'"size":"{stripped_text(fill.qty_lots, inst.lot_decimals)}","time":"{rfc3339(fill_ns)}",'
            f'"side":"{"SELL" if fill.taker is Side.BID else "BUY"}"}}'
            for fill_ns, fill in reversed(fills)
        )
        event = f'{{"type":"{kind}","trades":[{trades}]}}'
        return self._message("trade", market, "market_trades", event, time_ns)

    def _heartbeat(self, time_ns: int) -> Out:
        self._heartbeat_counter += 1
        now = rfc3339(time_ns, 9, separator=" ")
        elapsed = f"{self._heartbeat_counter}.{time_ns % SECOND:09d}"
        event = f'{{"current_time":"{now} +0000 UTC m=+{elapsed}","heartbeat_counter":{self._heartbeat_counter}}}'
        return self._message("other", None, "heartbeats", event, time_ns)

    def _subscriptions(self, time_ns: int) -> Out:
        subscribed: dict[str, Any] = {channel: list(feeds) for channel, feeds in self._feeds.items() if feeds}
        if self._heartbeats:
            subscribed["heartbeats"] = ["heartbeats"]
        event = orjson.dumps({"subscriptions": subscribed}).decode()
        return self._message("other", None, "subscriptions", event, time_ns)

    def _message(self, kind: Kind, market: Market | None, channel: str, event: str, time_ns: int) -> Out:
        text = (
            f'{{"channel":"{channel}","timestamp":"{rfc3339(time_ns, 9)}","sequence_num":{self._next_seq},'
            f'"events":[{event}]}}'
        )
        self._next_seq += 1
        return Out(kind, market.instrument.symbol if market else "", channel, text)

    def _error(self, message: str) -> Out:
        return Out("other", "", "", orjson.dumps({"type": "error", "message": message}).decode())
