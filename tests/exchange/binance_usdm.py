"""USD-M futures: ids with holes and `pu`, quantities not padded, `E` and `T` on everything.

Source: developers.binance.com, "USDS-Margined Futures, How to manage a local order book correctly". The futures ids
count more than this book's events, so U is not the previous u + 1; only pu == previous u ties two diffs together.
"""

from __future__ import annotations

from exchange.binance import Changes, both_sides, buyer_is_maker, nearest
from exchange.engine import Best, Market, Trade
from exchange.instrument import decimal_text

STRIDE = 41
JITTER = 29


def futures_id(seq: int) -> int:
    """The futures id that ends event `seq`: growing, at least STRIDE - JITTER apart."""
    return seq * STRIDE + seq * 2_654_435_761 % JITTER


def futures_first_id(seq: int) -> int:
    """The futures id that begins event `seq`: always more than one after the end of the event before."""
    return futures_id(seq - 1) + 2 + seq % 5


def seq_of(futures: int) -> int:
    """The last event that a book at this futures id contains."""
    seq = futures // STRIDE
    return seq if futures_id(seq) <= futures else seq - 1


class UsdM:
    venue = "binance-usdm"
    default_interval_ms = 250

    def depth_update(self, market: Market, first: int, last: int, prev: int, changes: Changes, time_ms: int) -> str:
        bids, asks = both_sides(market.instrument, changes, decimal_text)
        return (
            f'{{"e":"depthUpdate","E":{time_ms},"T":{time_ms - 1},"s":"{market.instrument.symbol}",'
            f'"U":{futures_first_id(first)},"u":{futures_id(last)},"pu":{futures_id(prev)},"b":[{bids}],"a":[{asks}]}}'
        )

    def partial(self, market: Market, depth: int, time_ms: int) -> str:
        changes = nearest(market.levels, depth)
        return self.depth_update(market, market.seq, market.seq, market.seq - 1, changes, time_ms)

    def book_ticker(self, market: Market, seq: int, best: Best, time_ms: int) -> str:
        price, lot = market.instrument.price_decimals, market.instrument.lot_decimals
        return (
            f'{{"e":"bookTicker","u":{futures_id(seq)},"s":"{market.instrument.symbol}",'
            f'"b":"{decimal_text(best.bid_ticks, price)}","B":"{decimal_text(best.bid_lots, lot)}",'
            f'"a":"{decimal_text(best.ask_ticks, price)}","A":"{decimal_text(best.ask_lots, lot)}",'
            f'"T":{time_ms - 1},"E":{time_ms}}}'
        )

    def trade(self, market: Market, trade: Trade, time_ms: int) -> str:
        inst = market.instrument
        return (
            f'{{"e":"trade","E":{time_ms},"T":{time_ms - 1},"s":"{inst.symbol}","t":{trade.trade_id},'
            f'"p":"{decimal_text(trade.price_ticks, inst.price_decimals)}",'
            f'"q":"{decimal_text(trade.qty_lots, inst.lot_decimals)}","X":"MARKET","m":{buyer_is_maker(trade)}}}'
        )

    def agg_trade(self, market: Market, first: Trade, last: Trade, qty_lots: int, time_ms: int) -> str:
        inst = market.instrument
        return (
            f'{{"e":"aggTrade","E":{time_ms},"a":{first.trade_id},"s":"{inst.symbol}",'
            f'"p":"{decimal_text(first.price_ticks, inst.price_decimals)}",'
            f'"q":"{decimal_text(qty_lots, inst.lot_decimals)}","f":{first.trade_id},"l":{last.trade_id},'
            f'"T":{time_ms - 1},"m":{buyer_is_maker(first)}}}'
        )

    def snapshot(self, market: Market, seq: int, book: dict[int, int], limit: int, time_ms: int) -> str:
        bids, asks = both_sides(market.instrument, nearest(book, limit), decimal_text)
        return f'{{"lastUpdateId":{futures_id(seq)},"E":{time_ms},"T":{time_ms - 1},"bids":[{bids}],"asks":[{asks}]}}'
