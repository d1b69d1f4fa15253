"""Venue files: requests, URLs, acks and errors, on texts copied from the venues' documents and recordings."""

# ruff: noqa: E501  messages stand on one line, as on the wire
from __future__ import annotations

import orjson
import pytest

from lob import venues
from lob.venues.venue import Control, HttpAnswer, Metadata, Subscription

ALL = sorted(venues.MODULES)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("wss://stream.binance.com:9443/stream?streams=btcusdt@depth", "binance"),
        ("wss://data-stream.binance.vision/ws", "binance"),
        ("wss://stream.binance.us:9443/stream", "binance"),
        ("https://api.binance.us/api/v3/depth?symbol=BTCUSDT", "binance"),
        ("https://www.binance.com/api/v1/depth?symbol=BTCUSDT", "binance"),
        ("wss://fstream.binance.com/stream?streams=btcusdt@depth", "binance-usdm"),
        ("wss://fstream.binance.com/public/stream", "binance-usdm"),
        ("https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT", "binance-usdm"),
        ("wss://advanced-trade-ws.coinbase.com", "coinbase"),
        ("wss://ws.kraken.com/v2", "kraken"),
        ("wss://dstream.binance.com/stream", None),
        ("https://dapi.binance.com/dapi/v1/depth", None),
        ("wss://stream.binance.com.evil.example/ws", None),
    ],
)
def test_a_venue_is_known_by_its_hosts(url: str, name: str | None) -> None:
    venue = venues.of_url(url)
    assert (venue.name if venue else None) == name


@pytest.mark.parametrize("name", ALL)
def test_what_we_send_tells_what_we_asked_for(name: str) -> None:
    venue = venues.load(name)
    symbols = ["BTC/USD", "ETH/USD"] if name == "kraken" else ["BTC-USD", "ETH-USD"] if name == "coinbase" else ["BTCUSDT", "ETHUSDT"]
    messages = venue.subscribe(symbols, 0, 7)
    asked = [each for message in messages for each in venue.subscriptions(message)]
    assert asked == [Subscription(symbol, venue.default_depth) for symbol in symbols]
    assert [each for message in venue.unsubscribe(symbols, 0, 8) for each in venue.subscriptions(message)] == []


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "17", '{"method":"SUBSCRIBE"}', '{"method":"subscribe","params":[]}',
                                  '{"type":"subscribe","channel":"level2"}', '{"method":"subscribe","params":{"channel":"book"}}'])  # fmt: skip
def test_other_texts_subscribe_nothing_and_mean_nothing(name: str, text: str) -> None:
    venue = venues.load(name)
    assert venue.subscriptions(text) == []
    assert venue.control(text.encode()) is None


@pytest.mark.parametrize(
    ("name", "url", "books"),
    [
        ("binance", "wss://stream.binance.com:9443/stream?streams=nknusdt@depth@100ms/nknusdt@bookTicker/blzeth@depth", ["NKNUSDT", "BLZETH"]),
        ("binance", "wss://stream.binance.com/ws/btcusdt@depth/btcusdt@trade", ["BTCUSDT"]),
        ("binance", "wss://stream.binance.com/stream?streams=btcusdt@depth20/btcusdt@depth5@100ms", []),
        ("binance", "wss://stream.binance.com/stream", []),
        ("binance-usdm", "wss://fstream.binance.com/public/stream?streams=btcusdt_260925@depth@0ms", ["BTCUSDT_260925"]),
        ("coinbase", "wss://advanced-trade-ws.coinbase.com", []),
    ],
)  # fmt: skip
def test_a_url_may_subscribe(name: str, url: str, books: list[str]) -> None:
    assert [each.symbol for each in venues.load(name).url_subscriptions(url)] == books


def test_binance_subscribes_a_connection_with_one_message() -> None:
    venue = venues.load("binance")
    (message,) = venue.subscribe(["BTCUSDT"], 0, 3)
    assert orjson.loads(message) == {
        "method": "SUBSCRIBE",
        "params": ["btcusdt@depth@100ms", "btcusdt@bookTicker", "btcusdt@trade"],
        "id": 3,
    }
    assert venue.connect_url(venue.ws_url, ["BTCUSDT"]) == "wss://stream.binance.com:9443/stream"
    assert venues.load("binance-usdm").connect_url("wss://fstream.binance.com/public", []).endswith("/public/stream")


@pytest.mark.parametrize(
    ("name", "depth", "limit", "weight"),
    [
        ("binance", 0, 1000, 50), ("binance", 100, 100, 5), ("binance", 101, 101, 25), ("binance", 9999, 5000, 250),
        ("binance-usdm", 0, 1000, 20), ("binance-usdm", 60, 100, 5), ("binance-usdm", 5000, 1000, 20),
    ],
)  # fmt: skip
def test_a_snapshot_costs_what_the_page_says(name: str, depth: int, limit: int, weight: int) -> None:
    venue = venues.load(name)
    url, cost = venue.snapshot_request("https://there/", "BTCUSDT", depth)
    assert url.startswith("https://there/") and url.endswith(f"depth?symbol=BTCUSDT&limit={limit}") and cost == weight
    assert venue.http_answer(url) == HttpAnswer("snapshot", "BTCUSDT")


@pytest.mark.parametrize("name", [name for name in ALL if venues.load(name).metadata_request("https://there", ["A"])])
def test_the_answer_to_a_metadata_request_is_known(name: str) -> None:
    venue = venues.load(name)
    request = venue.metadata_request("https://there", ["BTCUSDT", "ETHUSDT"])
    assert request is not None and venue.http_answer(request[0]) == HttpAnswer("metadata")
    assert venue.metadata_request("https://there", []) is None
    assert venue.http_answer("https://there/api/v3/time") is None
    for body in (b"", b"{", b"[]", b"{}", b'{"symbols":[1]}', b'{"products":[{}]}', b'{"code":-1121,"msg":"Invalid symbol."}'):
        with pytest.raises(ValueError):
            venue.metadata(body)


def test_steps_of_the_venues() -> None:
    info = {
        "symbols": [
            {
                "symbol": "BTCUSDT",
                "status": "BREAK",
                "filters": [
                    {"filterType": "PRICE_FILTER", "minPrice": "0.01", "tickSize": "0.01000000"},
                    {"filterType": "LOT_SIZE", "stepSize": "0.00001000"},
                ],
            }
        ]
    }
    steps = Metadata("BTCUSDT", "0.01000000", "0.00001000", False)
    assert venues.load("binance").metadata(orjson.dumps(info)) == [steps]
    product = {"product_id": "BTC-USD", "price_increment": "0.01", "base_increment": "0.00000001", "trading_disabled": False}
    want = [Metadata("BTC-USD", "0.01", "0.00000001")]
    assert venues.load("coinbase").metadata(orjson.dumps(product)) == want
    assert venues.load("coinbase").metadata(orjson.dumps({"products": [product]})) == want


@pytest.mark.parametrize(
    ("name", "frame", "control"),
    [
        ("binance", '{"result":null,"id":1}', Control("ack")),
        ("binance", '{"code":2,"msg":"Invalid request: x","id":1}', Control("error", error="2: Invalid request: x")),
        ("binance", '{"error":{"code":2,"msg":"Invalid request: invalid stream"},"id":2}',
         Control("error", error="2: Invalid request: invalid stream")),
        ("binance", '{"e":"serverShutdown","E":1770123456789}', Control("reconnect")),
        ("binance-usdm", '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}', Control("reconnect")),
        ("coinbase", '{"type":"error","message":"too many L2 streams requested in a single session"}',
         Control("error", error="too many L2 streams requested in a single session")),
        ("coinbase", '{"channel":"subscriptions","timestamp":"2026-02-09T20:33:57.609931463Z","sequence_num":0,'
         '"events":[{"subscriptions":{"level2":["BTC-USD"],"heartbeats":["heartbeats"]}}]}',
         Control("ack", (Subscription("BTC-USD"),))),
        ("kraken", '{"method":"subscribe","result":{"channel":"book","depth":25,"snapshot":true,"symbol":"BTC/USD"},"success":true}',
         Control("ack", (Subscription("BTC/USD", 25),))),
        ("kraken", '{"method":"subscribe","result":{"channel":"trade","snapshot":true,"symbol":"BTC/USD"},"success":true}', Control("ack")),
        ("kraken", '{"method":"unsubscribe","result":{"channel":"book","depth":25,"symbol":"BTC/USD"},"success":true}', Control("ack")),
        ("kraken", '{"error":"Currency pair not supported XBT/USD","method":"subscribe","success":false,"symbol":"XBT/USD"}',
         Control("error", error="Currency pair not supported XBT/USD", symbol="XBT/USD")),
        ("kraken", '{"error":"Malformed request","method":"error","success":false}', Control("error", error="Malformed request")),
        ("kraken", '{"method":"pong","req_id":1}', Control("pong")),
        ("kraken", '{"channel":"status","type":"update","data":[{"system":"online","api_version":"v2"}]}', Control("info")),
        ("kraken", '{"channel":"status","type":"update","data":[{"system":"maintenance"}]}',
         Control("info", error="system is maintenance")),
    ],
)  # fmt: skip
def test_frames_without_market_data(name: str, frame: str, control: Control) -> None:
    assert venues.load(name).control(frame.encode()) == control


def test_kraken_asks_for_a_depth_that_there_is() -> None:
    venue = venues.load("kraken")
    depths = [orjson.loads(venue.subscribe(["BTC/USD"], depth, 1)[0])["params"]["depth"] for depth in (0, 1, 26, 1000, 5000)]
    assert depths == [100, 10, 100, 1000, 1000]


def test_an_unknown_venue_is_an_error_that_names_the_known() -> None:
    with pytest.raises(venues.UnknownVenue, match="no venue named 'mtgox'; known: binance, binance-usdm, coinbase, kraken"):
        venues.load("mtgox")
