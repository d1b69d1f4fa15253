"""NDJSON of records, against a plain formatter in Python."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lob import _native
from lob.records import (
    NO_CONNECTION,
    BookState,
    Flag,
    Outcome,
    Reason,
    RecordType,
    RequestKind,
    Scope,
    SequenceRule,
    TakerSide,
    build,
    parse,
)
from lob.units import decimal_text

INT64 = st.integers(-(2**63), 2**63 - 1)
UINT64 = st.integers(0, 2**64 - 1)
LEVELS = st.lists(st.tuples(INT64, INT64), max_size=8)
SCALES = st.integers(0, 40)
# At most 63 bytes: what a symbol's field holds, and no NUL, which ends it there.
SYMBOLS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=15)


def instrument(
    symbol: str = "BTCUSDT", price_scale: int = 2, qty_scale: int = 8, version: int = 1, **header: Any
) -> bytes:
    body = {"symbol": symbol.encode(), "price_scale": price_scale, "qty_scale": qty_scale, "depth": 1000}
    return build(RecordType.INSTRUMENT, body, instrument=header.pop("instrument", 7), version=version, **header)


def plain(record: bytes, symbol: str, price_scale: int, qty_scale: int) -> bytes:
    """The same line, made the obvious way."""
    parsed = parse(record)
    body = {name: int(parsed.body[name]) for name in parsed.body.dtype.names if name not in ("pad", "symbol", "detail")}
    header = parsed.header

    def level(price: int, qty: int) -> list[str]:
        return [decimal_text(price, price_scale), decimal_text(qty, qty_scale)]

    line: dict[str, Any] = {"type": parsed.type.name.lower(), "symbol": symbol, "seq": int(header["ring_seq"])}
    times = {name: int(header[name]) for name in ("exch_ns", "recv_ns")}
    flags = Flag(int(header["flags"]))
    match parsed.type:
        case RecordType.SNAPSHOT | RecordType.DIFF:
            line |= {name: body[name] for name in ("first_seq", "prev_seq") if body[name]}
            line |= {"last_seq": body["last_seq"], **times}
            line |= {"asked": True} if Flag.ASKED in flags else {}
            line |= {"refresh": True} if Flag.REFRESH in flags else {}
            line |= {"checksum": body["checksum"]} if body["has_checksum"] else {}
            line["bids"] = [level(*pair) for pair in parsed.bids.tolist()]
            line["asks"] = [level(*pair) for pair in parsed.asks.tolist()]
        case RecordType.TRADE:
            line |= {"trade_id": body["trade_id"], **times, "side": TakerSide(body["taker_side"]).name.lower()}
            line |= {"price": decimal_text(body["price"], price_scale), "qty": decimal_text(body["qty"], qty_scale)}
        case RecordType.BBO:
            line |= {"last_seq": body["last_seq"], **times}
            for side in ("bid", "ask"):
                line[side] = level(body[f"{side}_price"], body[f"{side}_qty"]) if body[f"{side}_qty"] else None
        case RecordType.STATUS:
            line |= {"last_seq": body["last_seq"], **times}
            line |= {"state": BookState(body["state"]).name.lower(), "reason": Reason(body["reason"]).name.lower()}
    for name in ("seq", "trade_id", "exch_ns", "recv_ns"):
        if line.get(name) == 0:
            del line[name]
    if parsed.type in (RecordType.BBO, RecordType.STATUS) and not line["last_seq"]:
        del line["last_seq"]
    return orjson.dumps(line) + b"\n"


HEADERS = st.fixed_dictionaries({"ring_seq": UINT64, "exch_ns": INT64, "recv_ns": INT64, "flags": st.integers(0, 7)})
BOOKS = st.builds(
    lambda kind, first, last, prev, checksum, has, bids, asks, header: build(
        kind,
        {"first_seq": first, "last_seq": last, "prev_seq": prev, "checksum": checksum, "has_checksum": has},
        bids=bids,
        asks=asks,
        instrument=7,
        version=1,
        **header,
    ),
    st.sampled_from([RecordType.SNAPSHOT, RecordType.DIFF]),
    UINT64,
    UINT64,
    UINT64,
    st.integers(0, 2**32 - 1),
    st.booleans(),
    LEVELS,
    LEVELS,
    HEADERS,
)
TRADES = st.builds(
    lambda trade, price, qty, side, header: build(
        RecordType.TRADE,
        {"trade_id": trade, "price": price, "qty": qty, "taker_side": side},
        instrument=7,
        version=1,
        **header,
    ),
    UINT64,
    INT64,
    INT64,
    st.sampled_from(list(TakerSide)).map(int),
    HEADERS,
)
BBOS = st.builds(
    lambda last, bid, ask, header: build(
        RecordType.BBO,
        {"last_seq": last, "bid_price": bid[0], "bid_qty": bid[1], "ask_price": ask[0], "ask_qty": ask[1]},
        instrument=7,
        version=1,
        **header,
    ),
    UINT64,
    st.tuples(INT64, INT64 | st.just(0)),
    st.tuples(INT64, INT64 | st.just(0)),
    HEADERS,
)
STATUSES = st.builds(
    lambda last, state, reason, header: build(
        RecordType.STATUS,
        {"last_seq": last, "state": int(state), "reason": int(reason)},
        instrument=7,
        version=1,
        **header,
    ),
    UINT64,
    st.sampled_from(list(BookState)),
    st.sampled_from(list(Reason)),
    HEADERS,
)


@given(BOOKS | TRADES | BBOS | STATUSES, SYMBOLS, SCALES, SCALES)
def test_line_equals_the_plain_formatter(record, symbol, price_scale, qty_scale):
    ndjson = _native.Ndjson()
    ndjson.format(instrument(symbol, price_scale, qty_scale))
    assert ndjson.format(record) == plain(record, symbol, price_scale, qty_scale)
    assert ndjson.refused == 0


@given(st.binary(max_size=300), st.binary(max_size=40))
def test_raw_text_is_escaped_and_what_is_no_utf8_is_replaced(text, url):
    record = build(RecordType.RAW_HTTP, url=url, text=text, connection=1, session=2, ring_seq=3, recv_ns=4)
    line = {"type": "raw_http", "seq": 3, "connection": 1, "session": 2, "recv_ns": 4}
    line |= {"url": url.decode("utf-8", "replace")} if url else {}
    line["text"] = text.decode("utf-8", "replace")
    assert _native.Ndjson().format(record) == orjson.dumps(line) + b"\n"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_text_comes_back_from_json(text):
    line = _native.Ndjson().format(build(RecordType.RAW_FRAME, text=text.encode()))
    assert line.count(b"\n") == 1
    assert orjson.loads(line)["text"] == text


def test_nothing_of_this_machine_is_in_a_line():
    one = build(RecordType.LINK, {"up": 1}, url=b"wss://x", connection=0, session=1, recv_ns=5, ring_seq=9)
    other = build(
        RecordType.LINK,
        {"up": 1},
        url=b"wss://x",
        connection=0,
        session=1,
        recv_ns=5,
        ring_seq=9,
        origin_ns=123456,
        stage_ns=(1, 2, 3, 4),
    )
    assert _native.Ndjson().format(one) == _native.Ndjson().format(other)


def test_request_id_of_an_answer_is_left_out():
    body = {"kind": int(RequestKind.RESYNC), "outcome": int(Outcome.REFUSED), "symbol": b"BTC", "detail": b"replay"}
    lines = [_native.Ndjson().format(build(RecordType.ANSWER, {**body, "request_id": n})) for n in (1, 2)]
    assert lines[0] == lines[1]
    assert orjson.loads(lines[0]) == {
        "type": "answer",
        "symbol": "BTC",
        "request": "resync",
        "outcome": "refused",
        "detail": "replay",
    }


def test_other_records_have_words_for_their_numbers():
    ndjson = _native.Ndjson()
    lost = build(
        RecordType.LOST, {"count": 4, "scope": int(Scope.CONNECTION), "reason": int(Reason.LOST)}, connection=2
    )
    assert orjson.loads(ndjson.format(lost)) == {
        "type": "lost",
        "connection": 2,
        "session": 0,
        "count": 4,
        "scope": "connection",
        "reason": "lost",
    }
    sequence = build(RecordType.SEQUENCE, {"seq": 8, "rule": int(SequenceRule.STEP), "scope": int(Scope.CONNECTION)})
    assert orjson.loads(ndjson.format(sequence)) == {
        "type": "sequence",
        "last_seq": 8,
        "rule": "step",
        "scope": "connection",
    }
    link = build(RecordType.LINK, {"up": 0}, url=b"wss://x", connection=NO_CONNECTION)
    assert orjson.loads(ndjson.format(link)) == {"type": "link", "up": False, "url": "wss://x"}
    assert orjson.loads(ndjson.format(instrument())) == {
        "type": "instrument",
        "symbol": "BTCUSDT",
        "instrument": 7,
        "version": 1,
        "price_scale": 2,
        "qty_scale": 8,
        "depth": 1000,
    }


def test_version_never_announced_is_refused_and_counted():
    ndjson = _native.Ndjson()
    ndjson.format(instrument(version=1))
    record = build(RecordType.DIFF, {"last_seq": 1}, bids=[(1, 1)], instrument=7, version=2, ring_seq=5)
    assert orjson.loads(ndjson.format(record)) == {
        "type": "unknown_version",
        "seq": 5,
        "record": "diff",
        "instrument": 7,
        "version": 2,
    }
    assert ndjson.refused == 1


def test_new_version_is_read_with_its_own_scales():
    ndjson = _native.Ndjson()
    ndjson.format_many([instrument(version=1), instrument(version=2, price_scale=3)])
    old, new = (build(RecordType.DIFF, bids=[(1000, 0)], instrument=7, version=version) for version in (1, 2))
    assert orjson.loads(ndjson.format(old))["bids"] == [["10", "0"]]
    assert orjson.loads(ndjson.format(new))["bids"] == [["1", "0"]]


def test_another_epoch_forgets_the_instruments():
    ndjson = _native.Ndjson()
    ndjson.format(instrument(epoch=1))
    status = {"state": int(BookState.LIVE)}
    assert b"BTCUSDT" in ndjson.format(build(RecordType.STATUS, status, instrument=7, version=1, epoch=1))
    assert b"unknown_version" in ndjson.format(build(RecordType.STATUS, status, instrument=7, version=1, epoch=2))


def test_instrument_learned_without_a_ring_holds_in_the_first_epoch():
    ndjson = _native.Ndjson()
    ndjson.learn(instrument(epoch=0))
    status = build(RecordType.STATUS, instrument=7, version=1, epoch=5)
    assert b"BTCUSDT" in ndjson.format(status)


@pytest.mark.parametrize(
    "kind",
    [RecordType.DIFF, RecordType.TRADE, RecordType.BBO, RecordType.STATUS, RecordType.INSTRUMENT, RecordType.ANSWER],
)
def test_record_that_is_cut_short_raises(kind):
    ndjson = _native.Ndjson()
    ndjson.format(instrument())
    record = bytearray(build(kind, instrument=7, version=1)[:80])
    record[:4] = (80).to_bytes(4, "little")
    with pytest.raises(ValueError, match="cut short"):
        ndjson.format(bytes(record))


def test_record_that_says_more_than_it_has_raises():
    ndjson = _native.Ndjson()
    ndjson.format(instrument())
    record = bytearray(build(RecordType.DIFF, bids=[(1, 1)], instrument=7, version=1))
    record[112:116] = (2**32 - 1).to_bytes(4, "little")  # bid_count
    with pytest.raises(ValueError):
        ndjson.format(bytes(record))
    with pytest.raises(ValueError, match="says that it has"):
        ndjson.format(build(RecordType.STATUS)[:88])
