"""The matching engine, its journal and its order flow."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.engine import Market, Side
from exchange.flow import OrderFlow
from exchange.instrument import Instrument, UnknownQuote, decimal_text, stripped_text, units_of
from exchange.journal import SEGMENT_EVENTS, SeqNotKept, side_of
from exchange.tops import Tops

BTC = Instrument.of("BTCUSDT")

orders = st.lists(
    st.tuples(
        st.sampled_from(["limit", "limit", "limit", "cancel", "reduce", "market"]),
        st.sampled_from(list(Side)),
        st.integers(1, 30),
        st.integers(1, 50),
    ),
    max_size=120,
)


def play(market: Market, actions: list[tuple[str, Side, int, int]]) -> list[dict[int, int]]:
    """Do these; returns the book after each id."""
    books = [dict(market.levels)]
    for verb, side, price, lots in actions:
        seq = market.seq
        if verb == "limit":
            market.limit(side, price, lots, 0)
        elif verb == "market":
            market.market(side, lots, 0)
        elif market.orders:
            order_id = list(market.orders)[price % len(market.orders)]
            left = market.queues[market.orders[order_id]][order_id]
            if verb == "cancel":
                market.cancel(order_id, 0)
            elif left > 1:
                market.reduce(order_id, 1 + lots % (left - 1), 0)
        market.check()
        if market.seq > seq:
            assert market.seq == seq + 1
            books.append(dict(market.levels))
    return books


@given(orders)
def test_book_is_whole_after_every_order_and_journal_knows_every_id(actions):
    market = Market(BTC, first_seq=100)
    books = play(market, actions)
    for seq, book in enumerate(books, 100):
        assert market.journal.at(seq) == book


@given(orders)
def test_changes_alone_rebuild_the_book(actions):
    market, book = Market(BTC), {}
    emit, events = market._emit, []
    market._emit = lambda *args: events.append(emit(*args)) or events[-1]  # type: ignore[method-assign]
    play(market, actions)
    for event in events:
        assert len({key for key, _ in event.changes}) == len(event.changes), "each price once"
        for key, lots in event.changes:
            book[key] = lots
            if not lots:
                del book[key]
    assert book == market.levels


@given(orders)
def test_top_of_any_id_is_found_by_content(actions):
    market = Market(BTC)
    tops = Tops(market.journal)
    books = play(market, [("limit", side, 20 * side + 1 + i, 3) for i in range(9) for side in Side] + actions)
    for seq, book in enumerate(books):
        bids, asks = side_of(book, True, 5), side_of(book, False, 5)
        if len(bids) == len(asks) == 5:
            found = tops.find(bids, asks)
            assert found is not None and found >= seq
            at = market.journal.at(found)
            assert (side_of(at, True, 5), side_of(at, False, 5)) == (bids, asks)


def test_older_order_at_the_same_price_trades_first():
    market = Market(BTC)
    first, _ = market.limit(Side.ASK, 100, 5, 0)
    second, _ = market.limit(Side.ASK, 100, 5, 0)
    better, _ = market.limit(Side.ASK, 99, 1, 0)
    market.reduce(first, 1, 0)
    order_id, event = market.limit(Side.BID, 100, 7, 0)
    assert order_id == 0
    assert [(t.maker, t.price_ticks, t.qty_lots) for t in event.trades] == [
        (better, 99, 1),
        (first, 100, 4),
        (second, 100, 2),
    ]
    assert event.changes == ((99, 0), (100, 3))
    assert event.best is not None and event.best.ask_lots == 3


def test_rest_of_a_crossing_limit_order_becomes_the_best_level():
    market = Market(BTC)
    market.limit(Side.BID, 100, 5, 0)
    order_id, event = market.limit(Side.ASK, 98, 8, 0)
    assert market.orders == {order_id: 98}
    assert event.changes == ((-100, 0), (98, 3))
    assert market.best() == (0, 0, 98, 3)


@pytest.mark.parametrize("symbol", ["BTCUSDT", "DOGEUSDT", "ETHBTC"])
def test_flow_keeps_a_bounded_whole_book_that_trades(symbol):
    flow = OrderFlow(Instrument.of(symbol), seed=3, levels=200)
    sizes, trades, moved = [], 0, 0
    for i in range(20_000):
        event = flow.step(i)
        assert event.changes
        trades += len(event.trades)
        moved += event.best is not None
        if i % 500 == 0:
            flow.market.check()
            sizes += [len(keys) for keys in flow.market.keys]
    assert min(sizes) > 120 and max(sizes) < 260
    assert trades > 400 and moved > 400
    assert flow.market.journal.book == flow.market.levels


def test_about_half_of_the_level_changes_are_removals():
    flow = OrderFlow(BTC, seed=3)
    lots = [lots for i in range(20_000) for _, lots in flow.step(i).changes]
    assert 0.40 < lots.count(0) / len(lots) < 0.52


def test_one_seed_gives_one_sequence_of_events_whatever_the_time():
    one, two, other = (OrderFlow(BTC, seed, levels=50) for seed in (1, 1, 2))
    events = [[flow.step(t * factor)._replace(time_ns=0) for t in range(300)] for flow, factor in ((one, 1), (two, 7))]
    assert events[0] == events[1]
    assert [other.step(t)._replace(time_ns=0) for t in range(300)] != events[0]


def test_journal_forgets_what_is_too_old_and_says_so():
    flow = OrderFlow(BTC, seed=5, levels=40, keep_events=2 * SEGMENT_EVENTS)
    first, books = flow.market.seq, {}
    for i in range(5 * SEGMENT_EVENTS):
        flow.step(i)
        if i % 1000 == 0:
            books[flow.market.seq] = dict(flow.market.levels)
    journal = flow.market.journal
    assert first < journal.first_seq <= flow.market.seq - 2 * SEGMENT_EVENTS
    for seq, book in books.items():
        if seq >= journal.first_seq:
            assert journal.at(seq) == book
    with pytest.raises(SeqNotKept, match=f"id {first} is not kept; the journal has {journal.first_seq} to"):
        journal.at(first)


@settings(max_examples=50)
@given(st.integers(0, 10**15), st.integers(0, 9))
def test_decimal_text_and_back_is_exact(units, decimals):
    assert units_of(decimal_text(units, decimals), decimals) == units
    assert units_of(stripped_text(units, decimals), decimals) == units


def test_finer_digits_than_the_step_are_refused():
    with pytest.raises(ValueError, match="more than 1 decimals"):
        units_of("97150.55", 1)


def test_symbol_names_at_each_venue():
    assert (BTC.stream, BTC.pair, BTC.product, BTC.tick_size) == ("btcusdt", "BTC/USD", "BTC-USD", "0.01")
    with pytest.raises(UnknownQuote):
        Instrument.of("BTCXYZ")
