"""Binance USD-M futures.

Sources: developers.binance.com, "USDS-Margined Futures": STREAMS = "WebSocket Market Streams", BOOK = "How to manage a
local order book correctly", REST = "Order Book", INFO = "Exchange Information", LOG = its change log.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from lob.venues.binance import IGNORED, PAYLOAD, wrapped
from lob.venues.binance import Exchange as Spot
from lob.venues.shape import ASK, BID, ExchTime, Last, Levels, Node, Obj, Pair, Prev, Rule, Shape
from lob.venues.venue import Limits

# As spot, and `pu`: the `u` of the message before (BOOK). `E` is the event time, `T` the matching engine's (STREAMS).
FUTURES_PAYLOAD: dict[str, Node] = {**PAYLOAD, "pu": Prev()}


class Exchange(Spot):
    name = "binance-usdm"
    # LOG, 2026-03: streams are split by kind; depth, bookTicker and trades' best prices are under /public.
    ws_url = "wss://fstream.binance.com/public"
    rest_url = "https://fapi.binance.com"
    hosts = ("fstream.binance.com", "fstream-mm.binance.com", "fapi.binance.com")
    rule = "chain"  # BOOK: pu == u of the message before; U is not u+1, for ids count more than this book's events
    ping_interval_s = 30.0
    silence_s = 400.0  # STREAMS: a ping every 3 minutes; two of them
    limits = Limits(
        streams_per_connection=1024,  # STREAMS
        messages_per_s=8.0,  # STREAMS: 10 a second, pings and pongs among them
        rest_weight_per_min=2400,  # INFO, rateLimits
        connect_per_min=60,
    )

    shape = Shape(
        wrapped(FUTURES_PAYLOAD),
        (
            Rule("diff", {"event": "depthUpdate"}, has=("levels",)),
            Rule("bbo", {"event": "bookTicker"}, has=("bid_price", "ask_price")),
            Rule("trade", {"event": "trade"}, has=("price",)),
            Rule("ignore", {"event": IGNORED}),
        ),
    )
    # REST: as spot, with the time
    snapshot_shape = Shape(
        Obj(
            {"lastUpdateId": Last(), "E": ExchTime("ms"), "bids": Levels(BID, Pair()), "asks": Levels(ASK, Pair())},
            scope=True,
        ),
        (Rule("snapshot", has=("last_seq", "levels")),),
    )

    depth_path = "/fapi/v1/depth"
    info_path = "/fapi/v1/exchangeInfo"
    # REST: other limits than these are refused
    depth_weights = ((5, 2), (10, 2), (20, 2), (50, 2), (100, 5), (500, 10), (1000, 20))

    def snapshot_request(self, base: str, symbol: str, depth: int) -> tuple[str, int]:
        wanted = min(depth or 1000, 1000)
        limit, weight = next(pair for pair in self.depth_weights if wanted <= pair[0])
        return f"{base.rstrip('/')}{self.depth_path}?symbol={symbol}&limit={limit}", weight

    def metadata_request(self, base: str, symbols: Sequence[str]) -> tuple[str, int] | None:
        """INFO: weight 1; it takes no symbols and gives all."""
        return (f"{base.rstrip('/')}{self.info_path}", 1) if symbols else None

    def recognises(self, url: str) -> bool:
        """Not dapi and dstream: COIN-M has other contracts, though the same messages."""
        return super().recognises(url) and "/dapi/" not in urlsplit(url).path
