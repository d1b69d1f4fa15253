"""Make a recording of one session of the simulated venue, without sockets, byte-equal for a seed.

    python -m exchange.record --venue binance --seed 7 --events 5000 --out binance-7.jsonl.gz

writes the recording (one JSON object a line: ts_ns, conn, dir, url, raw, event) and beside it binance-7.truth.json:
what a right book must say after it. The URLs are the real venues', since a replay knows the venue by them. Times are
made up.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from exchange.binance import BinanceSession, Spot
from exchange.binance_usdm import UsdM
from exchange.coinbase import CoinbaseSession
from exchange.engine import Market
from exchange.faults import Rule, SendFaults, SnapshotFaults, Verb
from exchange.instrument import stripped_text
from exchange.journal import side_of
from exchange.kraken import KrakenSession
from exchange.rebuild import truth
from exchange.rest import Rest
from exchange.session import Out, Session
from exchange.times import MS, SECOND
from exchange.venue import Venue

START_NS = 1_760_000_000 * SECOND
RATE = 200.0
REACTION_NS = 300 * MS
KRAKEN_DEPTH = 10  # every message touches the checksum, so no lost one stays hidden
CONNECTION_ID = 2_950_167_385_101_900_187

Line = dict[str, Any]
Mutation = Literal["drop", "dup", "swap", "cut"]


class WrongTruth(AssertionError):
    """The plain rebuild of a recording is not the engine's book: one of the two is wrong."""

    def __init__(self, symbol: str) -> None:
        super().__init__(f"{symbol}: the book rebuilt from the recording is not the engine's")


@dataclass(frozen=True)
class Shape:
    """How a session with a venue looks from outside."""

    url: str
    rest: str
    metadata: str
    """path of the metadata, asked before connecting; "" if they come in the stream"""
    session: Callable[[Venue, int], Session]
    requests: Callable[[list[Market]], list[str]]
    depth: str = ""
    """path of REST snapshots; "" if they come in the stream"""


def _binance_requests(markets: list[Market], trades: str = "trade") -> list[str]:
    kinds = ("depth@100ms", "bookTicker", trades)
    params = [f"{market.instrument.stream}@{kind}" for kind in kinds for market in markets]
    return [_json({"method": "SUBSCRIBE", "params": params, "id": 1})]


def _kraken_requests(markets: list[Market], method: str = "subscribe") -> list[str]:
    pairs = [market.instrument.pair for market in markets]
    book = {"channel": "book", "symbol": pairs, "depth": KRAKEN_DEPTH, "snapshot": True}
    return [_json({"method": method, "params": book})]


def _kraken_start(markets: list[Market]) -> list[str]:
    pairs = [market.instrument.pair for market in markets]
    instrument = {"method": "subscribe", "params": {"channel": "instrument", "snapshot": True}}
    trade = {"method": "subscribe", "params": {"channel": "trade", "symbol": pairs, "snapshot": False}}
    return [_json(instrument), *_kraken_requests(markets), _json(trade)]


def _coinbase_requests(markets: list[Market], kind: str = "subscribe") -> list[str]:
    products = [market.instrument.product for market in markets]
    return [_json({"type": kind, "product_ids": products, "channel": "level2"})]


def _coinbase_start(markets: list[Market]) -> list[str]:
    products = [market.instrument.product for market in markets]
    trades = {"type": "subscribe", "product_ids": products, "channel": "market_trades"}
    heartbeats = {"type": "subscribe", "product_ids": [], "channel": "heartbeats"}
    return [_json(trades), *_coinbase_requests(markets), _json(heartbeats)]


SHAPES = {
    "binance": Shape(
        "wss://stream.binance.com:9443/stream",
        "https://api.binance.com",
        "/api/v3/exchangeInfo",
        lambda venue, now: BinanceSession(venue, Spot(), [], True, now),
        _binance_requests,
        "/api/v3/depth",
    ),
    "binance-usdm": Shape(
        "wss://fstream.binance.com/public/stream",
        "https://fapi.binance.com",
        "/fapi/v1/exchangeInfo",
        lambda venue, now: BinanceSession(venue, UsdM(), [], True, now),
        _binance_requests,
        "/fapi/v1/depth",
    ),
    "kraken": Shape(
        "wss://ws.kraken.com/v2", "", "", lambda venue, now: KrakenSession(venue, CONNECTION_ID, now), _kraken_start
    ),
    "coinbase": Shape(
        "wss://advanced-trade-ws.coinbase.com",
        "https://api.coinbase.com",
        "/api/v3/brokerage/market/products",
        CoinbaseSession,
        _coinbase_start,
    ),
}


class Recorder:
    """A client, a venue and a clock in one; every line has a later time than the one before."""

    def __init__(self, venue_name: str, seed: int, symbols: tuple[str, ...], levels: int) -> None:
        self.name = venue_name
        self.shape = SHAPES[venue_name]
        self.fault_line: int | None = None
        """index of the first line after the fault, None without one"""
        self.venue = Venue(symbols, seed, levels)
        self.lines: list[Line] = []
        self._random = random.Random(f"record:{venue_name}:{seed}")
        self._rest = Rest(self.venue, SnapshotFaults())
        self._faults = SendFaults()
        self._now_ns = START_NS
        self._last_ns = START_NS
        self._session: Session | None = None
        self._due: list[tuple[int, Callable[[], None]]] = []

    def run(self, events: int, mutate: Mutation | None) -> None:
        """The whole session: metadata, connection, `events` events, a quiet second; a fault at one half, healed."""
        if self.shape.metadata:
            self._http(self.shape.metadata, {})
        self._connect()
        for count in range(events):
            if mutate and count == events // 2:
                self._misbehave(mutate)
            self._wait(int(self._random.expovariate(RATE * len(self.venue.flows)) * SECOND))
            self._event(self._random.choice(list(self.venue.flows)))
        self._faults.rules.clear()
        self._wait(SECOND)
        for symbol in self.venue.flows:  # so that what was held back by a late fault shows before the end
            self._event(symbol)
        self._wait(SECOND)

    def _event(self, symbol: str) -> None:
        event = self.venue.step(symbol, self._now_ns)
        if self._session:
            self._receive(self._session.event(self.venue.flows[symbol].market, event))

    def _wait(self, duration_ns: int) -> None:
        """Let time pass in steps of at most 5 ms, doing what falls due."""
        until_ns = self._now_ns + duration_ns
        while self._now_ns < until_ns:
            self._now_ns = min(until_ns, self._now_ns + 5 * MS)
            if self._session:
                self._receive(self._session.tick(self._now_ns))
            for item in [item for item in self._due if item[0] <= self._now_ns]:
                self._due.remove(item)
                item[1]()

    def _later(self, delay_ns: int, action: Callable[[], None]) -> None:
        self._due.append((self._now_ns + delay_ns, action))

    def _connect(self) -> None:
        """Open the connection, subscribe, and ask for REST snapshots a little after the first diffs."""
        self._write({"conn": "ws", "dir": "out", "url": self.shape.url, "raw": "", "event": "connect"})
        session = self._session = self.shape.session(self.venue, self._now_ns)
        self._receive(session.connected(self._now_ns))
        self._request(self.shape.requests(self.venue.markets))
        self._snapshots(list(self.venue.flows))

    def _request(self, texts: list[str]) -> None:
        assert self._session is not None
        for text in texts:
            self._write({"conn": "ws", "dir": "out", "url": self.shape.url, "raw": text})
            self._receive(self._session.receive(text, self._now_ns))

    def _snapshots(self, symbols: list[str]) -> None:
        """Ask for REST snapshots one after another; each is taken at once and arrives 120 ms later."""
        if self.shape.depth:
            for index, symbol in enumerate(symbols, 1):
                self._later(index * 150 * MS, partial(self._snapshot, symbol))

    def _snapshot(self, symbol: str) -> None:
        query = {"symbol": symbol, "limit": "1000"}
        answer = self._rest.answer(self.shape.depth, query, self._now_ns)
        assert answer is not None and answer.status == 200
        url = f"{self.shape.rest}{self.shape.depth}?symbol={symbol}&limit=1000"
        line = {"conn": "http", "dir": "http", "url": url, "raw": answer.body.decode()}
        self._later(120 * MS, partial(self._write, line))

    def _http(self, path: str, query: dict[str, str]) -> None:
        answer = self._rest.answer(path, query, self._now_ns)
        assert answer is not None
        self._write({"conn": "http", "dir": "http", "url": self.shape.rest + path, "raw": answer.body.decode()})

    def _misbehave(self, mutate: Mutation) -> None:
        """Order the fault for the first symbol (a cut: for all), and what a client does that notices it."""
        symbol = next(iter(self.venue.flows))
        if mutate == "cut":
            self.fault_line = len(self.lines)
            self._session = None
            self._later(SECOND, self._connect)
            return
        verb: Verb = mutate
        harmless = verb == "dup" and self.name in ("binance", "kraken")
        self._faults.rules.append(Rule(verb, 1, "depth", symbol))
        if not harmless:
            self._later(REACTION_NS, partial(self._heal, symbol))

    def _heal(self, symbol: str) -> None:
        """What a client does that noticed: REST venues get a new snapshot, the others resubscribe."""
        if self.shape.depth:
            self._snapshots([symbol])
        elif isinstance(self._session, KrakenSession):
            markets = [self.venue.flows[symbol].market]
            self._request(_kraken_requests(markets, "unsubscribe") + _kraken_requests(markets))
        else:  # Coinbase counts messages a connection, so all its books are in doubt
            markets = self.venue.markets
            self._request(_coinbase_requests(markets, "unsubscribe") + _coinbase_requests(markets))

    def _receive(self, outs: list[Out]) -> None:
        for out in outs:
            sent = self._faults.apply(out)
            if sent != [out] and self.fault_line is None:
                self.fault_line = len(self.lines)
            for message in sent:
                self._write({"conn": "ws", "dir": "in", "raw": message.text})

    def _write(self, line: Line) -> None:
        """Note a line as received 0.3 to 1.5 ms from now, later than all before."""
        latency_ns = self._random.randrange(300_000, 1_500_000)
        self._last_ns = max(self._last_ns + 1_000, self._now_ns + latency_ns)
        self.lines.append({"ts_ns": self._last_ns, **line})


def record(
    venue_name: str,
    seed: int,
    events: int,
    symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT"),
    levels: int = 300,
    mutate: Mutation | None = None,
) -> tuple[list[Line], dict[str, Any]]:
    """(lines of the recording, truth). Raises WrongTruth if the rebuilt books are not the engine's."""
    recorder = Recorder(venue_name, seed, symbols, levels)
    recorder.run(events, mutate)
    books = truth(recorder.lines)
    for market in recorder.venue.markets:
        inst = market.instrument
        name = {"kraken": inst.pair, "coinbase": inst.product}.get(venue_name, inst.symbol)
        sides = {
            f"{side}_top10": [
                [stripped_text(ticks, inst.price_decimals), stripped_text(lots, inst.lot_decimals)]
                for ticks, lots in side_of(market.levels, side == "bids", 10)
            ]
            for side in ("bids", "asks")
        }
        if not books[name]["in_sync_at_end"] or any(books[name][key] != top for key, top in sides.items()):
            raise WrongTruth(name)
    return recorder.lines, {
        "made_by": "exchange.record",
        "venue": venue_name,
        "seed": seed,
        "events": events,
        "mutate": mutate,
        "fault_line": recorder.fault_line,
        "lines": len(recorder.lines),
        "symbols": books,
    }


def write(lines: list[Line], truth_of: dict[str, Any], out: Path) -> None:
    """The recording to `out`, the truth beside it; the same bytes for the same lines."""
    data = "".join(_json(line) + "\n" for line in lines).encode()
    out.write_bytes(gzip.compress(data, 9, mtime=0))
    truth_path(out).write_text(json.dumps(truth_of, indent=1) + "\n")


def truth_path(out: Path) -> Path:
    return out.with_name(out.name.removesuffix(".gz").removesuffix(".jsonl") + ".truth.json")


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="exchange.record", description="Write a recording of a simulated session and the truth about it."
    )
    add = parser.add_argument
    add("--venue", choices=sorted(SHAPES), required=True)
    add("--seed", type=int, default=7, help="[%(default)s]")
    add("--events", type=int, default=5000, help="order events of all symbols together [%(default)s]")
    add("--symbols", default="BTCUSDT,ETHUSDT", help="Binance symbols [%(default)s]")
    add("--levels", type=int, default=300, help="levels a side [%(default)s]")
    add("--mutate", choices=["drop", "dup", "swap", "cut"], help="a fault half way, and how a client heals it")
    add("--out", type=Path, required=True, metavar="FILE.jsonl.gz")
    given = parser.parse_args(arguments)
    symbols = tuple(given.symbols.split(","))
    lines, truth_of = record(given.venue, given.seed, given.events, symbols, given.levels, given.mutate)
    write(lines, truth_of, given.out)
    print(f"exchange.record: {given.out}: {len(lines)} lines", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
