"""Mutated messages: the native decoder never crashes, and takes exactly what the plain oracle takes.

Self-contained seeds, so that it also runs under the sanitizers where no recordings are. With recordings, they seed too.
"""

# ruff: noqa: E501  messages stand on one line, as on the wire
from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lob._native  # noqa: F401
from differential import oracle
from lob import venues
from lob.records import SequenceRule
from lob_parse._native import Decoder
from parse_rings import Bench
from pipeline import data_folder

SEEDS = {
    "binance": [
        '{"e":"depthUpdate","E":1753000000123,"s":"BTCUSDT","U":157,"u":160,"b":[["118000.01000000","0.50000000"],["1","2"]],"a":[["118000.02000000","0.00000000"]]}',
        '{"stream":"btcusdt@bookTicker","data":{"u":400900217,"s":"BNBUSDT","b":"25.35190000","B":"31.21","a":"25.36520000","A":"40.66"}}',
        '{"stream":"btcusdt@trade","data":{"e":"trade","E":1,"s":"BTCUSDT","t":12345,"p":"0.001","q":"100","T":2,"m":true,"M":true}}',
        '{"e":"kline","E":1,"s":"X","k":{"t":1,"o":"0.1","x":false,"y":[null,-1.5e3,"\\u0041\\n"]}}',
    ],
    "binance-usdm": [
        '{"e":"depthUpdate","E":1753000000123,"T":1753000000119,"s":"BTCUSDT","U":101,"u":120,"pu":97,"b":[["118000.10","3.2"]],"a":[["118000.20","0"]]}'
    ],
    "coinbase": [
        '{"channel":"l2_data","client_id":"","timestamp":"2026-02-09T20:32:50.714964855Z","sequence_num":7,"events":[{"type":"update","product_id":"BTC-USD","updates":[{"side":"bid","event_time":"2026-02-09T20:32:50.114964Z","price_level":"21921.73","new_quantity":"0.06317902"},{"side":"offer","event_time":"x","price_level":"21921.74","new_quantity":"0"}]}]}',
        '{"channel":"market_trades","timestamp":"2026-02-09T20:33:57Z","sequence_num":8,"events":[{"type":"update","trades":[{"product_id":"BTC-USD","trade_id":"1","price":"2","size":"3","time":"2026-02-09T20:33:56Z","side":"BUY"}]}]}',
    ],
    "kraken": [
        '{"channel":"book","type":"update","data":[{"symbol":"MATIC/USD","bids":[{"price":0.5657,"qty":1098.39475580}],"asks":[{"price":1e-7,"qty":0}],"checksum":2114181697,"timestamp":"2026-02-06T14:15:58.123456Z"}]}',
        '{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","qty":0.01,"price":4136.4,"ord_type":"market","trade_id":4665906,"timestamp":"2026-02-06T14:15:58.123456Z"}]}',
        '{"method":"subscribe","result":{"channel":"book","depth":25,"snapshot":true,"symbol":"BTC/USD"},"success":true}',
    ],
}  # fmt: skip
RECORDED = {"binance": "binance-spot-1", "binance-usdm": "binance-usdm-1", "coinbase": "coinbase-advanced-1-head", "kraken": "kraken-v2-2"}  # fmt: skip
BYTES = [bytes([c]) for c in b'{}[]",:\\ \n0123456789.-+eEtfnu\x00\x1f\x7f\x80\xc3\xed\xf0\xff']
WORDS = [*BYTES, b"null", b"true", b"NaN", b"1e400", b'"b":[],', b'"s":"X",', b"\\ud800", b"\\u0041", b"[[", b"]]", b"0" * 70, b"9" * 20]
few = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@cache
def seeds(venue: str) -> list[bytes]:
    found = [text.encode() for text in SEEDS[venue]]
    folder = data_folder()
    path = None if folder is None else Path(folder, "recordings", f"{RECORDED[venue]}.jsonl.gz")
    if path is not None and path.exists():
        with gzip.open(path) as file:
            texts = [orjson.loads(line)["raw"].encode() for line in file if b'"dir":"in"' in line]
        found += [text for text in texts if len(text) < 3000][:60]
    return found


@cache
def decoder(name: str) -> Decoder:
    venue = venues.load(name)
    return Decoder(venue.shape, int(SequenceRule[venue.rule.upper()]))


@st.composite
def mutated(draw: st.DrawFn, venue: str) -> bytes:
    text = draw(st.sampled_from(seeds(venue)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        kind = draw(st.sampled_from(["put", "insert", "cut", "drop", "double", "swap"]))
        word = draw(st.sampled_from(WORDS))
        end = min(len(text), at + draw(st.integers(1, 30)))
        if kind == "put":
            text = text[:at] + word + text[at + len(word) :]
        elif kind == "insert":
            text = text[:at] + word + text[at:]
        elif kind == "cut":
            text = text[:at]
        elif kind == "drop":
            text = text[:at] + text[end:]
        elif kind == "double":
            text = text[:end] + text[at:]
        else:
            other = draw(st.sampled_from(seeds(venue)))
            text = text[:at] + other[at:]
    return text


def check(name: str, text: bytes) -> None:
    venue = venues.load(name)
    native = decoder(name).decode(text)
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        assert native[0] == "bad_json", text
    plain = oracle.decode(venue.shape, text, venue.rule)
    assert oracle.same(native, plain), f"{native[0]} against {plain}: {text!r}"


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_native_takes_what_the_oracle_takes(name: str) -> None:
    @few
    @given(mutated(name))
    def run(text: bytes) -> None:
        check(name, text)

    run()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*"esbauUEtpqm", "data", "stream", "events", "x"]), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@few
@given(st.sampled_from(sorted(SEEDS)), json_values)
def test_any_json_is_read_as_the_oracle_reads_it(name: str, value: object) -> None:
    check(name, json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_every_cut_of_a_message_is_bad(name: str) -> None:
    for text in seeds(name)[:8]:
        for size in range(len(text)):
            assert decoder(name).decode(text[:size]) == ("bad_json", [])


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_the_whole_parser_survives_anything(name: str) -> None:
    bench = Bench(name, raw_bytes=1 << 20, event_bytes=1 << 16)

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(mutated(name) | st.binary(max_size=40), min_size=1, max_size=20))
    def run(texts: list[bytes]) -> None:
        before = bench.parser.counts()["frames"]
        for text in texts:
            bench.frame(text)
        for record in bench.events():
            assert record.header["raw_seq"] > 0
        assert bench.parser.counts()["frames"] == before + len(texts)

    run()
