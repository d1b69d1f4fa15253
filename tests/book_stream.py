"""A synthetic book ring: what lob-book writes, made from a seed, and what a reader must know after it."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lob.names import ring_name
from lob.records import BookState, Flag, Reason, RecordType, build
from lob.rings import OutputRing
from lob.segments import Kind, Policy, RingState, unlink

Side = dict[int, int]


class Instrument:
    def __init__(self, number: int, price_scale: int, qty_scale: int) -> None:
        self.number = number
        self.symbol = f"COIN{number}USDT"
        self.version = 1
        self.price_scale, self.qty_scale = price_scale, qty_scale
        self.last_seq = 100
        self.bids: Side = {}
        self.asks: Side = {}

    def levels(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """(bids, asks), best first."""
        return sorted(self.bids.items(), reverse=True), sorted(self.asks.items())


class BookStream:
    """Gives `put` one record after another, as lob-book would."""

    def __init__(self, put: Callable[[bytes], object], *, seed: int, instruments: int = 2) -> None:
        self.random = random.Random(seed)
        self.put = put
        self.instruments = [Instrument(number, 2, 5) for number in range(instruments)]

    def begin(self) -> None:
        """Instruments, snapshots, live."""
        for instrument in self.instruments:
            self.announce(instrument)
            self.status(instrument, BookState.BUILDING)
            for _ in range(self.random.randrange(1, 30)):
                self._change(instrument)
            self.snapshot(instrument)
            self.status(instrument, BookState.LIVE)

    def step(self) -> None:
        """One thing that happens to one book."""
        instrument = self.random.choice(self.instruments)
        what = self.random.random()
        if what < 0.9:
            self.diff(instrument)
        elif what < 0.97:
            self.snapshot(instrument, Flag.REFRESH)
        elif what < 0.98 and instrument.price_scale < 9:
            self.rescale(instrument)
        else:
            self.status(instrument, BookState.STALE, Reason.GAP)
            self.snapshot(instrument)
            self.status(instrument, BookState.LIVE)

    def announce(self, instrument: Instrument) -> None:
        body = {
            "symbol": instrument.symbol.encode(),
            "price_scale": instrument.price_scale,
            "qty_scale": instrument.qty_scale,
            "depth": 1000,
        }
        self._put(RecordType.INSTRUMENT, instrument, body)

    def rescale(self, instrument: Instrument) -> None:
        """Finer digits have arrived."""
        instrument.version += 1
        instrument.price_scale += 1
        instrument.qty_scale += 1
        instrument.bids = {price * 10: qty * 10 for price, qty in instrument.bids.items()}
        instrument.asks = {price * 10: qty * 10 for price, qty in instrument.asks.items()}
        self.announce(instrument)
        self.snapshot(instrument, Flag.REFRESH)

    def snapshot(self, instrument: Instrument, flags: int = 0) -> None:
        bids, asks = instrument.levels()
        body = {"last_seq": instrument.last_seq}
        self._put(RecordType.SNAPSHOT, instrument, body, bids=bids, asks=asks, flags=flags)

    def diff(self, instrument: Instrument) -> None:
        changes: tuple[Side, Side] = ({}, {})
        for _ in range(self.random.randrange(1, 5)):
            side, price, qty = self._change(instrument)
            changes[side][price] = qty
        instrument.last_seq += 1
        body = {"first_seq": instrument.last_seq, "last_seq": instrument.last_seq}
        self._put(RecordType.DIFF, instrument, body, bids=list(changes[0].items()), asks=list(changes[1].items()))
        self.bbo(instrument)

    def bbo(self, instrument: Instrument) -> None:
        bids, asks = instrument.levels()
        bid, ask = (bids or [(0, 0)])[0], (asks or [(0, 0)])[0]
        body = {
            "last_seq": instrument.last_seq,
            "bid_price": bid[0],
            "bid_qty": bid[1],
            "ask_price": ask[0],
            "ask_qty": ask[1],
        }
        self._put(RecordType.BBO, instrument, body, flags=Flag.CONTINUED)

    def status(self, instrument: Instrument, state: BookState, reason: Reason = Reason.NONE) -> None:
        body = {"state": int(state), "reason": int(reason), "last_seq": instrument.last_seq}
        self._put(RecordType.STATUS, instrument, body)

    def _change(self, instrument: Instrument) -> tuple[int, int, int]:
        side = self.random.randrange(2)
        unit = 10 ** (instrument.price_scale - 2)
        price = (100_000 - self.random.randrange(1, 60) if side == 0 else 100_000 + self.random.randrange(60)) * unit
        qty = 0 if self.random.random() < 0.3 else self.random.randrange(1, 10**7)
        levels = instrument.asks if side else instrument.bids
        if qty:
            levels[price] = qty
        else:
            levels.pop(price, None)
        return side, price, qty

    def _put(
        self,
        kind: RecordType,
        instrument: Instrument,
        body: dict[str, object],
        *,
        bids: list[tuple[int, int]] | None = None,
        asks: list[tuple[int, int]] | None = None,
        flags: int = 0,
    ) -> None:
        self.put(
            build(
                kind,
                body,
                bids=bids,
                asks=asks,
                flags=flags,
                instrument=instrument.number,
                version=instrument.version,
                connection=0,
                session=1,
                exch_ns=1_700_000_000_000_000_000 + instrument.last_seq,
                recv_ns=1_700_000_000_000_500_000 + instrument.last_seq,
            )
        )


def unique_instance(prefix: str = "test") -> str:
    return f"{prefix}-{secrets.token_hex(6)}"


@contextmanager
def made_ring(
    instance: str, what: str = "book", *, policy: Policy = "drop", capacity_bytes: int = 1 << 20, keep: bool = False
) -> Iterator[OutputRing]:
    """A broadcast ring that this test owns; gone at the end, whatever happened."""
    name = ring_name(instance, what)
    ring = OutputRing(
        name,
        Kind.BROADCAST,
        policy=policy,
        capacity_bytes=capacity_bytes,
        manifest={"venue": "test"},
        keep=keep,
    )
    try:
        yield ring
    finally:
        ring.close(RingState.CLOSED, remove=True)
        unlink(name)
