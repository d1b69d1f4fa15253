"""Coinbase Advanced's protocol as the simulated venue speaks it."""

from __future__ import annotations

import asyncio

from exchange.client import ask, receive, receive_until, send, serving, websocket
from exchange.rebuild import CoinbaseBook

FAST = {"symbols": ("BTCUSDT", "ETHUSDT"), "rate": 2000.0, "levels": 60}


def test_sequence_num_counts_all_messages_and_the_book_is_true():
    async def scenario():
        async with serving(**FAST) as server, websocket(server, "/coinbase") as client:
            for channel in ("heartbeats", "market_trades", "level2"):
                await send(client, type="subscribe", product_ids=["BTC-USD", "ETH-USD"], channel=channel)
            messages = await receive_until(client, lambda m: m["channel"] == "heartbeats")
            await ask(server, "control/pause")
            messages += await receive_until(client, lambda m: m["channel"] == "heartbeats")
            assert [m["sequence_num"] for m in messages] == list(range(len(messages)))
            assert {m["channel"] for m in messages} == {"heartbeats", "market_trades", "l2_data", "subscriptions"}
            books = {"BTC-USD": CoinbaseBook(), "ETH-USD": CoinbaseBook()}
            for message in messages:
                if message["channel"] == "l2_data":
                    for event in message["events"]:
                        books[event["product_id"]].message(event, message["sequence_num"])
            for product, book in books.items():
                true = await ask(server, "truth/book", symbol=product)
                assert book.top() == {"bids": true["bids"], "asks": true["asks"]}
                assert book.count.snapshots == 1 and book.count.updates > 3

    asyncio.run(scenario())


def test_dropped_message_leaves_a_hole_in_the_sequence():
    async def scenario():
        async with serving(**FAST) as server, websocket(server, "/coinbase") as client:
            await send(client, type="subscribe", product_ids=["BTC-USD"], channel="level2")
            snapshot, ack = await receive(client), await receive(client)
            assert snapshot["events"][0]["type"] == "snapshot" and snapshot["sequence_num"] == 0
            assert ack["events"] == [{"subscriptions": {"level2": ["BTC-USD"]}}]
            await ask(server, "control/drop", n=1, symbol="BTC-USD")
            expected = 2
            while (seq := (await receive(client))["sequence_num"]) == expected and expected < 100:
                expected += 1
            assert seq == expected + 1

    asyncio.run(scenario())


def test_unknown_products_and_malformed_requests_are_errors():
    async def scenario():
        async with serving(**FAST) as server, websocket(server, "/coinbase") as client:
            await send(client, type="subscribe", product_ids=["NO-SUCH"], channel="level2")
            assert (await receive(client))["type"] == "error"
            await client.send("[]")
            assert (await receive(client))["type"] == "error"

    asyncio.run(scenario())
