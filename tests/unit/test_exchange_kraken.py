"""Kraken's v2 protocol as the simulated venue speaks it."""

from __future__ import annotations

import asyncio
import re

import pytest

from exchange import kraken_messages
from exchange.client import ask, follow_kraken, receive, receive_until, send, serving, websocket
from exchange.control import answer
from exchange.instrument import Instrument
from exchange.rebuild import KrakenBook
from exchange.server import Server, Settings

FAST = {"symbols": ("BTCUSDT", "ETHUSDT"), "rate": 2000.0, "levels": 60}


async def subscribed(client, **params):
    """Subscribe; returns acks (and whatever came before the last of them)."""
    await send(client, method="subscribe", params={"channel": "book", **params}, req_id=7)
    count = len(params["symbol"])
    return [await receive(client) for _ in range(count)]


def test_checksum_of_the_documented_example():
    inst = Instrument("X", "BTC", "USD", 1, 8, 1)
    asks = "45285.2/0.00100000 45286.4/1.54571953 45286.6/1.54571109 45289.6/1.54560911 45290.2/0.15890660 "
    asks += "45291.8/1.54553491 45294.7/0.04454749 45296.1/0.35380000 45297.5/0.09945542 45299.5/0.18772827"
    bids = "45283.5/0.10000000 45283.4/1.54582015 45282.1/0.10000000 45281.0/0.10000000 45280.3/1.54592586 "
    bids += "45279.0/0.07990000 45277.6/0.03310103 45277.5/0.30000000 45277.3/1.54602737 45276.6/0.15445238"
    sides = [
        [tuple(int(n.replace(".", "")) for n in level.split("/")) for level in side.split()] for side in (bids, asks)
    ]
    assert kraken_messages.checksum(inst, *sides) == 3310070434


@pytest.mark.parametrize("depth", [10, 25, 100])
def test_client_that_truncates_has_every_checksum_right_and_a_true_top(depth):
    async def scenario():
        async with serving(**FAST) as server, websocket(server, "/kraken/v2") as client:
            assert (await receive(client))["channel"] == "status"
            (ack,) = await subscribed(client, symbol=["BTC/USD"], depth=depth)
            assert ack["success"] is True and ack["result"]["depth"] == depth and ack["req_id"] == 7
            book = KrakenBook(depth)
            await follow_kraken(client, book, 300)
            assert book.count.checksums_failed == 0 and book.count.checksums_ok == 300
            await ask(server, "control/pause")
            await ask(server, "control/step", n=1)
            found = await ask(server, "truth/contains", symbol="BTC/USD", top=book.top(10))
            assert found["found"] and found["age_events"] >= 0
            true = await ask(server, "truth/book", symbol="BTC/USD", id=found["id"], depth=10)
            assert book.top(10) == {"bids": true["bids"], "asks": true["asks"]}

    asyncio.run(scenario())


def test_client_that_does_not_truncate_fails_sooner_or_later():
    async def scenario():
        async with serving(**FAST) as server, websocket(server, "/kraken/v2") as client:
            await receive(client)
            await subscribed(client, symbol=["BTC/USD"], depth=10)
            book = KrakenBook(100_000)
            await follow_kraken(client, book, 400)
            assert book.count.checksums_failed == 1

    asyncio.run(scenario())


def test_messages_have_the_text_shape_of_the_venue():
    level = r'\{"price":\d+\.\d\d,"qty":\d+\.\d{8}\}'
    shape = re.compile(
        rf'\{{"channel":"book","type":"(snapshot|update)","data":\[\{{"symbol":"BTC/USD","bids":\[({level},?)*\],'
        rf'"asks":\[({level},?)*\],"checksum":\d+,"timestamp":"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{6}}Z"\}}\]\}}'
    )

    async def scenario():
        async with serving(**FAST) as server, websocket(server, "/kraken/v2") as client:
            status = await asyncio.wait_for(client.recv(), 5)
            assert status.startswith('{"channel":"status","type":"update","data":[{"version":"2.0.10","system":')
            await subscribed(client, symbol=["BTC/USD"], depth=10)
            for _ in range(30):
                text = await asyncio.wait_for(client.recv(), 5)
                assert text == '{"channel":"heartbeat"}' or shape.fullmatch(text), text[:300]

    asyncio.run(scenario())


def test_no_message_says_that_a_level_left_the_window():
    async def scenario():
        async with serving(rate=0.0, levels=60) as server, websocket(server, "/kraken/v2") as client:
            await receive(client)
            await subscribed(client, symbol=["BTC/USD"], depth=10)
            await receive(client)
            silent = 0
            for _ in range(300):
                before = await ask(server, "truth/book", symbol="BTC/USD", depth=10)
                server.step("BTCUSDT")
                server.flush()
                after = await ask(server, "truth/book", symbol="BTC/USD", depth=10)
                if before["bids"] == after["bids"] and before["asks"] == after["asks"]:
                    silent += 1
                    continue
                (message,) = (await receive_until(client, lambda m: m["channel"] == "book"))[-1]["data"]
                for side in ("bids", "asks"):
                    left = {p for p, _ in before[side]} - {p for p, _ in after[side]}
                    told = {_plain(x["price"]) for x in message[side] if x["qty"] == 0}
                    gone = left if len(after[side]) < 10 else {p for p in left if p in told}
                    assert told == gone
                    came = {p for p, q in after[side] if [p, q] not in before[side]}
                    assert came == {_plain(x["price"]) for x in message[side] if x["qty"]}
            assert silent > 50

    asyncio.run(scenario())


def _plain(number):
    return f"{number:.2f}".rstrip("0").rstrip(".")


def test_one_ack_a_symbol_and_refusals():
    async def scenario():
        async with serving(rate=0.0, levels=60) as server, websocket(server, "/kraken/v2") as client:
            await receive(client)
            acks = await subscribed(client, symbol=["BTC/USD", "XBT/USD", "ETH/USD"], depth=10)
            assert [a.get("success") for a in acks] == [True, False, True]
            assert acks[1]["error"] == "Currency pair not supported XBT/USD" and acks[1]["symbol"] == "XBT/USD"
            snapshots = [await receive(client) for _ in range(2)]
            assert [(s["type"], s["data"][0]["symbol"]) for s in snapshots] == [
                ("snapshot", "BTC/USD"),
                ("snapshot", "ETH/USD"),
            ]
            assert [len(s["data"][0]["bids"]) for s in snapshots] == [10, 10]
            (again,) = await subscribed(client, symbol=["BTC/USD"], depth=10)
            assert again["success"] is False and again["error"] == "Already subscribed"
            await send(client, method="unsubscribe", params={"channel": "book", "symbol": ["BTC/USD"], "depth": 10})
            assert (await receive(client))["success"] is True
            await subscribed(client, symbol=["BTC/USD"], depth=10)
            assert (await receive(client))["type"] == "snapshot"
            await send(client, method="ping", req_id=5)
            pong = await receive(client)
            assert pong["method"] == "pong" and pong["req_id"] == 5
            await client.send("nonsense")
            assert (await receive(client))["error"] == "Malformed request"

    asyncio.run(scenario())


def test_heartbeats_while_subscribed_and_nothing_else_flows():
    async def scenario():
        async with serving(rate=0.0, levels=60) as server, websocket(server, "/kraken/v2") as client:
            await receive(client)
            await subscribed(client, symbol=["BTC/USD"], depth=10, snapshot=False)
            assert await receive(client, 2.0) == {"channel": "heartbeat"}

    asyncio.run(scenario())


def test_trades_and_instruments():
    async def scenario():
        async with serving(**FAST) as server, websocket(server, "/kraken/v2") as client:
            await receive(client)
            await send(client, method="subscribe", params={"channel": "instrument"})
            messages = await receive_until(client, lambda m: m.get("channel") == "instrument")
            pair = messages[-1]["data"]["pairs"][0]
            assert (pair["symbol"], pair["price_precision"], pair["qty_precision"]) == ("BTC/USD", 2, 8)
            await send(client, method="subscribe", params={"channel": "trade", "symbol": ["BTC/USD"]})
            messages = await receive_until(client, lambda m: m.get("channel") == "trade" and m["type"] == "update")
            assert messages[-1]["data"][0]["side"] in ("buy", "sell")

    asyncio.run(scenario())


def test_tops_that_never_were_are_not_found():
    server = Server(Settings(levels=60))
    top = '{"bids":[["1","1"]],"asks":[["2","1"]]}'
    status, found = answer(server, "/truth/contains", {"symbol": "BTC/USD", "top": top})
    assert (status, found) == (200, {"found": False})
    status, refused = answer(server, "/truth/contains", {"symbol": "BTC/USD", "top": '{"bids":[],"asks":[]}'})
    assert status == 400 and "1, 5 or 10 levels" in refused["error"]
