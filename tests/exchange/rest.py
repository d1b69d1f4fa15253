"""The venues' REST answers: metadata and snapshots, with Binance's request weights.

Source: developers.binance.com, "Market Data endpoints" and "Limits"; docs.kraken.com `AssetPairs`; Coinbase `products`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from exchange.binance import Dialect, Spot
from exchange.binance_usdm import UsdM
from exchange.engine import Market
from exchange.faults import SnapshotFaults
from exchange.kraken_messages import QTY_DECIMALS
from exchange.times import MS, SECOND
from exchange.venue import Venue

MINUTE_NS = 60 * SECOND

# (highest limit, weight); more than the last limit is cut down to it
SPOT_WEIGHTS = ((100, 5), (500, 25), (1000, 50), (5000, 250))
USDM_WEIGHTS = ((50, 2), (100, 5), (500, 10), (1000, 20))
SPOT_BUDGET, USDM_BUDGET = 6000, 2400


@dataclass
class Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0


class Weights:
    """Request weight used in the current minute, for all clients together."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.used = 0
        self._minute = -1

    def take(self, weight: int, time_ns: int) -> int:
        """Use `weight`; returns 0, or the whole seconds to wait if the budget is exceeded."""
        minute = time_ns // MINUTE_NS
        if minute != self._minute:
            self._minute, self.used = minute, 0
        self.used += weight
        return 0 if self.used <= self.budget else 1 + (MINUTE_NS - time_ns % MINUTE_NS) // SECOND


def _error(status: int, code: int, message: str) -> Answer:
    return Answer(status, orjson.dumps({"code": code, "msg": message}))


class Rest:
    """Answers a path and its query; pure but for its weights and the faults that are ordered."""

    def __init__(self, venue: Venue, faults: SnapshotFaults, spot_budget: int = SPOT_BUDGET) -> None:
        self._venue = venue
        self._faults = faults
        self.weights = {"/api/v3": Weights(spot_budget), "/fapi/v1": Weights(USDM_BUDGET)}

    def answer(self, path: str, query: Mapping[str, str], time_ns: int) -> Answer | None:
        """The answer, or None if no venue has such a path."""
        if path == "/0/public/AssetPairs":
            return Answer(200, orjson.dumps({"error": [], "result": kraken_pairs(self._venue.markets)}))
        if path.endswith("/market/products"):
            products = [coinbase_product(market) for market in self._venue.markets]
            return Answer(200, orjson.dumps({"products": products, "num_products": len(products)}))
        base, _, what = path.rpartition("/")
        if base not in self.weights:
            return None
        spot = base == "/api/v3"
        answer = self._binance(Spot() if spot else UsdM(), what, query, self.weights[base], time_ns)
        if answer is not None:
            used = str(self.weights[base].used)
            answer.headers |= {"x-mbx-used-weight": used, "X-MBX-USED-WEIGHT-1M": used}
        return answer

    def _binance(
        self, dialect: Dialect, what: str, query: Mapping[str, str], weights: Weights, time_ns: int
    ) -> Answer | None:
        spot = isinstance(dialect, Spot)
        if what not in ("ping", "time", "exchangeInfo", "depth"):
            return None
        cost, limit = 1, 0
        if what == "exchangeInfo" and spot:
            cost = 20
        if what == "depth":
            steps = SPOT_WEIGHTS if spot else USDM_WEIGHTS
            text = query.get("limit", "100" if spot else "500")
            if not text.isdigit() or not int(text):
                message = "Illegal characters found in parameter 'limit'; legal range is '^[0-9]{1,20}$'."
                return _error(400, -1100, message)
            limit = min(int(text), steps[-1][0])
            cost = next(weight for most, weight in steps if limit <= most)
        if wait_s := weights.take(cost, time_ns):
            answer = _error(
                429,
                -1003,
                f"Too much request weight used; current limit is {weights.budget} request weight per 1 MINUTE. "
                "Please use WebSocket Streams for live updates to avoid polling the API.",
            )
            answer.headers["Retry-After"] = str(wait_s)
            return answer
        if what == "ping":
            return Answer(200, b"{}")
        if what == "time":
            return Answer(200, orjson.dumps({"serverTime": time_ns // MS}))
        if what == "exchangeInfo":
            return self._exchange_info(spot, query, weights, time_ns)
        return self._depth(dialect, query, limit, time_ns)

    def _depth(self, dialect: Dialect, query: Mapping[str, str], limit: int, time_ns: int) -> Answer:
        symbol = query.get("symbol", "")
        if not symbol:
            return _error(400, -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        market = self._venue.find(symbol)
        if market is None or market.instrument.symbol != symbol:
            return _error(400, -1121, "Invalid symbol.")
        fault = self._faults.take(symbol)
        if fault and fault.status:
            code, message = (-1000, "An unknown error occurred while processing the request.")
            if fault.status in (418, 429):
                code, message = (-1003, "Too many requests.")
            answer = _error(fault.status, code, message)
            if fault.retry_after_s:
                answer.headers["Retry-After"] = str(fault.retry_after_s)
            return answer
        seq, book = market.seq, market.levels
        if fault and fault.ids_old:
            seq = max(market.seq - fault.ids_old, market.journal.first_seq)
            book = market.journal.at(seq)
        text = dialect.snapshot(market, seq, book, limit, time_ns // MS)
        return Answer(200, text.encode(), delay_s=fault.delay_s if fault else 0.0)

    def _exchange_info(self, spot: bool, query: Mapping[str, str], weights: Weights, time_ns: int) -> Answer:
        markets = self._venue.markets
        wanted: list[str] | None = None
        if "symbol" in query:
            wanted = [query["symbol"]]
        elif "symbols" in query:
            try:
                wanted = [str(symbol) for symbol in orjson.loads(query["symbols"])]
            except (orjson.JSONDecodeError, TypeError):
                return _error(400, -1100, "Illegal characters found in parameter 'symbols'.")
        if wanted is not None:
            known = {market.instrument.symbol: market for market in markets}
            if not set(wanted) <= set(known):
                return _error(400, -1121, "Invalid symbol.")
            markets = [known[symbol] for symbol in wanted]
        return Answer(200, exchange_info(markets, spot, weights.budget, time_ns))


def exchange_info(markets: list[Market], spot: bool, budget: int, time_ns: int) -> bytes:
    """Binance's exchangeInfo of these markets."""
    info: dict[str, Any] = {"timezone": "UTC", "serverTime": time_ns // MS}
    if not spot:
        info["futuresType"] = "U_MARGINED"
    info["rateLimits"] = [
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": budget},
        {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 61000},
    ][: 2 if spot else 1]
    info["exchangeFilters"] = []
    info["symbols"] = [_spot_symbol(market) if spot else _usdm_symbol(market) for market in markets]
    return orjson.dumps(info)


def _spot_symbol(market: Market) -> dict[str, Any]:
    inst = market.instrument
    tick, lot = text_8(inst.tick_size), text_8(inst.lot_size)
    return {
        "symbol": inst.symbol,
        "status": "TRADING",
        "baseAsset": inst.base,
        "baseAssetPrecision": 8,
        "quoteAsset": inst.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000.00000000", "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": "9000.00000000", "stepSize": lot},
            {"filterType": "ICEBERG_PARTS", "limit": 10},
            {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True, "avgPriceMins": 5},
        ],
        "permissions": [],
        "permissionSets": [["SPOT"]],
    }


def _usdm_symbol(market: Market) -> dict[str, Any]:
    inst = market.instrument
    tick, lot = inst.tick_size, inst.lot_size
    return {
        "symbol": inst.symbol,
        "pair": inst.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": 4133404800000,
        "onboardDate": 1569398400000,
        "status": "TRADING",
        "baseAsset": inst.base,
        "quoteAsset": inst.quote,
        "marginAsset": inst.quote,
        "pricePrecision": inst.price_decimals,
        "quantityPrecision": inst.lot_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "filters": [
            {"minPrice": tick, "maxPrice": "1000000", "filterType": "PRICE_FILTER", "tickSize": tick},
            {"stepSize": lot, "filterType": "LOT_SIZE", "maxQty": "1000", "minQty": lot},
            {"notional": "5", "filterType": "MIN_NOTIONAL"},
        ],
        "orderTypes": ["LIMIT", "MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
    }


def kraken_pairs(markets: list[Market]) -> dict[str, Any]:
    """Kraken's AssetPairs: decimals and tick size by pair."""
    return {
        inst.pair.replace("/", ""): {
            "altname": inst.pair.replace("/", ""),
            "wsname": inst.pair,
            "base": inst.base,
            "quote": inst.dollar_quote,
            "pair_decimals": inst.price_decimals,
            "lot_decimals": QTY_DECIMALS,
            "tick_size": inst.tick_size,
            "status": "online",
        }
        for inst in (market.instrument for market in markets)
    }


def coinbase_product(market: Market) -> dict[str, Any]:
    """One entry of Coinbase's product list."""
    inst = market.instrument
    return {
        "product_id": inst.product,
        "base_increment": inst.lot_size,
        "quote_increment": inst.tick_size,
        "price_increment": inst.tick_size,
        "base_currency_id": inst.base,
        "quote_currency_id": inst.dollar_quote,
        "status": "online",
        "product_type": "SPOT",
    }


def text_8(step: str) -> str:
    """A step padded to 8 decimals: "0.01" -> "0.01000000"."""
    whole, _, part = step.partition(".")
    return f"{whole}.{part.ljust(8, '0')}"
