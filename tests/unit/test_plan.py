"""plan.hpp and decode.hpp: a shape decides what a message says; written for shapes of our own, not of a venue."""

# ruff: noqa: E501  messages stand on one line, as on the wire
from __future__ import annotations

from typing import Any

import pytest

import lob._native  # noqa: F401
from lob.venues.shape import (
    ABSENT,
    ASK,
    BID,
    BidPrice,
    Checksum,
    Each,
    ExchTime,
    First,
    Last,
    Leaf,
    LevelObject,
    Levels,
    Obj,
    Pair,
    Price,
    Qty,
    Rule,
    Shape,
    Symbol,
    Tag,
    TakerSide,
    TradeId,
)
from lob_parse._native import NESTING_MAX, Decoder

BOOK = Obj(
    {
        "type": Tag("type"),
        "s": Symbol(),
        "first_update_id": First(),
        "u": Last(),
        "c": Checksum(),
        "t": ExchTime("rfc3339"),
        "b": (Levels(BID, Pair()), BidPrice()),
        "a": Levels(ASK, Pair()),
        "both": Levels(None, LevelObject("price_level", "new_quantity", side="side", ask="offer")),
        "deep": Obj({"b": Levels(BID, Pair())}),
        "items": Each(Obj({"s": Symbol(), "p": Price(), "q": Qty(), "id": TradeId(), "by": TakerSide("B", "S")}, scope=True)),
    }
)
SHAPE = Shape(
    BOOK,
    (
        Rule("trade", {"type": ("trade", "trades")}, has=("price",)),
        Rule("bbo", {"type": ABSENT}, has=("bid_price",)),
        Rule("diff", has=("levels",)),
        Rule("ignore", {"type": "noise"}),
    ),
)


def decode(text: str | bytes, symbol: str = "") -> tuple[str, list[dict[str, Any]]]:
    return Decoder(SHAPE).decode(text if isinstance(text, bytes) else text.encode(), symbol)


def one(text: str | bytes, symbol: str = "") -> dict[str, Any]:
    status, events = decode(text, symbol)
    assert status == "ok", status
    return events[0]


def test_levels_of_both_sides_and_both_spellings() -> None:
    event = one('{"s":"X","u":7,"b":[["1.50","2"],[3,0.0]],"a":[["4","5","extra",{"x":[]}]],"first_update_id":"6"}')
    assert event["bids"] == [((150, 2), (2, 0)), ((3, 0), (0, 1))]
    assert event["asks"] == [((4, 0), (5, 0))]
    assert (event["first_seq"], event["last_seq"]) == (6, 7)


def test_level_objects_tell_their_side() -> None:
    event = one(
        '{"s":"X","both":[{"side":"offer","when":"now","price_level":"2","new_quantity":"3"},'
        '{"new_quantity":"0","side":"bid","price_level":"1"}]}'
    )
    assert (event["bids"], event["asks"]) == ([((1, 0), (0, 0))], [((2, 0), (3, 0))])


def test_one_key_may_be_a_price_or_an_array_of_levels() -> None:
    assert one('{"s":"X","b":"1.5"}')["kind"] == "bbo"
    assert one('{"s":"X","b":[]}')["kind"] == "diff"


def test_levels_in_several_places_of_a_scope_are_one_book() -> None:
    assert len(one('{"b":[["1","1"]],"deep":{"b":[["2","1"],["3","1"]]},"s":"X"}')["bids"]) == 3


def test_a_scope_takes_what_it_lacks_from_around_it_even_if_that_comes_later() -> None:
    status, events = decode('{"items":[{"p":1,"q":2,"id":3,"by":"B"},{"p":1,"q":2,"s":"Y"}],"type":"trade","s":"X"}')
    assert status == "ok"
    assert [(each["symbol"], each["trade_id"], each["taker_side"]) for each in events] == [("X", 3, 0), ("Y", 0, 2)]


def test_the_symbol_may_come_from_elsewhere() -> None:
    assert one('{"b":[]}', "FROM/URL")["symbol"] == "FROM/URL"
    assert decode('{"b":[]}')[0] == "bad_symbol"


@pytest.mark.parametrize("text", ['{"type":"other"}', "[]", '"text"', "17", "null", '{"type":17,"s":"X"}'])
def test_json_that_no_rule_knows_is_unknown(text: str) -> None:
    assert decode(text) == ("unknown_frame", [])


def test_known_and_of_no_interest() -> None:
    assert decode('{"type":"noise","p":"nonsense","c":-1,"t":"yesterday"}') == ("ok", [])


def test_escaped_keys_and_values_mean_what_they_spell() -> None:
    event = one(r'{"\u0073":"X\/\u00e9\ud83d\ude00","\u0062":[["\u0031","2"]]}')
    assert event["symbol"] == "X/é😀"
    assert event["bids"] == [((1, 0), (2, 0))]


def test_keys_that_only_begin_like_ours_are_others() -> None:
    event = one('{"s":"X","first_update_id2":1,"first_update_i":1,"first_up":1,"bb":[["9","9"]],"b":[]}')
    assert (event["first_seq"], event["bids"]) == (0, [])


@pytest.mark.parametrize("key", ["s", "b", "first_update_id"])
def test_a_named_key_may_stand_once(key: str) -> None:
    assert decode(f'{{"s":"X","b":[],"first_update_id":1,"{key}":[]}}')[0] == "bad_json"
    assert decode('{"s":"X","b":[],"other":1,"other":2}')[0] == "ok"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"s":"X","b":[["1","-1"]]}', "bad_number"),
        ('{"s":"X","b":[["x","1"]]}', "bad_number"),
        ('{"s":"X","b":[["",""]]}', "bad_number"),
        ('{"s":"X","b":[["1"]]}', "bad_field"),
        ('{"s":"X","b":[[]]}', "bad_field"),
        ('{"s":"X","b":[1]}', "bad_field"),
        ('{"s":"X","b":[["1",null]]}', "bad_field"),
        ('{"s":"X","b":[["1","99999999999999999999"]]}', "out_of_range"),
        ('{"s":"X","both":[{"side":"ask","price_level":"1","new_quantity":"1"}]}', "bad_field"),
        ('{"s":"X","both":[{}]}', "bad_field"),
        ('{"s":"X","u":-1,"b":[]}', "bad_number"),
        ('{"s":"X","u":1.0,"b":[]}', "bad_number"),
        ('{"s":"X","u":18446744073709551616,"b":[]}', "bad_number"),
        ('{"s":"X","c":4294967296,"b":[]}', "bad_number"),
        ('{"s":"X","t":"2026-02-30T00:00:00Z","b":[]}', "bad_time"),
        ('{"s":"","b":[]}', "bad_symbol"),
        (f'{{"s":"{"X" * 64}","b":[]}}', "bad_symbol"),
        ('{"type":"trade","items":[{"s":"X","p":1}]}', "bad_field"),
        ('{"type":"trade","items":[{"s":"X","p":1,"q":-1}]}', "bad_number"),
        ('{"type":"trade","items":[{"s":"X","p":1,"q":1,"by":"?"}]}', "bad_field"),
    ],
)
def test_a_message_that_cannot_be_read_whole_gives_nothing(text: str, why: str) -> None:
    assert decode(text) == (why, [])


GOOD = '{"s":"X","b":[["1.5","2.25"],["3","4"]],"other":{"k":[true,false,null,-1.5e+3,"\\u0041"]},"u":7}'


def test_every_cut_frame_is_bad() -> None:
    assert decode(GOOD)[0] == "ok"
    for size in range(len(GOOD)):
        assert decode(GOOD[:size]) == ("bad_json", []), size


@pytest.mark.parametrize("text", ["x", "}", "]", "{}", ",", "\0", '"', "1"])
def test_trailing_text_is_bad(text: str) -> None:
    assert decode(GOOD + text) == ("bad_json", [])
    assert decode(f" \t\r\n{GOOD} \t\r\n")[0] == "ok"


@pytest.mark.parametrize(
    "value",
    ["NaN", "Infinity", "-Infinity", "nul", "TRUE", "'x'", "01", "1.", ".1", "+1", "1e", "0x1", "[1,]", "[,1]", "{,}", '{"a"}',
     '{"a":}', '{"a":1,}', "{a:1}", '"\\x"', '"\\u12"', '"\\ud800"', '"\\ud800\\u0041"', '"\\udc00"', '"\t"', "1e400", "[1 2]",
     "9" * 65],
)  # fmt: skip
def test_broken_json_is_bad_also_where_nobody_looks(value: str) -> None:
    for text in (f'{{"b":[],"s":"X","other":{value}}}', f'{{"b":[["1","2",{value}]],"s":"X"}}', f'{{"u":{value},"s":"X"}}'):
        assert decode(text)[0] == "bad_json", text


@pytest.mark.parametrize("text", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"])
def test_text_that_is_no_utf8_is_bad(text: bytes) -> None:
    assert decode(b'{"s":"X","b":[],"o":"' + text + b'"}')[0] == "bad_json"
    assert decode(b'{"s":"X","b":[],"' + text + b'":1}')[0] == "bad_json"


def test_nesting_has_a_limit() -> None:
    for opening, closing in (("[", "]"), ('{"k":', "}")):
        for depth, status in ((NESTING_MAX - 1, "ok"), (NESTING_MAX, "bad_json"), (100_000, "bad_json")):
            text = f'{{"s":"X","b":[],"o":{opening * depth}1{closing * depth}}}'
            assert decode(text)[0] == status, depth


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-08-09T21:05:48.228568804Z", 1786309548228568804),
        ("2024-02-29T23:59:59.5Z", 1709251199500000000),
        ("2000-03-01T00:00:00.000001Z", 951868800000001000),
        ("2016-12-31T23:59:60Z", 1483228800000000000),
    ],
)
def test_times_are_unix_nanoseconds(text: str, ns: int) -> None:
    assert one(f'{{"s":"X","b":[],"t":"{text}"}}')["exch_ns"] == ns


def test_a_shape_that_is_none_says_what_is_wrong() -> None:
    def shape(keys: dict[str, Any], *rules: Rule) -> Shape:
        return Shape(Obj(keys), rules)

    for bad, why in [
        (shape({"x": Leaf("colour")}), "no field 'colour'"),
        (shape({"x": Levels(None, Pair())}), "do not tell their side"),
        (shape({"x": Levels(None, LevelObject("p", "q"))}), "need a key that tells it"),
        (shape({"x": (Price(), Qty())}), "two scalars"),
        (shape({f"k{n}": Tag(f"t{n}") for n in range(9)}), "more than 8 tags"),
        (shape({f"k{n}": Price() for n in range(40)}), "more than 32 keys"),
        (shape({}, Rule("diff", has=("colour",))), "no field 'colour'"),
        (shape({}, Rule("sonnet")), "no kind of message 'sonnet'"),  # type: ignore[arg-type]
    ]:
        with pytest.raises(ValueError, match=why):
            Decoder(bad)
