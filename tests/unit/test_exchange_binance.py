"""Binance's protocols as the simulated venue speaks them, seen by a client on loopback."""

from __future__ import annotations

import asyncio
import re
import urllib.error

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

from exchange.binance_usdm import futures_first_id, futures_id, seq_of
from exchange.client import ask, follow, receive, receive_until, send, serving, websocket
from exchange.rebuild import SpotBook, UsdMBook
from exchange.times import SECOND

FAST = {"symbols": ("BTCUSDT",), "rate": 2000.0, "levels": 100}


@pytest.mark.parametrize("stream", ["btcusdt@depth@100ms", "btcusdt@depth@0ms", "btcusdt@depth@30ms"])
def test_documented_procedure_gives_exactly_the_true_book_at_its_id(stream):
    async def scenario():
        async with serving(**FAST) as server, websocket(server, f"/ws/{stream}") as client:
            book = SpotBook()
            book.diff(await receive(client))
            while not book.snapshot(await ask(server, "api/v3/depth", symbol="BTCUSDT", limit=5000)):
                book.diff(await receive(client))
            await follow(client, book, book.last_seq + 1000)
            true = await ask(server, "truth/book", symbol="BTCUSDT", id=book.last_seq)
            assert book.top() == {"bids": true["bids"], "asks": true["asks"]}
            assert book.count.gaps == 0 and book.count.updates > 3

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", ["btcusdt@depth@100ms", "btcusdt@depth@0ms"])
def test_futures_procedure_gives_the_true_book_and_ids_have_holes(stream):
    async def scenario():
        async with serving(**FAST) as server, websocket(server, f"/fstream/stream?streams={stream}") as client:
            book = UsdMBook()
            first = (await receive(client))["data"]
            book.diff(first)
            while not book.snapshot(await ask(server, "fapi/v1/depth", symbol="BTCUSDT", limit=1000)):
                book.diff((await receive(client))["data"])
            second = (await receive_until(client, lambda m: True))[-1]["data"]
            assert second["pu"] == first["u"] or second["pu"] > first["u"]
            assert second["U"] != second["pu"] + 1
            book.diff(second)
            await follow(client, book, book.last_seq + 41 * 500)
            true = await ask(server, "truth/book", symbol="BTCUSDT", id=book.last_seq, venue="binance-usdm")
            assert book.top() == {"bids": true["bids"], "asks": true["asks"]}
            assert book.count.gaps == 0

    asyncio.run(scenario())


def test_futures_ids_grow_and_lead_back_to_the_event():
    for seq in range(50_093_239_000, 50_093_240_000):
        assert futures_id(seq - 1) + 1 < futures_first_id(seq) <= futures_id(seq)
        assert seq_of(futures_id(seq)) == seq == seq_of(futures_id(seq + 1) - 1)


def test_diffs_are_contiguous_and_have_the_text_shape_of_the_venue():
    shape = re.compile(
        r'\{"stream":"btcusdt@depth@50ms","data":\{"e":"depthUpdate","E":\d{13},"s":"BTCUSDT","U":\d{11},"u":\d{11},'
        r'"b":\[(\["\d+\.\d{8}","\d+\.\d{8}"\],?)*\],"a":\[(\["\d+\.\d{8}","\d+\.\d{8}"\],?)*\]\}\}'
    )

    async def scenario():
        async with serving(**FAST) as server, websocket(server, "/stream?streams=btcusdt@depth@50ms") as client:
            last = None
            for _ in range(10):
                text = await asyncio.wait_for(client.recv(), 5)
                assert shape.fullmatch(text), text[:300]
                first, end = (int(re.search(rf'"{key}":(\d+)', text)[1]) for key in "Uu")
                assert last is None or first == last + 1 <= end
                last = end

    asyncio.run(scenario())


def test_two_connections_get_the_same_bytes_so_that_feeds_can_be_arbitrated():
    async def scenario():
        path = "/ws/btcusdt@depth@100ms"
        async with serving(**FAST) as server, websocket(server, path) as one, websocket(server, path) as two:
            heard = [{await asyncio.wait_for(client.recv(), 5) for _ in range(5)} for client in (one, two)]
            assert len(heard[0] & heard[1]) >= 3

    asyncio.run(scenario())


def test_book_ticker_equals_the_true_top_and_trades_come():
    async def scenario():
        streams = "btcusdt@bookTicker/btcusdt@trade/btcusdt@aggTrade"
        async with serving(**FAST) as server, websocket(server, f"/stream?streams={streams}") as client:
            messages = await receive_until(client, lambda m: "aggTrade" in m["stream"])
            while not any("bookTicker" in m["stream"] for m in messages):
                messages.append(await receive(client))
            ticker = next(m["data"] for m in messages if "bookTicker" in m["stream"])
            assert list(ticker) == ["u", "s", "b", "B", "a", "A"]
            true = await ask(server, "truth/book", symbol="BTCUSDT", id=ticker["u"], depth=1)
            (bid,), (ask_level,) = true["bids"], true["asks"]
            assert [float(ticker[k]) for k in "bBaA"] == [float(x) for x in bid + ask_level]
            trade = next(m["data"] for m in messages if m["stream"] == "btcusdt@trade")
            assert list(trade) == ["e", "E", "s", "t", "p", "q", "T", "m", "M"]

    asyncio.run(scenario())


def test_partial_depth_stream_is_the_true_top():
    async def scenario():
        async with serving(**FAST) as server, websocket(server, "/ws/btcusdt@depth20@100ms") as client:
            message = await receive(client)
            assert len(message["bids"]) == len(message["asks"]) == 20
            book = SpotBook()
            book.replace(message["bids"], message["asks"])
            true = await ask(server, "truth/book", symbol="BTCUSDT", id=message["lastUpdateId"], depth=20)
            assert book.top() == {"bids": true["bids"], "asks": true["asks"]}

    asyncio.run(scenario())


def test_subscription_requests_are_answered_as_documented():
    async def scenario():
        async with serving(rate=0.0, levels=50) as server, websocket(server, "/ws") as client:
            wanted = ["btcusdt@depth@0ms", "nosuch@depth", "btcusdt@kline_1m"]
            await send(client, method="SUBSCRIBE", params=wanted, id=1)
            assert await receive(client) == {"result": None, "id": 1}
            await send(client, method="LIST_SUBSCRIPTIONS", id="a")
            assert await receive(client) == {"result": wanted, "id": "a"}
            await ask(server, "control/step", n=1)
            assert (await receive(client))["e"] == "depthUpdate"
            await send(client, method="SET_PROPERTY", params=["combined", True], id=2)
            assert await receive(client) == {"result": None, "id": 2}
            await ask(server, "control/step", n=1)
            assert (await receive(client))["stream"] == "btcusdt@depth@0ms"
            await send(client, method="SUBSCRIBE", params=["btcusdt"], id=3)
            assert (await receive(client))["error"]["msg"] == "Invalid request: invalid stream"
            await client.send("{")
            assert (await receive(client))["code"] == 3
            await send(client, method="UNSUBSCRIBE", params=["btcusdt@depth@0ms"], id=4)
            assert await receive(client) == {"result": None, "id": 4}
            await ask(server, "control/step", n=5)
            with pytest.raises(TimeoutError):
                await receive(client, 0.1)

    asyncio.run(scenario())


def test_rest_errors_weights_and_retry_after():
    async def failing(server, path, **query):
        with pytest.raises(urllib.error.HTTPError) as caught:
            await ask(server, path, **query)
        return caught.value.code, caught.value.headers, caught.value.read().decode()

    async def scenario():
        async with serving(rate=0.0, levels=50, weight=60) as server:
            server.now_ns = lambda: 1_760_000_000 * SECOND  # no new minute within the test
            status, _, body = await failing(server, "api/v3/depth", symbol="NOSUCH")
            assert (status, body) == (400, '{"code":-1121,"msg":"Invalid symbol."}')
            assert (await failing(server, "api/v3/depth"))[0] == 400
            info = await ask(server, "api/v3/exchangeInfo", symbol="ETHUSDT")
            assert [s["symbol"] for s in info["symbols"]] == ["ETHUSDT"]
            filters = {f["filterType"]: f for f in info["symbols"][0]["filters"]}
            assert filters["PRICE_FILTER"]["tickSize"] == "0.01000000"
            assert filters["LOT_SIZE"]["stepSize"] == "0.00010000"
            await ask(server, "api/v3/depth", symbol="ETHUSDT", limit=500)
            status, headers, body = await failing(server, "api/v3/depth", symbol="ETHUSDT", limit=500)
            assert status == 429 and '"code":-1003' in body
            assert 1 <= int(headers["Retry-After"]) <= 60
            assert int(headers["X-MBX-USED-WEIGHT-1M"]) == 5 + 5 + 20 + 25 + 25
            await ask(server, "control/weight", budget=100)
            assert await ask(server, "api/v3/ping") == {}
            assert "serverTime" in await ask(server, "api/v3/time")

    asyncio.run(scenario())


def test_server_pings_and_closes_old_connections():
    async def scenario():
        async with serving(rate=0.0, levels=50, ping_s=0.1, max_age_s=0.6) as server:
            async with websocket(server, "/ws") as client:
                frames, process = [], client.process_event
                client.process_event = lambda frame: frames.append(frame) or process(frame)
                with pytest.raises(ConnectionClosed):
                    await asyncio.wait_for(client.recv(), 5)
            pings = [frame for frame in frames if frame.opcode is Opcode.PING]
            assert len(pings) >= 3 and bytes(pings[0].data).isdigit()
            assert client.close_code == 1008

    asyncio.run(scenario())


def test_client_that_sends_too_fast_is_closed_when_a_limit_is_set():
    async def scenario():
        async with serving(rate=0.0, levels=50, message_limit=5) as server, websocket(server, "/ws") as client:
            with pytest.raises(ConnectionClosed):
                for ident in range(20):
                    await send(client, method="LIST_SUBSCRIPTIONS", id=ident)
                    await receive(client)
            assert ident == 5

    asyncio.run(scenario())
