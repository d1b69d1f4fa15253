"""A foreign client judges the simulated venue: ccxt.pro keeps the book that the truth says, at the same id."""

from __future__ import annotations

import asyncio

import pytest

from exchange.client import ask, serving

pytest.importorskip("ccxt.pro", reason="ccxt is not installed: no foreign client to judge the venue")

DEPTH = 50
SIDES = ("bids", "asks")


def pointed_at(urls, ws, rest):
    """ccxt's URL table with every WebSocket and REST address replaced."""
    if isinstance(urls, dict):
        return {key: pointed_at(value, ws, rest) for key, value in urls.items()}
    return ws if str(urls).startswith("wss://") else rest


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["spot", "future"])
def test_ccxt_binance_keeps_the_true_book(kind):
    import ccxt.pro

    name, types, symbol = {
        "spot": ("binance", ["spot"], "BTC/USDT"),
        "future": ("binanceusdm", ["linear"], "BTC/USDT:USDT"),
    }[kind]
    venue = "binance" if kind == "spot" else "binance-usdm"

    async def scenario():
        async with serving(symbols=("BTCUSDT", "ETHUSDT"), rate=1000.0, levels=150) as server:
            at = server.addresses()
            options = {"fetchMarkets": {"types": types}, "fetchCurrencies": False}
            client = getattr(ccxt.pro, name)({"enableRateLimit": False, "newUpdates": True, "options": options})
            spot = kind == "spot"
            client.urls["api"] = pointed_at(
                client.urls["api"],
                at["ws"] + "/ws" if spot else at["usdm_ws"] + "/ws",
                at["rest"] + ("/api/v3" if spot else "/fapi/v1"),
            )
            try:
                for _ in range(12):
                    book = await asyncio.wait_for(client.watch_order_book(symbol), 10)
                    nonce, bids, asks = book["nonce"], book["bids"][:DEPTH], book["asks"][:DEPTH]
                    true = await ask(server, "truth/book", symbol="BTCUSDT", id=nonce, depth=DEPTH, venue=venue)
                    for mine, truth in ((bids, true["bids"]), (asks, true["asks"])):
                        assert [list(level[:2]) for level in mine] == [[float(p), float(q)] for p, q in truth]
            finally:
                await client.close()

    asyncio.run(scenario())


@pytest.mark.filterwarnings("ignore")
def test_ccxt_kraken_never_has_a_top_that_was_not_true():
    """ccxt's own checksum test is switched off and cannot run on numbers, so the truth is asked for each top."""
    import ccxt.pro

    async def scenario():
        async with serving(symbols=("BTCUSDT",), rate=1000.0, levels=150) as server:
            client = ccxt.pro.kraken({"newUpdates": True})
            market = client.safe_market_structure(
                {
                    "id": "BTCUSD",
                    "symbol": "BTC/USD",
                    "base": "BTC",
                    "quote": "USD",
                    "wsId": "BTC/USD",
                    "info": {"wsname": "BTC/USD"},
                    "precision": {"price": 0.01, "amount": 1e-8},
                }
            )
            client.set_markets([market])
            urls = client.urls["api"]["ws"]
            client.urls["api"]["ws"] = {key: server.addresses()["kraken_ws"] for key in urls}
            try:
                for _ in range(40):
                    book = await asyncio.wait_for(client.watch_order_book("BTC/USD", 10), 10)
                    top = {side: [[f"{p:.2f}", f"{q:.8f}"] for p, q, *_ in book[side][:10]] for side in SIDES}
                    found = await ask(server, "truth/contains", symbol="BTC/USD", top=top)
                    assert found["found"], top
            finally:
                await client.close()

    asyncio.run(scenario())
