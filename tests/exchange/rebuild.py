"""Books rebuilt from messages by the venues' documented procedures, as plainly as possible, in exact decimals.

Shares no code with the message builders: it reads text only. The recorder takes its truth from here, and the tests
compare this with the engine. Every book counts what happened to it under the names of `Count`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any
from zlib import crc32

Json = dict[str, Any]


@dataclass
class Count:
    snapshots: int = 0
    updates: int = 0
    stale_dropped: int = 0
    gaps: int = 0
    checksums_ok: int = 0
    checksums_failed: int = 0


class Book:
    """Two sides as dicts from price to quantity; `live` says whether it may be believed."""

    def __init__(self) -> None:
        self.bids: dict[Decimal, str] = {}
        self.asks: dict[Decimal, str] = {}
        self.live = False
        self.last_seq = 0
        self.count = Count()

    def replace(self, bids: Iterable[Iterable[str]], asks: Iterable[Iterable[str]]) -> None:
        self.bids, self.asks = {}, {}
        self.apply(bids, asks)

    def apply(self, bids: Iterable[Iterable[str]], asks: Iterable[Iterable[str]]) -> None:
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for price, qty, *_ in levels:
                if Decimal(qty):
                    side[Decimal(price)] = qty
                else:
                    side.pop(Decimal(price), None)

    def top(self, depth: int | None = None) -> Json:
        """{"bids": [[price, qty], ..], "asks": ..}, best first, without trailing zeros."""
        return {
            "bids": [[plain(p), plain(self.bids[p])] for p in sorted(self.bids, reverse=True)[:depth]],
            "asks": [[plain(p), plain(self.asks[p])] for p in sorted(self.asks)[:depth]],
        }


def plain(number: Decimal | str) -> str:
    """Exact text without trailing zeros or exponent: "0.10000000" -> "0.1"."""
    text = format(Decimal(number), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


class SpotBook(Book):
    """Binance spot: apply if U <= L+1 <= u, drop if u <= L, gap if U > L+1."""

    def __init__(self) -> None:
        super().__init__()
        self.buffered: list[Json] = []

    def diff(self, message: Json) -> None:
        if not self.live:
            self.buffered.append(message)
        elif message["u"] <= self.last_seq:
            self.count.stale_dropped += 1
        elif self.follows(message):
            self.apply(message["b"], message["a"])
            self.last_seq = message["u"]
            self.count.updates += 1
        else:
            self.count.gaps += 1
            self.live = False
            self.buffered = [message]

    def snapshot(self, answer: Json) -> bool:
        """Start from a REST answer; False if it is older than the first buffered diff, then ask again."""
        if self.buffered and self.too_old(answer["lastUpdateId"], self.buffered[0]):
            return False
        self.replace(answer["bids"], answer["asks"])
        self.live, self.last_seq = True, answer["lastUpdateId"]
        self.count.snapshots += 1
        waiting, self.buffered = self.buffered, []
        for message in waiting:
            self.diff(message)
        return True

    def too_old(self, seq: int, first: Json) -> bool:
        return bool(seq + 1 < first["U"])

    def follows(self, message: Json) -> bool:
        return bool(message["U"] <= self.last_seq + 1)

    def disconnected(self) -> None:
        self.live, self.buffered = False, []


class UsdMBook(SpotBook):
    """Binance USD-M: after a snapshot S drop u < S; the first diff has U <= S <= u; then each pu is the u before."""

    def __init__(self) -> None:
        super().__init__()
        self._first = False

    def snapshot(self, answer: Json) -> bool:
        self._first = True
        return super().snapshot(answer)

    def diff(self, message: Json) -> None:
        if self.live and self._first and message["u"] == self.last_seq:  # S itself: applied, though it changes nothing
            self.last_seq -= 1
        if self.live and not self._first and message["pu"] != self.last_seq:
            self.count.gaps += 1
            self.live = False
            self.buffered = [message]
        else:
            super().diff(message)

    def too_old(self, seq: int, first: Json) -> bool:
        return bool(seq < first["pu"])

    def follows(self, message: Json) -> bool:
        """`pu == S` is let through as the first one too: nothing lies between the snapshot and it."""
        first, self._first = self._first, False
        return not first or bool(message["U"] <= self.last_seq + 1 or message["pu"] == self.last_seq)


class KrakenBook(Book):
    """Kraken v2: cut to `depth` after each message, then the CRC-32 of the best ten must be the one sent."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth

    def message(self, kind: str, data: Json) -> None:
        """One entry of `data`, its numbers kept as text."""
        bids, asks = ([(level["price"], level["qty"]) for level in data[side]] for side in ("bids", "asks"))
        if kind == "snapshot":
            self.replace(bids, asks)
            self.live = True
            self.count.snapshots += 1
        elif self.live:
            self.apply(bids, asks)
            self.bids = {p: self.bids[p] for p in sorted(self.bids, reverse=True)[: self.depth]}
            self.asks = {p: self.asks[p] for p in sorted(self.asks)[: self.depth]}
            self.count.updates += 1
        else:
            return
        if self.checksum() == int(data["checksum"]):
            self.count.checksums_ok += 1
        else:
            self.count.checksums_failed += 1
            self.live = False

    def checksum(self) -> int:
        best = [(p, self.asks[p]) for p in sorted(self.asks)[:10]]
        best += [(p, self.bids[p]) for p in sorted(self.bids, reverse=True)[:10]]
        texts = (str(number).replace(".", "").lstrip("0") for level in best for number in level)
        return crc32("".join(texts).encode())


class CoinbaseBook(Book):
    def message(self, event: Json, seq: int) -> None:
        if event["type"] == "snapshot":
            self.replace([], [])
            self.live = True
            self.count.snapshots += 1
        elif not self.live:
            return
        else:
            self.count.updates += 1
        levels = [(u["side"], (u["price_level"], u["new_quantity"])) for u in event["updates"]]
        self.apply([x for side, x in levels if side == "bid"], [x for side, x in levels if side == "offer"])
        self.last_seq = seq


class Connection:
    """The books of one connection, fed with its recorded lines."""

    def __init__(self) -> None:
        self.spot: dict[str, SpotBook] = {}
        self.kraken: dict[str, KrakenBook] = {}
        self.coinbase: dict[str, CoinbaseBook] = {}
        self._url = ""
        self._depth = 10
        self._next_seq: int | None = None

    def books(self) -> dict[str, Book]:
        return {**self.spot, **self.kraken, **self.coinbase}

    def line(self, line: Json) -> None:
        """One line of a recording, as its README describes them."""
        if line.get("event") == "connect":
            self._url, self._next_seq = line["url"], None
            for book in self.books().values():
                book.live = False
            for spot in self.spot.values():
                spot.disconnected()
        elif line["dir"] == "http" and "/depth?" in line["url"]:
            symbol = line["url"].split("symbol=")[1].split("&")[0]
            self._spot(symbol).snapshot(json.loads(line["raw"]))
        elif line["dir"] == "out" and line["raw"]:
            params = json.loads(line["raw"]).get("params")
            if isinstance(params, dict):
                self._depth = params.get("depth", self._depth)
        elif line["dir"] == "in":
            self._in(line["raw"])

    def _in(self, raw: str) -> None:
        if "coinbase" in self._url:
            self._coinbase(json.loads(raw))
        elif "kraken" in self._url:
            message = json.loads(raw, parse_float=str, parse_int=str)
            if message.get("channel") == "book":
                for data in message["data"]:
                    book = self.kraken.setdefault(data["symbol"], KrakenBook(self._depth))
                    book.message(message["type"], data)
        else:
            message = json.loads(raw)
            data = message.get("data", message)
            if data.get("e") == "depthUpdate":
                self._spot(data["s"]).diff(data)

    def _spot(self, symbol: str) -> SpotBook:
        if symbol not in self.spot:
            self.spot[symbol] = UsdMBook() if "fstream" in self._url else SpotBook()
        return self.spot[symbol]

    def _coinbase(self, message: Json) -> None:
        if "sequence_num" not in message:
            return
        seq = message["sequence_num"]
        if self._next_seq is not None and seq != self._next_seq:
            for book in self.coinbase.values():
                book.count.gaps += book.live
                book.live = False
        self._next_seq = seq + 1
        if message["channel"] == "l2_data":
            for event in message["events"]:
                self.coinbase.setdefault(event["product_id"], CoinbaseBook()).message(event, seq)


def truth(lines: Iterable[Json], depth: int = 10) -> Json:
    """What a right book must say after these lines, by symbol."""
    connection = Connection()
    for line in lines:
        connection.line(line)
    return {
        symbol: {
            **asdict(book.count),
            "last_seq": book.last_seq,
            "in_sync_at_end": book.live,
            "levels": [len(book.bids), len(book.asks)],
            **{f"{side}_top{depth}": levels for side, levels in book.top(depth).items()},
        }
        for symbol, book in sorted(connection.books().items())
    }
