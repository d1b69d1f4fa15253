"""Binance spot, and Binance.US, which speaks the same protocol.

Sources, all in github.com/binance/binance-spot-api-docs (as of 2026-07-21): WS = web-socket-streams.md,
REST = rest-api.md, ERR = errors.md, FILTERS = filters.md, LOG = CHANGELOG.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal
from urllib.parse import parse_qs, urlsplit

import orjson

from lob.venues.shape import (
    ABSENT,
    ASK,
    BID,
    AskPrice,
    AskQty,
    BidPrice,
    BidQty,
    BuyerIsMaker,
    ExchTime,
    First,
    Last,
    Levels,
    Node,
    Obj,
    Pair,
    Price,
    Qty,
    Rule,
    Shape,
    Symbol,
    Tag,
    TradeId,
)
from lob.venues.venue import Control, HttpAnswer, Limits, Metadata, Subscription, Venue, json_object

# WS, "Payload": one set of keys serves all streams. `b` and `a` are levels in a diff and prices in a bookTicker.
PAYLOAD: dict[str, Node] = {
    "e": Tag("event"),
    "E": ExchTime("ms"),
    "s": Symbol(),
    "U": First(),
    "u": Last(),
    "b": (Levels(BID, Pair()), BidPrice()),
    "a": (Levels(ASK, Pair()), AskPrice()),
    "B": BidQty(),
    "A": AskQty(),
    "t": TradeId(),
    "p": Price(),
    "q": Qty(),
    "m": BuyerIsMaker(),
}

# Streams that others of our recordings hold and that say nothing about a book. aggTrade is `trade` folded, so it
# would count everything twice.
IGNORED = (
    "aggTrade",
    "kline",
    "24hrTicker",
    "24hrMiniTicker",
    "1hTicker",
    "4hTicker",
    "1dTicker",
    "avgPrice",
    "markPriceUpdate",
    "forceOrder",
    "blockTrade",
    "referencePrice",
)


def wrapped(payload: dict[str, Node]) -> Obj:
    """WS, "General": a raw stream sends the payload, a combined one wraps it as {"stream":...,"data":{...}}."""
    return Obj({**payload, "data": Obj(payload, scope=True)}, scope=True)


def stream_names(symbol: str) -> list[str]:
    """WS: stream names have lower-case symbols. The diffs of 100 ms, every best price, every trade."""
    return [f"{symbol.lower()}@{kind}" for kind in ("depth@100ms", "bookTicker", "trade")]


def books_of(streams: Iterable[str]) -> list[Subscription]:
    """The diff books among stream names: SYMBOL@depth and SYMBOL@depth@SPEED, not the partial ones SYMBOL@depth20."""
    parts = (stream.split("@") for stream in streams)
    return [Subscription(part[0].upper()) for part in parts if len(part) > 1 and part[0] and part[1] == "depth"]


def filter_steps(body: bytes) -> list[Metadata]:
    """FILTERS: PRICE_FILTER.tickSize and LOT_SIZE.stepSize of each symbol of exchangeInfo."""
    try:
        symbols = orjson.loads(body)["symbols"]
        found = []
        for entry in symbols:
            filters = {each["filterType"]: each for each in entry["filters"]}
            found.append(
                Metadata(
                    entry["symbol"],
                    filters.get("PRICE_FILTER", {}).get("tickSize"),
                    filters.get("LOT_SIZE", {}).get("stepSize"),
                    entry.get("status", "TRADING") == "TRADING",
                )
            )
        return found
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no exchangeInfo: {error}") from None


class Exchange(Venue):
    name = "binance"
    ws_url = "wss://stream.binance.com:9443"  # WS, "General"
    rest_url = "https://api.binance.com"  # REST, "General API Information"
    hosts: ClassVar[tuple[str, ...]] = (
        "stream.binance.com",
        "data-stream.binance.vision",
        "api.binance.com",
        "api1.binance.com",
        "api2.binance.com",
        "api3.binance.com",
        "api4.binance.com",
        "api-gcp.binance.com",
        "data-api.binance.vision",
        "www.binance.com",  # REST of 2021: /api/v1/depth
        "stream.binance.us",
        "api.binance.us",
    )
    # WS, "How to manage a local order book correctly": U <= L+1 <= u
    rule: ClassVar[Literal["none", "range", "chain", "step"]] = "range"
    snapshot = "rest"
    # WS: the server pings every 20 s; ours are no substitute for the answer, they show that it lives
    ping_interval_s = 20.0
    silence_s = 65.0  # WS: three of its pings
    limits = Limits(
        streams_per_connection=1024,  # WS, "WebSocket Limits"
        messages_per_s=4.0,  # WS: 5 a second, pings and pongs among them
        rest_weight_per_min=6000,  # REST, "IP Limits"
        connect_per_min=60,  # WS: 300 in 5 minutes
    )

    shape = Shape(
        wrapped(PAYLOAD),
        (
            Rule("diff", {"event": "depthUpdate"}, has=("levels",)),
            Rule("bbo", {"event": ABSENT}, has=("symbol", "bid_price", "ask_price")),  # WS: bookTicker has no "e"
            Rule("trade", {"event": "trade"}, has=("price",)),
            Rule("ignore", {"event": IGNORED}),
        ),
    )
    # REST, "Order book"
    snapshot_shape = Shape(
        Obj({"lastUpdateId": Last(), "bids": Levels(BID, Pair()), "asks": Levels(ASK, Pair())}, scope=True),
        (Rule("snapshot", has=("last_seq", "levels")),),
    )

    depth_path = "/api/v3/depth"
    info_path = "/api/v3/exchangeInfo"
    depth_weights: tuple[tuple[int, int], ...] = ((100, 5), (500, 25), (1000, 50), (5000, 250))  # REST, "Order book"

    def connect_url(self, base: str, symbols: Sequence[str]) -> str:
        """WS: /stream without names; they follow by SUBSCRIBE."""
        return base.rstrip("/") + "/stream"

    def subscribe(self, symbols: Sequence[str], depth: int, request_id: int) -> list[str]:
        return self._request("SUBSCRIBE", symbols, request_id)

    def unsubscribe(self, symbols: Sequence[str], depth: int, request_id: int) -> list[str]:
        return self._request("UNSUBSCRIBE", symbols, request_id)

    def _request(self, method: str, symbols: Sequence[str], request_id: int) -> list[str]:
        """WS, "Live Subscribing/Unsubscribing to streams"."""
        streams = [name for symbol in symbols for name in stream_names(symbol)]
        return [orjson.dumps({"method": method, "params": streams, "id": request_id}).decode()] if streams else []

    def snapshot_request(self, base: str, symbol: str, depth: int) -> tuple[str, int]:
        """0 asks for 1000 levels: a fifth of the weight of the whole 5000, and deltas fill in what they touch."""
        limits = [limit for limit, _ in self.depth_weights]
        wanted = min(depth or 1000, limits[-1])
        weight = next(weight for limit, weight in self.depth_weights if wanted <= limit)
        return f"{base.rstrip('/')}{self.depth_path}?symbol={symbol}&limit={wanted}", weight

    def metadata_request(self, base: str, symbols: Sequence[str]) -> tuple[str, int] | None:
        """REST, "Exchange information": weight 20, whatever is asked."""
        if not symbols:
            return None
        names = orjson.dumps(list(symbols)).decode().replace('"', "%22")
        return f"{base.rstrip('/')}{self.info_path}?symbols={names}", 20

    def http_answer(self, url: str) -> HttpAnswer | None:
        parts = urlsplit(url)
        if parts.path.endswith("/depth"):
            symbol = parse_qs(parts.query).get("symbol", [""])[0]
            return HttpAnswer("snapshot", symbol) if symbol else None
        return HttpAnswer("metadata") if parts.path.endswith("/exchangeInfo") else None

    def metadata(self, body: bytes) -> list[Metadata]:
        return filter_steps(body)

    def subscriptions(self, text: str) -> list[Subscription]:
        try:
            message = orjson.loads(text)
            return books_of(message["params"]) if message["method"] == "SUBSCRIBE" else []
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            return []

    def url_subscriptions(self, url: str) -> list[Subscription]:
        """WS: /stream?streams=A/B and /ws/A/B."""
        parts = urlsplit(url)
        if parts.path.endswith("/stream"):
            return books_of(parse_qs(parts.query).get("streams", [""])[0].split("/"))
        _, found, names = parts.path.partition("/ws/")
        return books_of(names.split("/")) if found else []

    def control(self, frame: bytes) -> Control | None:
        message = json_object(frame)
        # ERR and its wrapped form, which a malformed stream name gets: {"error":{"code":2,"msg":"..."},"id":2}
        error = message.get("error", message)
        if isinstance(error, dict) and "code" in error and "msg" in error:
            return Control("error", error=f"{error['code']}: {error['msg']}")
        payload = message.get("data", message)
        if isinstance(payload, dict) and payload.get("e") == "serverShutdown":  # LOG, 2026-05
            return Control("reconnect")
        if "result" in message and "id" in message:
            return Control("ack")  # it does not say of what, and also greets symbols that do not exist
        return None
