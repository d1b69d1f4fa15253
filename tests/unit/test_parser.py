"""parser.hpp: raw records -> events; instruments, scales, losses. Messages are those of the venues' documents."""

# ruff: noqa: E501  messages stand on one line, as on the wire
from __future__ import annotations

import pytest

from lob.records import (
    NO_CONNECTION,
    NO_INSTRUMENT,
    BookState,
    Flag,
    Reason,
    Record,
    RecordType,
    Scope,
    build,
)
from parse_rings import Bench

INFO = '{"symbols":[{"symbol":"BTCUSDT","status":"TRADING","filters":[{"filterType":"PRICE_FILTER","tickSize":"0.01000000"},{"filterType":"LOT_SIZE","stepSize":"0.00001000"}]}]}'
DEPTH_URL = "https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit=1000"
INFO_URL = "https://api.binance.com/api/v3/exchangeInfo"


def diff(bids: str = "", asks: str = "", symbol: str = "BTCUSDT", first: int = 157, last: int = 160) -> str:
    return f'{{"e":"depthUpdate","E":1753000000123,"s":"{symbol}","U":{first},"u":{last},"b":[{bids}],"a":[{asks}]}}'


def types(records: list[Record]) -> list[str]:
    return [record.type.name.lower() for record in records]


def scales(record: Record) -> tuple[int, int, int]:
    return int(record.header["version"]), int(record.body["price_scale"]), int(record.body["qty_scale"])


def loss(record: Record) -> tuple[int, int, int, int]:
    assert record.type is RecordType.LOST
    header, body = record.header, record.body
    return int(body["scope"]), int(body["reason"]), int(header["instrument"]), int(header["connection"])


def test_time_is_looked_at_after_each_message_that_is_large() -> None:
    bench = Bench("binance")
    levels = ",".join('["118000.01000000","0.50000000"]' for _ in range(40_000))
    for _ in range(4):
        bench.frame(diff(levels))
    assert [bench.run(0) for _ in range(4)] == [1, 1, 1, 1]


def test_the_first_levels_make_the_instrument_and_its_scale() -> None:
    bench = Bench("binance")
    bench.frame(diff('["118000.01000000","0.50000000"]', '["118000.02000000","0.00000000"]'), recv_ns=99)
    instrument, book = bench.events()
    assert (instrument.symbol, scales(instrument)) == ("BTCUSDT", (1, 2, 1))
    assert (book.bids.tolist(), book.asks.tolist()) == ([(11800001, 5)], [(11800002, 0)])
    assert (book.body["first_seq"], book.body["last_seq"], book.body["prev_seq"]) == (157, 160, 0)
    assert (book.header["exch_ns"], book.header["recv_ns"], book.header["raw_seq"]) == (1753000000123000000, 99, 1)
    assert not book.header["flags"] & Flag.CONTINUED  # an instrument's record is no event of the stream
    assert instrument.body["joins"] == 1 and instrument.body["truncates"] == 0


def test_finer_digits_raise_the_version_before_the_event() -> None:
    bench = Bench("binance")
    bench.frame(diff('["100.1","1"]'))
    bench.frame(diff('["100.10000000","1.0000"],["100.125","0"]'))
    bench.frame(diff('["100.2","0.001"]'))
    assert types(records := bench.events()) == ["instrument", "diff", "instrument", "diff", "instrument", "diff"]
    assert [scales(records[i]) for i in (0, 2, 4)] == [(1, 1, 0), (2, 3, 0), (3, 3, 3)]
    assert records[3].bids.tolist() == [(100100, 1), (100125, 0)]
    assert records[5].bids.tolist() == [(100200, 1)]
    assert [int(record.header["version"]) for record in records] == [1, 1, 2, 2, 3, 3]


def test_metadata_gives_the_scale_before_any_digits() -> None:
    bench = Bench("binance")
    bench.http(INFO_URL, INFO)
    bench.frame(diff('["118000.00000000","1.00000000"]'))
    instrument, book = bench.events()
    assert scales(instrument) == (1, 2, 5)
    assert book.bids.tolist() == [(11800000, 100000)]


def test_metadata_after_the_subscription_raises_the_version() -> None:
    bench = Bench("binance")
    bench.link("wss://stream.binance.com:9443/stream?streams=btcusdt@depth@100ms")
    bench.http(INFO_URL, INFO)
    link, first, second = bench.events()
    assert link.type is RecordType.LINK and link.url.endswith(b"100ms")
    assert (scales(first), scales(second)) == ((1, 0, 0), (2, 2, 5))


def test_metadata_that_is_none_is_told_and_harmless() -> None:
    bench = Bench("binance")
    bench.http(INFO_URL, '{"code":-1003,"msg":"Too many requests"}')
    assert bench.events() == [] and "no exchangeInfo" in bench.complaints[0]


def test_a_subscription_makes_the_instruments_in_order() -> None:
    bench = Bench("binance")
    bench.sent(bench.venue.subscribe(["ETHUSDT", "BTCUSDT"], 0, 1)[0], connection=3)
    records = bench.events()
    assert [(r.symbol, int(r.header["instrument"]), int(r.header["connection"])) for r in records] == [
        ("ETHUSDT", 0, 3),
        ("BTCUSDT", 1, 3),
    ]


def test_a_number_that_does_not_fit_is_a_loss_and_nothing_is_rounded() -> None:
    bench = Bench("binance")
    bench.frame(diff('["0.00000001","1"]'))
    bench.frame(diff('["99999999999.0","1"],["2","1"]'))
    bench.frame(diff('["1","1"]'))
    _, _, lost, book = bench.events()
    assert loss(lost)[:3] == (Scope.INSTRUMENT, Reason.OUT_OF_RANGE, 0)
    assert book.bids.tolist() == [(10**8, 1)]
    assert bench.parser.counts()["out_of_range"] == 1


def test_a_rest_snapshot_goes_to_every_instrument_of_its_symbol() -> None:
    bench = Bench("binance")
    for connection in (0, 1):
        bench.frame(diff('["1.5","1"]'), connection=connection)
    bench.http(DEPTH_URL, '{"lastUpdateId":160,"bids":[["1.5","2"]],"asks":[]}')
    records = bench.events()
    assert types(records[4:]) == ["snapshot", "snapshot"]
    assert [int(r.header["instrument"]) for r in records[4:]] == [0, 1]
    assert all(r.header["flags"] & Flag.ASKED and r.body["last_seq"] == 160 for r in records[4:])
    assert [bool(r.header["flags"] & Flag.CONTINUED) for r in records[4:]] == [False, True]


def test_a_snapshot_before_any_diff_is_taken_over_by_the_first_connection() -> None:
    bench = Bench("binance")
    bench.http(DEPTH_URL, '{"lastUpdateId":160,"bids":[["1.5","2"]],"asks":[]}')
    bench.frame(diff('["1.5","3"]'), connection=4)
    bench.frame(diff('["1.5","4"]'), connection=5)
    records = bench.events()
    assert types(records) == ["instrument", "snapshot", "instrument", "diff", "instrument", "diff"]
    told = [(int(r.header["instrument"]), int(r.header["version"]), int(r.header["connection"])) for r in records[0::2]]
    assert told == [(0, 1, NO_CONNECTION), (0, 2, 4), (1, 1, 5)]


def test_trades_and_best_prices_attach_to_a_known_symbol_only() -> None:
    bench = Bench("binance")
    trade = '{"e":"trade","E":2,"s":"BTCUSDT","t":12345,"p":"0.001","q":"100","T":1,"m":true,"M":true}'
    best = '{"u":400900217,"s":"BTCUSDT","b":"25.35190000","B":"31.21","a":"25.36520000","A":"40.66"}'
    bench.frame(trade)
    bench.frame(diff('["25.35","1"]'), connection=1)
    bench.frame(trade, connection=2)
    bench.frame(best, connection=2)
    records = bench.events()
    assert types(records) == ["instrument", "diff", "instrument", "trade", "instrument", "bbo"]
    assert records[3].body.item()[:4] == (12345, 1, 100, 1)  # the buyer was the maker: the taker sold
    assert records[5].body.item() == (400900217, 253519, 3121, 253652, 4066)
    assert bench.parser.counts()["unknown_symbol"] == 1


def test_a_bad_frame_makes_the_book_it_names_stale() -> None:
    bench = Bench("binance")
    bench.frame(diff('["1.5","1"]'))
    bench.frame(diff('["1.5","1"]')[:-3])
    bench.frame("{")
    bench.frame(diff('["1.5","1"]', symbol="NEVERSEEN")[:-3])
    records = bench.events()[2:]
    assert [loss(record) for record in records] == [
        (Scope.INSTRUMENT, Reason.BAD_MESSAGE, 0, 0),
        (Scope.CONNECTION, Reason.BAD_MESSAGE, NO_INSTRUMENT, 0),
        (Scope.CONNECTION, Reason.BAD_MESSAGE, NO_INSTRUMENT, 0),
    ]
    assert bench.parser.counts()["bad_json"] == 3


def test_a_bad_snapshot_answer_makes_its_book_stale() -> None:
    bench = Bench("binance")
    bench.frame(diff('["1.5","1"]'))
    bench.http(DEPTH_URL, '{"lastUpdateId":160,"bids":[["1.5"')
    assert loss(bench.events()[-1])[:3] == (Scope.INSTRUMENT, Reason.BAD_MESSAGE, 0)


def test_acks_are_known_and_strangers_are_counted() -> None:
    bench = Bench("binance")
    for frame in ('{"result":null,"id":1}', '{"error":{"code":2,"msg":"Invalid request"},"id":2}', '{"e":"novelty"}', "[1]"):
        bench.frame(frame)
    assert bench.events() == []
    assert bench.parser.counts()["unknown_frame"] == 2


def test_records_of_the_link_pass_through() -> None:
    bench = Bench("binance")
    bench.link("wss://x", up=0, connection=2)
    bench.raw.write(build(RecordType.LOST, {"count": 3, "scope": 1, "reason": 10}, connection=2))
    bench.raw.write(build(RecordType.ANSWER, {"request_id": 5, "kind": 1, "outcome": 1, "symbol": b"BTCUSDT"}))
    link, lost, answer = bench.events()
    assert (link.body["up"], link.header["connection"], link.header["raw_seq"]) == (0, 2, 1)
    assert (lost.body["count"], lost.body["reason"]) == (3, Reason.OVERSIZE)
    assert (answer.symbol, answer.body["request_id"]) == ("BTCUSDT", 5)


def test_a_new_owner_of_the_raw_ring_is_told_as_a_loss() -> None:
    bench = Bench("binance")
    bench.frame(diff('["1.5","1"]'))
    bench.events()
    bench.raw.take_over(1)
    bench.frame(diff('["1.5","1"]'))
    lost, book = bench.events()
    assert loss(lost) == (Scope.ALL, Reason.LOST, NO_INSTRUMENT, NO_CONNECTION) and book.type is RecordType.DIFF


def test_silence_of_the_input_is_a_status_without_an_instrument() -> None:
    bench = Bench("binance")
    assert bench.parser.status(bench.output, int(BookState.STALE), int(Reason.UPSTREAM_SILENT))
    (status,) = bench.take()
    assert (status.body["state"], status.body["reason"]) == (BookState.STALE, Reason.UPSTREAM_SILENT)
    assert (status.header["instrument"], status.header["connection"]) == (NO_INSTRUMENT, NO_CONNECTION)


# -- Coinbase: one count for all messages of a connection ----------------------------------------------------------------

LEVEL2 = '{"channel":"l2_data","client_id":"","timestamp":"2026-02-09T20:32:50.714964855Z","sequence_num":7,"events":[{"type":"update","product_id":"BTC-USD","updates":[{"side":"bid","event_time":"2026-02-09T20:32:50.114964Z","price_level":"21921.73","new_quantity":"0.06317902"},{"side":"offer","event_time":"2026-02-09T20:32:50.114964Z","price_level":"21921.74","new_quantity":"0"}]}]}'


def test_coinbase_counts_every_message_of_the_connection() -> None:
    bench = Bench("coinbase")
    bench.frame('{"channel":"subscriptions","timestamp":"2026-02-09T20:33:57.609931463Z","sequence_num":0,"events":[{"subscriptions":{"level2":["BTC-USD"]}}]}')
    bench.frame('{"channel":"heartbeats","timestamp":"2026-02-09T20:33:57Z","sequence_num":1,"events":[{"heartbeat_counter":3}]}')
    bench.frame('{"channel":"novelty","sequence_num":2}')
    bench.frame(LEVEL2)
    bench.frame('{"type":"error","message":"no"}')
    records = bench.events()
    assert types(records) == ["sequence", "instrument", "sequence", "sequence", "instrument", "diff"]
    assert [int(records[i].body["seq"]) for i in (0, 2, 3)] == [0, 1, 2]
    assert all(r.body["scope"] == Scope.CONNECTION for r in (records[0], records[5]))
    book = records[5]
    assert (book.body["first_seq"], book.body["last_seq"], book.body["prev_seq"]) == (7, 7, 6)
    assert (book.bids.tolist(), book.asks.tolist()) == ([(2192173, 6317902)], [(2192174, 0)])


def test_coinbase_trades_come_after_their_sequence() -> None:
    bench = Bench("coinbase")
    bench.frame(LEVEL2)
    bench.frame('{"channel":"market_trades","timestamp":"2026-02-09T20:33:57Z","sequence_num":8,"events":[{"type":"update","trades":[{"product_id":"BTC-USD","trade_id":"1","price":"2","size":"3","time":"2026-02-09T20:33:56Z","side":"BUY"},{"product_id":"BTC-USD","trade_id":"2","price":"2","size":"3","time":"2026-02-09T20:33:56Z","side":"SELL"}]}]}')
    sequence, first, second = bench.events()[2:]
    assert int(sequence.body["seq"]) == 8
    assert [int(r.body["taker_side"]) for r in (first, second)] == [1, 0]  # `side` is the maker's
    assert [bool(r.header["flags"] & Flag.CONTINUED) for r in (sequence, first, second)] == [False, True, True]


def test_coinbase_bad_frame_stales_the_connection_because_its_number_is_lost() -> None:
    bench = Bench("coinbase")
    bench.frame(LEVEL2)
    bench.frame(LEVEL2[:-5])
    assert loss(bench.events()[-1])[0] == Scope.CONNECTION


# -- Kraken: digits as shown, depth from the subscription ----------------------------------------------------------------

UPDATE = '{"channel":"book","type":"update","data":[{"symbol":"MATIC/USD","bids":[{"price":0.5650,"qty":1098.39475580}],"asks":[],"checksum":2114181697,"timestamp":"2026-02-06T14:15:58.123456Z"}]}'


def test_kraken_scale_is_that_of_the_wire() -> None:
    bench = Bench("kraken")
    bench.frame(UPDATE)
    instrument, book = bench.events()
    assert scales(instrument) == (1, 4, 8)
    assert instrument.body["checksum_rule"] == 1 and instrument.body["truncates"] == 1
    assert book.bids.tolist() == [(5650, 109839475580)]
    assert (book.body["has_checksum"], book.body["checksum"]) == (1, 2114181697)


def test_kraken_depth_comes_from_the_message_sent_and_from_the_ack() -> None:
    bench = Bench("kraken")
    bench.sent('{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"],"depth":100,"snapshot":true},"req_id":7}')
    ack = '{"method":"subscribe","result":{"channel":"book","depth":%d,"snapshot":true,"symbol":"%s"},"success":true,"time_in":"x","time_out":"y","req_id":7}'
    bench.frame(ack % (100, "BTC/USD"))
    bench.frame(ack % (25, "BTC/USD"))
    bench.frame(ack % (10, "ETH/USD"))
    records = bench.events()
    assert types(records) == ["instrument"] * 3
    told = [(r.symbol, int(r.header["version"]), int(r.body["depth"])) for r in records]
    assert told == [("BTC/USD", 1, 100), ("BTC/USD", 2, 25), ("ETH/USD", 1, 10)]


def test_kraken_bare_numbers_with_zeros_or_exponents_are_exact() -> None:
    bench = Bench("kraken")
    bench.frame(UPDATE.replace("0.5650", "1.0e-3").replace("1098.39475580", "0.00000000"))
    instrument, book = bench.events()
    assert scales(instrument) == (1, 4, 8) and book.bids.tolist() == [(10, 0)]


# -- the ring ------------------------------------------------------------------------------------------------------------


def test_an_event_larger_than_the_ring_is_a_loss_with_its_reason() -> None:
    bench = Bench("binance", event_bytes=4096)
    bench.frame(diff(",".join(f'["{n}","1"]' for n in range(1, 100))))
    bench.frame(diff('["1","1"]'))
    records = bench.events()
    assert loss(records[1])[:3] == (Scope.INSTRUMENT, Reason.OVERSIZE, 0)
    assert records[-1].type is RecordType.DIFF


def test_a_message_with_more_events_than_the_ring_holds_is_a_loss_of_the_connection() -> None:
    bench = Bench("kraken", event_bytes=4096)
    bench.frame(UPDATE)
    trade = '{"symbol":"MATIC/USD","side":"buy","qty":1,"price":2,"ord_type":"market","trade_id":3,"timestamp":"2026-02-06T14:15:58Z"}'
    bench.frame('{"channel":"trade","type":"update","data":[' + ",".join([trade] * 100) + "]}")
    bench.frame(UPDATE)
    records = bench.events()
    assert types(records) == ["instrument", "diff", "lost", "diff"]
    assert loss(records[2])[:2] == (Scope.CONNECTION, Reason.OVERSIZE)


def test_a_full_ring_changes_nothing_and_the_record_is_done_again() -> None:
    bench = Bench("binance", event_bytes=4096)
    for n in range(60):
        bench.frame(diff(f'["1.{n:02}","1"]', symbol=f"S{n % 7}"))
    assert bench.run(budget_ms=1) < 60  # nobody reads: it is full
    before = bench.parser.instruments()
    assert bench.run(budget_ms=1) == 0
    assert bench.parser.instruments() == before
    records = bench.take()
    while not bench.input.drained:
        records += bench.events()
    assert types(records).count("diff") == 60
    assert [int(r.header["ring_seq"]) for r in records] == list(range(1, len(records) + 1))
    assert bench.parser.counts()["retries"] > 0


def test_a_successor_announces_what_its_predecessor_could_not() -> None:
    bench = Bench("binance")
    bench.frame(diff('["1.5","1"]'))
    bench.events()
    # The manifest was written, the commit was not: raw record 2 made instrument 1.
    bench.manifest.append({**bench.manifest[0], "id": 1, "symbol": "ETHUSDT", "raw_seq": 2})
    bench.restart()
    bench.frame(diff('["1.5","1"]', symbol="ETHUSDT"))
    instrument, book = bench.events()
    assert (instrument.symbol, int(instrument.header["instrument"])) == ("ETHUSDT", 1)
    assert int(book.header["instrument"]) == 1


def test_a_message_without_events_counts_as_done() -> None:
    bench = Bench("binance")
    bench.frame('{"result":null,"id":1}')
    bench.run()
    assert bench.output.raw_seq == 1


@pytest.mark.parametrize("size", [0, 40, 79])
def test_a_raw_record_that_lies_about_its_length_stops_the_stage(size: int) -> None:
    from lob._native import CorruptRing

    bench = Bench("binance")
    bench.raw.write(build(RecordType.RAW_FRAME, text=b"x" * 40)[:80] + (1000).to_bytes(4, "little") + b"\xff\xff\0\0")
    with pytest.raises(CorruptRing):
        bench.run()
