"""Kraken spot, WebSocket v2.

Sources: docs.kraken.com/api/docs: BOOK = websocket-v2/book, TRADE = websocket-v2/trade, STATUS = websocket-v2/status,
PING = websocket-v2/ping, CRC = guides/spot-ws-book-v2 (checksum), LIMITS = guides/spot-ws-intro,
ERRORS = guides/spot-errors.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from lob.venues.shape import (
    ASK,
    BID,
    Checksum,
    Each,
    ExchTime,
    LevelObject,
    Levels,
    Obj,
    Price,
    Qty,
    Rule,
    Shape,
    Symbol,
    Tag,
    TakerSide,
    TradeId,
)
from lob.venues.venue import Control, Limits, Subscription, Venue, json_object

DEPTHS = (10, 25, 100, 500, 1000)  # BOOK
SERVER_DEPTH = 10  # BOOK: what a subscription without `depth` gets

_LEVEL = LevelObject("price", "qty")


class Exchange(Venue):
    name = "kraken"
    ws_url = "wss://ws.kraken.com/v2"  # LIMITS
    rest_url = "https://api.kraken.com"
    hosts = ("ws.kraken.com", "api.kraken.com")
    rule = "none"  # BOOK: no numbers; a loss shows only in the checksum
    snapshot = "stream"
    checksum = "kraken_crc32"
    truncates = True  # CRC: nobody says that a level fell out of the window
    # A lost message is found by the checksum of the best 10 alone, so what lies deeper is only as good as the last
    # snapshot: 100 shows what trades reach and still comes in one small message; 1000 would be mostly unverified.
    default_depth = 100
    ping_interval_s = 30.0  # PING
    silence_s = 10.0  # STATUS: a heartbeat a second when nothing else flows
    limits = Limits(
        streams_per_connection=200,
        messages_per_s=8.0,  # not in the pages, which know only the error "Exceeded msg rate"
        rest_weight_per_min=60,
        connect_per_min=15,  # LIMITS: about 150 in 10 minutes, then the address is blocked for a while
    )

    # Numbers are bare and count as written: trailing zeros stand in the checksum (CRC). No metadata is asked for: the
    # text on the wire has the pair's precision, and REST has other names for the pairs (XBT/USD).
    shape = Shape(
        Obj(
            {
                "channel": Tag("channel"),
                "type": Tag("type"),
                "data": Each(
                    Obj(
                        {
                            "symbol": Symbol(),
                            "bids": Levels(BID, _LEVEL),
                            "asks": Levels(ASK, _LEVEL),
                            "checksum": Checksum(),
                            "timestamp": ExchTime("rfc3339"),  # BOOK: not on snapshots in older recordings
                            "price": Price(),
                            "qty": Qty(),
                            "side": TakerSide(buy="buy", sell="sell"),  # TRADE: the taker's
                            "trade_id": TradeId(),
                        },
                        scope=True,
                    )
                ),
            },
            scope=True,
        ),
        (
            Rule("snapshot", {"channel": "book", "type": "snapshot"}, has=("symbol",)),
            Rule("diff", {"channel": "book", "type": "update"}, has=("symbol",)),
            Rule("trade", {"channel": "trade", "type": "update"}, has=("symbol", "price")),
            Rule("ignore", {"channel": "trade"}),  # the 50 trades before we came
            Rule("ignore", {"channel": ("heartbeat", "ticker", "ohlc", "instrument")}),
        ),
    )

    def subscribe(self, symbols: Sequence[str], depth: int, request_id: int) -> list[str]:
        return self._requests("subscribe", symbols, depth, request_id)

    def unsubscribe(self, symbols: Sequence[str], depth: int, request_id: int) -> list[str]:
        """BOOK: the depth is part of what is unsubscribed."""
        return self._requests("unsubscribe", symbols, depth, request_id)

    def _requests(self, method: str, symbols: Sequence[str], depth: int, request_id: int) -> list[str]:
        wanted = depth or self.default_depth
        allowed = next((each for each in DEPTHS if wanted <= each), DEPTHS[-1])
        names = list(symbols)
        book: dict[str, object] = {"channel": "book", "symbol": names, "depth": allowed}
        trade: dict[str, object] = {"channel": "trade", "symbol": names}
        if method == "subscribe":
            book["snapshot"] = True
            trade["snapshot"] = False
        requests = [{"method": method, "params": params, "req_id": request_id} for params in (book, trade)]
        return [orjson.dumps(request).decode() for request in requests]

    def keep_alive(self, request_id: int) -> str | None:
        """PING: an application's ping, apart from the protocol's."""
        return orjson.dumps({"method": "ping", "req_id": request_id}).decode()

    def subscriptions(self, text: str) -> list[Subscription]:
        try:
            message = orjson.loads(text)
            params = message["params"]
            if message["method"] == "subscribe" and params["channel"] == "book":
                depth = int(params.get("depth", SERVER_DEPTH))
                return [Subscription(symbol, depth) for symbol in params["symbol"]]
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            pass
        return []

    def control(self, frame: bytes) -> Control | None:
        message = json_object(frame)
        if message.get("channel") == "status":
            data = message.get("data")
            first = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}
            system = first.get("system", "online")
            # STATUS: online, cancel_only, post_only, maintenance. In all but the last the books go on.
            return Control("info", error="" if system == "online" else f"system is {system}")
        if message.get("error") is not None:  # ERRORS; with "method":"error" if it could not be read at all
            return Control("error", error=str(message["error"]), symbol=str(message.get("symbol", "")))
        method, result = message.get("method"), message.get("result")
        if method == "pong":
            return Control("pong")
        if method in ("subscribe", "unsubscribe") and message.get("success") is True:
            # BOOK: one ack a symbol, with the depth that holds.
            if method == "subscribe" and isinstance(result, dict) and result.get("channel") == "book":
                depth = result.get("depth", SERVER_DEPTH)
                if isinstance(result.get("symbol"), str) and isinstance(depth, int):
                    return Control("ack", (Subscription(result["symbol"], depth),))
            return Control("ack")
        return None
