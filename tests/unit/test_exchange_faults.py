"""Each misbehaviour that can be ordered does what it says, to whom it says."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from exchange import link
from exchange.client import ask, follow, follow_kraken, receive, send, serving, websocket
from exchange.rebuild import KrakenBook, SpotBook

QUIET = {"symbols": ("BTCUSDT", "ETHUSDT"), "rate": 0.0, "levels": 50}
STREAM = "/stream?streams=btcusdt@depth@0ms/ethusdt@depth@0ms"


async def stepped(server, client, count, symbol="BTCUSDT"):
    """Ids of the diffs that arrive for `count` events; a SUBSCRIBE's ack marks the end."""
    await ask(server, "control/step", n=count, symbol=symbol)
    await send(client, method="LIST_SUBSCRIPTIONS", id=1)
    ids = []
    while "data" in (message := await receive(client)):
        ids.append(message["data"]["u"])
    return ids


def faulty(verb, events, expected, **query):
    async def scenario():
        async with serving(**QUIET) as server, websocket(server, STREAM) as client:
            first = (await ask(server, "truth/last", symbol="BTCUSDT"))["id"] + 1
            assert await ask(server, f"control/{verb}", **query) == {"connections": [1]}
            assert [u - first for u in await stepped(server, client, events)] == expected

    asyncio.run(scenario())


def test_drop_loses_the_next_messages():
    faulty("drop", 4, [2, 3], n=2)


def test_dup_sends_each_twice():
    faulty("dup", 3, [0, 0, 1, 1, 2], n=2)


def test_swap_lets_neighbours_change_places():
    faulty("swap", 5, [1, 0, 3, 2, 4], n=2)


def test_swap_reorders_within_one_book_also_if_another_one_speaks_in_between():
    async def scenario():
        async with serving(**QUIET) as server, websocket(server, STREAM) as client:
            await ask(server, "control/swap")
            for symbol in ("BTCUSDT", "ETHUSDT", "BTCUSDT"):
                await ask(server, "control/step", symbol=symbol)
            heard = [(await receive(client))["data"] for _ in range(3)]
            assert [diff["s"] for diff in heard] == ["ETHUSDT", "BTCUSDT", "BTCUSDT"]
            assert heard[1]["u"] == heard[2]["u"] + 1

    asyncio.run(scenario())


def test_rule_for_another_symbol_kind_or_stream_does_not_hold():
    faulty("drop", 2, [0, 1], symbol="ETH/USD")
    faulty("drop", 2, [0, 1], kind="trade")
    faulty("drop", 2, [0, 1], stream="ethusdt@depth@0ms")
    faulty("drop", 2, [1], stream="btcusdt@depth@0ms")


def test_rule_for_one_connection_leaves_the_other_alone():
    async def scenario():
        async with serving(**QUIET) as server, websocket(server, STREAM) as one, websocket(server, STREAM) as two:
            assert await ask(server, "control/drop", n=1, conn=2) == {"connections": [2]}
            assert await ask(server, "control/drop", n=1, venue="kraken") == {"connections": []}
            await ask(server, "control/step", n=2, symbol="BTCUSDT")
            ids = [[(await receive(c))["data"]["u"] for _ in range(n)] for c, n in ((one, 2), (two, 1))]
            assert ids[1] == ids[0][1:]
            listed = (await ask(server, "control/connections"))["connections"]
            assert [(c["conn"], c["faults_done"]["drop"]) for c in listed] == [(1, 0), (2, 1)]

    asyncio.run(scenario())


def test_dropped_kraken_update_shows_as_a_wrong_checksum_and_resubscribing_heals():
    async def scenario():
        fast = {"symbols": ("BTCUSDT",), "rate": 2000.0, "levels": 50}
        async with serving(**fast) as server, websocket(server, "/kraken/v2") as client:
            params = {"channel": "book", "symbol": ["BTC/USD"], "depth": 10}
            await send(client, method="subscribe", params=params)
            book = KrakenBook(10)
            await follow_kraken(client, book, 20)
            await ask(server, "control/drop", n=10)
            while book.live:
                await follow_kraken(client, book, 1)
            assert book.count.checksums_failed == 1
            await send(client, method="unsubscribe", params=params)
            await send(client, method="subscribe", params=params)
            while not book.live:
                await follow_kraken(client, book, 1)
            await follow_kraken(client, book, 50)
            assert book.live and book.count.snapshots == 2

    asyncio.run(scenario())


@pytest.mark.parametrize(("query", "code"), [({}, 1006), ({"code": 1012}, 1012)])
def test_cut_ends_the_connection(query, code):
    async def scenario():
        async with serving(**QUIET) as server, websocket(server, "/ws") as one, websocket(server, "/ws") as two:
            await ask(server, "control/cut", conn=1, **query)
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(one.recv(), 5)
            assert one.close_code == code
            await send(two, method="LIST_SUBSCRIPTIONS", id=1)
            assert await receive(two) == {"result": [], "id": 1}

    asyncio.run(scenario())


def test_refuse_rejects_new_websockets_for_a_time_but_not_control():
    async def scenario():
        async with serving(**QUIET) as server:
            await ask(server, "control/refuse", t=30, status=429)
            with pytest.raises(InvalidStatus) as refused:
                async with websocket(server, "/ws"):
                    pass
            assert refused.value.response.status_code == 429
            await ask(server, "control/refuse", t=0)
            async with websocket(server, "/ws"):
                pass
            await ask(server, "control/refuse", t=5, status=0)
            with pytest.raises((OSError, EOFError, InvalidMessage)):
                async with websocket(server, "/ws"):
                    pass
            await ask(server, "control/clear")
            async with websocket(server, "/ws"):
                pass

    asyncio.run(scenario())


def test_stall_is_silent_also_for_pings_and_then_delivers_late():
    async def scenario():
        async with serving(**QUIET) as server, websocket(server, STREAM) as client:
            await ask(server, "control/stall", t=0.8)
            await ask(server, "control/step", n=3, symbol="BTCUSDT")
            pong = await client.ping()
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                await receive(client, 0.3)
            assert not pong.done()
            ids = [(await receive(client))["data"]["u"] for _ in range(3)]
            assert ids == list(range(ids[0], ids[0] + 3)) and time.monotonic() - started > 0.3
            await asyncio.wait_for(pong, 5)

    asyncio.run(scenario())


def test_stale_slow_and_failing_snapshots():
    async def scenario():
        async with serving(**QUIET) as server:
            await ask(server, "control/step", n=100, symbol="BTCUSDT")
            last = (await ask(server, "truth/last", symbol="BTCUSDT"))["id"]
            await ask(server, "control/stale", k=50, symbol="BTCUSDT")
            old = await ask(server, "api/v3/depth", symbol="BTCUSDT", limit=5000)
            assert old["lastUpdateId"] == last - 50
            book = SpotBook()
            book.replace(old["bids"], old["asks"])
            true = await ask(server, "truth/book", symbol="BTCUSDT", id=last - 50)
            assert book.top() == {"bids": true["bids"], "asks": true["asks"]}
            assert (await ask(server, "api/v3/depth", symbol="BTCUSDT"))["lastUpdateId"] == last

            await ask(server, "control/slow", t=0.3)
            started = time.monotonic()
            await ask(server, "api/v3/depth", symbol="BTCUSDT")
            assert time.monotonic() - started >= 0.3

            for status in (500, 429, 418):
                await ask(server, "control/error", status=status, retry_after=7)
                with pytest.raises(urllib.error.HTTPError) as failed:
                    await ask(server, "api/v3/depth", symbol="BTCUSDT")
                assert failed.value.code == status and failed.value.headers["Retry-After"] == "7"
            await ask(server, "api/v3/depth", symbol="BTCUSDT")

    asyncio.run(scenario())


def test_garbage_arrives_as_given():
    async def scenario():
        async with serving(**QUIET) as server, websocket(server, "/ws") as client:
            for query, expected in (({"text": "{]"}, "{]"), ({"hex": "00ff10"}, b"\x00\xff\x10")):
                await ask(server, "control/garbage", **query)
                assert await asyncio.wait_for(client.recv(), 5) == expected
            await ask(server, "control/garbage")
            with pytest.raises(json.JSONDecodeError):
                await receive(client)

    asyncio.run(scenario())


def test_pause_stops_the_flow_and_resume_goes_on():
    async def scenario():
        async with serving(symbols=("BTCUSDT", "ETHUSDT"), rate=2000.0, levels=50) as server:
            ids = (await ask(server, "control/pause", symbol="BTCUSDT"))["ids"]
            await asyncio.sleep(0.1)
            later = await ask(server, "control/checkpoint")
            assert later["ids"]["BTCUSDT"] == ids["BTCUSDT"] and later["paused"] == ["BTCUSDT"]
            assert later["ids"]["ETHUSDT"] > 0
            await ask(server, "control/resume")
            await asyncio.sleep(0.1)
            assert (await ask(server, "control/checkpoint"))["ids"]["BTCUSDT"] > ids["BTCUSDT"]

    asyncio.run(scenario())


def test_shutdown_is_announced_before_the_close():
    async def scenario():
        async with serving(**QUIET) as server, websocket(server, STREAM) as client:
            await ask(server, "control/shutdown", t=0.1)
            message = await receive(client)
            assert message["stream"] == "!serverShutdown" and message["data"]["e"] == "serverShutdown"
            with pytest.raises(ConnectionClosed):
                await receive(client)

    asyncio.run(scenario())


def test_reordered_diffs_make_a_gap_and_a_snapshot_heals():
    async def scenario():
        async with serving(**QUIET) as server, websocket(server, "/ws/btcusdt@depth@0ms") as client:
            book = SpotBook()
            book.snapshot(await ask(server, "api/v3/depth", symbol="BTCUSDT", limit=5000))
            await ask(server, "control/swap")
            await ask(server, "control/step", n=10, symbol="BTCUSDT")
            for _ in range(10):
                book.diff(await receive(client))
            assert not book.live and book.count.gaps == 1
            book.snapshot(await ask(server, "api/v3/depth", symbol="BTCUSDT", limit=5000))
            await ask(server, "control/step", n=10, symbol="BTCUSDT")
            await follow(client, book, book.last_seq + 10)
            true = await ask(server, "truth/book", symbol="BTCUSDT")
            assert book.top() == {"bids": true["bids"], "asks": true["asks"]} and book.last_seq == true["id"]

    asyncio.run(scenario())


def test_help_lists_the_verbs_and_bad_queries_are_explained():
    async def scenario():
        async with serving(**QUIET) as server:
            verbs = (await ask(server, "control/help"))["verbs"]
            assert {"/control/drop", "/control/stall", "/control/stale", "/control/checkpoint"} <= set(verbs)
            for path, query, status, word in (
                ("control/nosuch", {}, 404, "verbs"),
                ("control/stall", {}, 400, "t= is missing"),
                ("control/drop", {"n": "x"}, 400, "n=x: not a whole number"),
                ("truth/book", {"symbol": "NOSUCH"}, 400, "not offered here"),
                ("truth/book", {"symbol": "BTCUSDT", "id": 1}, 400, "id 1 is not kept"),
            ):
                with pytest.raises(urllib.error.HTTPError) as failed:
                    await ask(server, path, **query)
                assert failed.value.code == status and word in failed.value.read().decode()

    asyncio.run(scenario())


def test_client_that_does_not_read_is_cut(monkeypatch):
    monkeypatch.setattr(link, "SLOW_READER_BYTES", 100_000)

    async def scenario():
        async with serving(**QUIET) as server, websocket(server, STREAM) as client:
            client.transport.pause_reading()
            for _ in range(200):
                await ask(server, "control/step", n=1000, symbol="BTCUSDT")
                if not server.links:
                    break
            assert not server.links

    asyncio.run(scenario())
