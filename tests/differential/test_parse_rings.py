"""The whole parser between two rings == the oracle, over the real recordings; also when a ring is small or it dies."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

import pytest

from differential import oracle
from differential.test_parse_recordings import lines
from lob.records import Flag, Record, RecordType, Scope
from parse_rings import Bench

KINDS = {"snapshot": RecordType.SNAPSHOT, "diff": RecordType.DIFF, "trade": RecordType.TRADE, "bbo": RecordType.BBO}
BOOKS = (RecordType.SNAPSHOT, RecordType.DIFF)
NEUTRAL = ("stage_ns", "epoch", "ring_seq", "origin_ns")

RECORDINGS = [
    ("binance", "binance-spot-1"),
    ("binance", "binance-spot-2"),
    ("binance", "binanceus-spot-4"),
    ("binance-usdm", "binance-usdm-2"),
    ("coinbase", "coinbase-advanced-1-head"),
    ("kraken", "kraken-v2-2"),
    ("kraken", "kraken-v2-3"),
]


def feed(bench: Bench, line: dict, connections: dict[str, int]) -> bool:
    """Put a line of a recording into the raw ring as lob-connect would; False: it makes no record."""
    connection = connections.setdefault(line["conn"], len(connections))
    raw = line["raw"].encode()
    recv_ns = line["ts_ns"] or 0
    if line["dir"] == "in":
        bench.frame(raw, connection, recv_ns)
    elif line["dir"] == "http":
        bench.http(line["url"], raw, connection, recv_ns)
    elif line.get("event") == "connect":
        bench.link(line["url"], connection=connection)
    elif raw:
        bench.sent(line["raw"], connection)
    else:
        return False
    return True


def replay(venue: str, name: str, **sizes: int) -> tuple[Bench, list[dict], list[Record]]:
    """All of a recording through one parser: (bench, the lines that made records, events)."""
    bench = Bench(venue, **sizes)
    connections: dict[str, int] = {}
    fed, events = [], []
    for line in lines(name):
        if feed(bench, line, connections):
            fed.append(line)
        if len(fed) % 5000 == 0:
            events += bench.events()
    return bench, fed, events + bench.events()


def value(mantissa: int, scale: int) -> Decimal:
    return oracle.EXACT.scaleb(Decimal(int(mantissa)), -int(scale))


@pytest.mark.parametrize(("venue", "name"), RECORDINGS)
def test_events_in_the_ring_equal_the_oracles(venue: str, name: str) -> None:
    bench, fed, events = replay(venue, name)
    counts = bench.parser.counts()
    assert sum(counts[kind] for kind in counts if kind.startswith("bad_") or kind == "out_of_range") == 0
    by_raw = defaultdict(list)
    for event in events:
        by_raw[int(event.header["raw_seq"])].append(event)
    scales: dict[int, tuple[int, int, int, str]] = {}
    last_ring_seq = 0
    for raw_seq, line in enumerate(fed, 1):
        raw = line["raw"].encode()
        got = []
        fresh = True
        for event in by_raw.pop(raw_seq, []):
            header = event.header
            assert int(header["ring_seq"]) == last_ring_seq + 1
            last_ring_seq += 1
            if event.type is RecordType.INSTRUMENT:
                body = event.body
                before = scales.get(int(header["instrument"]))
                assert int(header["version"]) == (1 if before is None else before[0] + 1)
                assert before is not None or int(header["instrument"]) == len(scales)
                scales[int(header["instrument"])] = (
                    int(header["version"]),
                    int(body["price_scale"]),
                    int(body["qty_scale"]),
                    event.symbol,
                )
                continue
            if event.type is RecordType.LINK:
                continue
            assert bool(header["flags"] & Flag.CONTINUED) is not fresh
            fresh = False
            assert header["recv_ns"] == (line["ts_ns"] or 0) and header["stage_ns"][0] > 0 and header["stage_ns"][1] > 0
            got.append(event)
        if line["dir"] == "in":
            status, plain = oracle.decode(bench.venue.shape, raw, bench.venue.rule)
            assert status != "bad"
        elif line["dir"] == "http" and (answer := bench.venue.http_answer(line["url"])) and answer.kind == "snapshot":
            _, plain = oracle.decode(bench.venue.snapshot_shape, raw, bench.venue.rule, answer.symbol)
        else:
            plain = []
        symbols = {entry[3] for entry in scales.values()}
        want = [each for each in plain if each["symbol"] in symbols]
        bookless = line["dir"] == "in" and not any(each["kind"] in ("snapshot", "diff") for each in plain)
        if bookless and bench.venue.scope == "connection":
            sequence = got.pop(0)
            assert sequence.type is RecordType.SEQUENCE
            assert f'"sequence_num":{int(sequence.body["seq"])},' in line["raw"]
        assert [event.type for event in got] == [KINDS[each["kind"]] for each in want]
        for event, each in zip(got, want, strict=True):
            compare(event, each, scales[int(event.header["instrument"])], asked=line["dir"] == "http")
    assert not by_raw
    if bench.venue.checksum != "none":  # the scale is what the wire shows, zeros included
        decimals = [
            (p.decimals, q.decimals)
            for line in fed
            if line["dir"] == "in"
            for each in oracle.decode(bench.venue.shape, line["raw"].encode(), bench.venue.rule)[1]
            if "bids" in each
            for p, q in each["bids"] + each["asks"]
        ]
        shown = (max(p for p, _ in decimals), max(q for _, q in decimals))
        assert [(entry[1], entry[2]) for entry in scales.values()] == [shown]


def compare(event: Record, plain: dict, instrument: tuple[int, int, int, str], *, asked: bool) -> None:
    version, price_scale, qty_scale, symbol = instrument
    header, body = event.header, event.body
    assert (int(header["version"]), symbol) == (version, plain["symbol"])
    assert int(header["exch_ns"]) == plain["exch_ns"]
    assert bool(header["flags"] & Flag.ASKED) is asked
    if event.type in BOOKS:
        for name in ("first_seq", "last_seq", "prev_seq"):
            assert int(body[name]) == plain[name]
        assert (int(body["checksum"]) if body["has_checksum"] else None) == plain["checksum"]
        for levels, expected in ((event.bids, plain["bids"]), (event.asks, plain["asks"])):
            assert [(value(p, price_scale), value(q, qty_scale)) for p, q in levels.tolist()] == [
                (p.value, q.value) for p, q in expected
            ]
        return
    for name in body.dtype.names:
        if name == "pad":
            continue
        if name.endswith("price"):
            assert value(body[name], price_scale) == plain[name].value
        elif name.endswith("qty"):
            assert value(body[name], qty_scale) == plain[name].value
        else:
            assert int(body[name]) == plain[name]


def essence(record: Record) -> tuple:
    """What must be the same in two runs: all but stamps and the ring's own numbers."""
    header = tuple(record.header[name].item() for name in record.header.dtype.names if name not in NEUTRAL)
    return record.type, header, record.body.tobytes(), record.bids.tobytes(), record.asks.tobytes(), record.url


@pytest.mark.parametrize(("venue", "name"), [("binance", "binance-spot-2"), ("kraken", "kraken-v2-2")])
def test_a_small_ring_gives_the_same_events(venue: str, name: str) -> None:
    _, _, events = replay(venue, name)
    small, _, again = replay(venue, name, event_bytes=256 << 10 if venue == "binance" else 16 << 10)
    assert [essence(each) for each in again] == [essence(each) for each in events]
    assert small.parser.counts()["retries"] > 0


@pytest.mark.parametrize(("venue", "name"), [("binance", "binance-spot-1"), ("coinbase", "coinbase-advanced-1-head")])
def test_a_parser_that_dies_again_and_again_loses_and_repeats_nothing(venue: str, name: str) -> None:
    _, _, events = replay(venue, name)
    bench = Bench(venue, event_bytes=8 << 20)
    connections: dict[str, int] = {}
    again: list[Record] = []
    for number, line in enumerate(lines(name)):
        feed(bench, line, connections)
        # Steps of symbols that are no instruments yet die with the parser; its successor finds scales by the digits.
        if number % 7 == 0 and number > 10:
            bench.run(budget_ms=0)  # some of it, then it is gone
            bench.restart()
        if number % 20 == 0:
            again += bench.events()
    again += bench.events()
    assert [essence(each) for each in again] == [essence(each) for each in events]


def test_a_hole_in_the_raw_ring_is_told_before_the_next_event() -> None:
    bench, _, _ = replay("binance", "binance-spot-1")
    frames = [line["raw"] for line in lines("binance-spot-1") if "depthUpdate" in line["raw"]]
    bench.raw.drop()
    bench.raw.drop()
    bench.frame(frames[0], connection=1)
    lost, diff = bench.events()
    assert (lost.type, int(lost.body["count"]), int(lost.body["scope"])) == (RecordType.LOST, 2, Scope.ALL)
    assert diff.type is RecordType.DIFF
