"""Frames for the benchmarks: Binance depthUpdates of a given size, and the oracle that keeps their book in Python."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path

import orjson
from sortedcontainers import SortedDict

from lob.recording import read


def depth_updates(levels: int, count: int, seed: int = 7) -> list[bytes]:
    """`count` combined-stream frames of `levels` levels each: half near the touch, half removals, ids unbroken.

    Generated, so kinder than real traffic; the recordings are what counts.
    """
    chance = random.Random(seed)
    middle = 6_180_000  # cents
    frames, seq = [], 1000
    live: list[list[int]] = [[], []]
    for number in range(count):
        middle += chance.choice((-1, 0, 0, 1))
        sides: tuple[list[list[str]], list[list[str]]] = ([], [])
        for _ in range(levels):
            side = chance.randrange(2)
            if live[side] and chance.random() < 0.48:
                place = chance.randrange(len(live[side]))
                live[side][place], live[side][-1] = live[side][-1], live[side][place]
                price, qty = live[side].pop(), "0.00000000"
            else:
                distance = 500 + int(chance.expovariate(1 / 3000))
                price = middle - distance if side == 0 else middle + distance
                qty = f"{chance.randrange(1, 10_000_000) / 100_000:.5f}000"
                live[side].append(price)
            sides[side].append([f"{price // 100}.{price % 100:02d}000000", qty])
        data = {
            "e": "depthUpdate",
            "E": 1_700_000_000_000 + number,
            "s": "BTCUSDT",
            "U": seq + 1,
            "u": seq + levels,
            "b": sides[0],
            "a": sides[1],
        }
        frames.append(orjson.dumps({"stream": "btcusdt@depth@100ms", "data": data}))
        seq += levels
    return frames


SNAPSHOT = b'{"lastUpdateId":1000,"bids":[["61000.00000000","1.00000000"]],"asks":[["62600.00000000","1.00000000"]]}'
SNAPSHOT_URL = b"https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit=1000"


def recorded(path: Path) -> list[tuple[str, bytes, bytes]]:
    """(dir, url, text) of each line of a recording that carries data."""
    return [
        (entry["dir"], (entry.get("url") or "").encode(), entry["raw"].encode())
        for entry in read(path)
        if entry["dir"] in ("in", "http") and entry["raw"]
    ]


class PlainBook:
    """The same book with orjson, Decimal and sortedcontainers: the oracle, and the way of plain Python systems."""

    def __init__(self) -> None:
        self.bids: SortedDict[Decimal, Decimal] = SortedDict()
        self.asks: SortedDict[Decimal, Decimal] = SortedDict()
        self.levels = 0

    def apply(self, frame: bytes) -> None:
        message = orjson.loads(frame)
        data = message.get("data", message)
        for side, changes in ((self.bids, data["b"]), (self.asks, data["a"])):
            for price, qty in changes:
                self.levels += 1
                amount = Decimal(qty)
                if amount:
                    side[Decimal(price)] = amount
                else:
                    side.pop(Decimal(price), None)

    def snapshot(self, body: bytes) -> None:
        message = orjson.loads(body)
        self.bids = SortedDict((Decimal(p), Decimal(q)) for p, q in message["bids"])
        self.asks = SortedDict((Decimal(p), Decimal(q)) for p, q in message["asks"])

    def top(self, n: int) -> tuple[list[tuple[Decimal, Decimal]], list[tuple[Decimal, Decimal]]]:
        return list(reversed(self.bids.items()[-n:])), list(self.asks.items()[:n])


def levels_of(frame: bytes) -> int:
    """Levels in a depth message; 0 in any other."""
    message = orjson.loads(frame)
    data = message.get("data", message)
    if isinstance(data, dict) and data.get("e") == "depthUpdate":
        return len(data["b"]) + len(data["a"])
    return 0

