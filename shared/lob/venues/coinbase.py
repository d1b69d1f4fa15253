"""Coinbase Advanced Trade.

Sources: docs.cdp.coinbase.com, "Advanced Trade WebSocket": OVERVIEW, CHANNELS, LIMITS; REST = "List Public Products".
What they leave open is marked with where it was learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import orjson

from lob.venues.shape import (
    Each,
    ExchTime,
    Last,
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
from lob.venues.venue import Control, HttpAnswer, Limits, Metadata, Subscription, Venue, json_object

# CHANNELS, "Level2": the other side is "offer", not "ask"
_LEVEL = LevelObject("price_level", "new_quantity", side="side", bid="bid", ask="offer")
# The page does not say whose side it is. On Coinbase Exchange `side` is the maker's ("Matches"): the same trades.
_TRADE = Obj(
    {
        "product_id": Symbol(),
        "trade_id": TradeId(),
        "price": Price(),
        "size": Qty(),
        "side": TakerSide(buy="SELL", sell="BUY"),
        "time": ExchTime("rfc3339"),
    },
    scope=True,
)


class Exchange(Venue):
    name = "coinbase"
    ws_url = "wss://advanced-trade-ws.coinbase.com"  # OVERVIEW
    rest_url = "https://api.coinbase.com"
    hosts = ("advanced-trade-ws.coinbase.com", "api.coinbase.com")
    # OVERVIEW, "Sequence Numbers": one count for all messages of a connection, acks and heartbeats too, from 0. (Read
    # so by public adapters; a general page speaks of a count a product. A recorded connection has every number, over
    # five channels.)
    rule = "step"
    scope = "connection"
    snapshot = "stream"  # CHANNELS, "Level2": the first event is the whole book, several MB for a large one
    max_frame_bytes = 16 << 20  # Coinbase's own client raises the limit to 10 MiB
    ping_interval_s = 20.0
    silence_s = 10.0  # CHANNELS, "Heartbeats": one a second
    limits = Limits(
        # Not in the pages: 32 level2 products were refused ("too many L2 streams requested in a single session"),
        # 16 worked.
        streams_per_connection=16,
        messages_per_s=8.0,  # LIMITS: unauthenticated messages a second and address
        rest_weight_per_min=600,  # REST: 10 a second for public endpoints
        connect_per_min=480,  # LIMITS: 8 a second
    )

    shape = Shape(
        Obj(
            {
                "channel": Tag("channel"),
                "timestamp": ExchTime("rfc3339"),
                "sequence_num": Last(),
                "events": Each(
                    Obj(
                        {
                            "type": Tag("type"),
                            "product_id": Symbol(),
                            "updates": Levels(None, _LEVEL),
                            "trades": Each(_TRADE),
                        },
                        scope=True,
                    )
                ),
            },
            scope=True,
        ),
        (
            Rule("snapshot", {"channel": "l2_data", "type": "snapshot"}, has=("levels",)),
            Rule("diff", {"channel": "l2_data", "type": "update"}, has=("levels",)),
            Rule("trade", {"channel": "market_trades", "type": "update"}, has=("price",)),
            # The trades before we came; they would be old news at every reconnect.
            Rule("ignore", {"channel": "market_trades"}),
            Rule("ignore", {"channel": ("heartbeats", "ticker", "ticker_batch", "candles", "status")}),
        ),
    )

    def subscribe(self, symbols: Sequence[str], depth: int, request_id: int) -> list[str]:
        """OVERVIEW: one channel a message, the first within 5 s of connecting. Data of `level2` come as `l2_data`."""
        return self._requests("subscribe", symbols)

    def unsubscribe(self, symbols: Sequence[str], depth: int, request_id: int) -> list[str]:
        """The heartbeats stay: without them a quiet connection is closed after 60 to 90 s (CHANNELS)."""
        return self._requests("unsubscribe", symbols)[1:]

    def _requests(self, kind: str, symbols: Sequence[str]) -> list[str]:
        requests = [
            {"type": kind, "channel": "heartbeats"},
            {"type": kind, "product_ids": list(symbols), "channel": "level2"},
            {"type": kind, "product_ids": list(symbols), "channel": "market_trades"},
        ]
        return [orjson.dumps(request).decode() for request in requests]

    def metadata_request(self, base: str, symbols: Sequence[str]) -> tuple[str, int] | None:
        if not symbols:
            return None
        names = "&".join(f"product_ids={symbol}" for symbol in symbols)
        return f"{base.rstrip('/')}/api/v3/brokerage/market/products?{names}", 1

    def http_answer(self, url: str) -> HttpAnswer | None:
        return HttpAnswer("metadata") if "/market/products" in urlsplit(url).path else None

    def metadata(self, body: bytes) -> list[Metadata]:
        """REST: `price_increment` and `base_increment`; one product, or a list under `products`."""
        try:
            answer = orjson.loads(body)
            return [
                Metadata(
                    product["product_id"],
                    product.get("price_increment"),
                    product.get("base_increment"),
                    not product.get("trading_disabled", False),
                )
                for product in answer.get("products", [answer])
            ]
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no products: {error}") from None

    def subscriptions(self, text: str) -> list[Subscription]:
        try:
            message = orjson.loads(text)
            if message["type"] == "subscribe" and message["channel"] == "level2":
                return [Subscription(product) for product in message["product_ids"]]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            pass
        return []

    def control(self, frame: bytes) -> Control | None:
        message = json_object(frame)
        if message.get("type") == "error":
            return Control("error", error=str(message.get("message", "")))
        if message.get("channel") == "subscriptions":
            # The ack names the canonical products, e.g. BTC-USD for BTC-USDC, and those are the names in the data.
            events = message.get("events")
            named = [
                product
                for event in (events if isinstance(events, list) else [])
                if isinstance(event, dict) and isinstance(event.get("subscriptions"), dict)
                for product in event["subscriptions"].get("level2") or []
            ]
            return Control("ack", tuple(Subscription(product) for product in named if isinstance(product, str)))
        return None
