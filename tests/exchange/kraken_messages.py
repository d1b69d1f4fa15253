"""The text of Kraken v2 messages, and its checksum rule.

Source: docs.kraken.com/api, "WebSocket v2", channel book, and the guide "Book checksum v2". Prices and quantities are
JSON numbers with all decimals of the pair (0.50000000); the checksum is over exactly that text.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

import orjson

from exchange.engine import Market, Side, Trade
from exchange.instrument import Instrument, decimal_text
from exchange.times import rfc3339

QTY_DECIMALS = 8
CHECKSUM_LEVELS = 10

Levels = Iterable[tuple[int, int]]


def _qty(inst: Instrument, lots: int) -> int:
    """Lots as whole units of 10**-8, the quantity step that Kraken prints."""
    return lots * int(10 ** (QTY_DECIMALS - inst.lot_decimals))


def levels_text(inst: Instrument, levels: Levels) -> str:
    """`{"price":45285.2,"qty":0.00100000},...` of (price_ticks, qty_lots)."""
    price = inst.price_decimals
    return ",".join(
        [
            f'{{"price":{decimal_text(ticks, price)},"qty":{decimal_text(_qty(inst, lots), QTY_DECIMALS)}}}'
            for ticks, lots in levels
        ]
    )


def checksum(inst: Instrument, bids: Levels, asks: Levels) -> int:
    """CRC-32 of the best ten asks, then the best ten bids: price digits, then quantity digits, no leading zeros.

    The digits of a number without its point and leading zeros are the number of its smallest steps.
    """
    digits = [f"{ticks}{_qty(inst, lots)}" for ticks, lots in [*asks, *bids]]
    return crc32("".join(digits).encode())


def book_checksum(market: Market) -> int:
    top = CHECKSUM_LEVELS
    return checksum(market.instrument, market.side(Side.BID, top), market.side(Side.ASK, top))


def book(kind: str, inst: Instrument, bids: Levels, asks: Levels, crc: int, time_ns: int) -> str:
    """A book message; `kind` is "snapshot" or "update"."""
    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{inst.pair}","bids":[{levels_text(inst, bids)}],'
        f'"asks":[{levels_text(inst, asks)}],"checksum":{crc},"timestamp":"{rfc3339(time_ns)}"}}]}}'
    )


def trades(kind: str, inst: Instrument, fills: Iterable[tuple[int, Trade]]) -> str:
    """A trade message of (time_ns, trade); `side` is the taker's."""
    data = ",".join(
        f'{{"symbol":"{inst.pair}","side":"{"buy" if fill.taker is Side.BID else "sell"}",'
        f'"price":{decimal_text(fill.price_ticks, inst.price_decimals)},'
        f'"qty":{decimal_text(_qty(inst, fill.qty_lots), QTY_DECIMALS)},"ord_type":"market",'
        f'"trade_id":{fill.trade_id},"timestamp":"{rfc3339(time_ns)}"}}'
        for time_ns, fill in fills
    )
    return f'{{"channel":"trade","type":"{kind}","data":[{data}]}}'


def status(connection_id: int) -> str:
    return (
        '{"channel":"status","type":"update","data":[{"version":"2.0.10","system":"online","api_version":"v2",'
        f'"connection_id":{connection_id}}}]}}'
    )


HEARTBEAT = '{"channel":"heartbeat"}'


def instruments(markets: Iterable[Market]) -> str:
    """The snapshot of the channel `instrument`: assets and pairs with their steps."""
    pairs, assets = [], {}
    for inst in (market.instrument for market in markets):
        for asset in (inst.base, inst.dollar_quote):
            assets[asset] = (
                f'{{"id":"{asset}","status":"enabled","precision":10,"precision_display":5,"borrowable":false,'
                f'"collateral_value":0.0,"margin_rate":0.0}}'
            )
        pairs.append(
            f'{{"symbol":"{inst.pair}","base":"{inst.base}","quote":"{inst.dollar_quote}","status":"online",'
            f'"qty_precision":{QTY_DECIMALS},"qty_increment":0.00000001,"price_precision":{inst.price_decimals},'
            f'"cost_precision":5,"marginable":false,"has_index":true,"cost_min":0.50,'
            f'"price_increment":{inst.tick_size},"qty_min":{decimal_text(_qty(inst, 1), QTY_DECIMALS)}}}'
        )
    return (
        f'{{"channel":"instrument","type":"snapshot","data":{{"assets":[{",".join(assets.values())}],'
        f'"pairs":[{",".join(pairs)}]}}}}'
    )


def answer(
    method: str,
    time_ns: int,
    req_id: object,
    *,
    result: dict[str, object] | None = None,
    error: str = "",
    symbol: str = "",
) -> str:
    """An ack (with `result`) or a refusal (with `error`), in the venue's key order."""
    message: dict[str, object] = {}
    if error:
        message["error"] = error
    message["method"] = method
    if result is not None:
        message["result"] = result
    if method != "pong":
        message["success"] = not error
    if symbol:
        message["symbol"] = symbol
    message["time_in"] = rfc3339(time_ns)
    message["time_out"] = rfc3339(time_ns + 40_000)
    if req_id is not None:
        message["req_id"] = req_id
    return orjson.dumps(message).decode()
