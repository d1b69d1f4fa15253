"""`lob.Board`: the newest top of every book of a pipeline, from the board in shared memory. Read-only.

    board = lob.Board("binance")
    top = board.top("BTCUSDT", 5)
    if top.live:
        print(top.bid_texts(), top.ask_texts())

Whoever writes the board may be dead or stopped and cannot say so itself: `top` calls a book live only while the
writer gives signs of life.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lob import _native
from lob.errors import ForeignOwner, RingError, WrongLayout
from lob.names import check_name, ring_name
from lob.records import BOARD_ENTRY, LEVEL, BookState, Reason
from lob.roles import WRITER_ROLE, role_held
from lob.segments import Kind, open_segment
from lob.units import decimal_text

SILENT_NS = 900_000_000  # live at most a second after the writer's last sign of life, with room for our own delay
READ_S = 0.05  # a slot that stays half-written for so long has a dead writer
_NO_LEVELS: npt.NDArray[np.void] = np.empty(0, LEVEL)


class NoSuchSymbol(KeyError):
    """The board has no such instrument."""

    def __init__(self, symbol: str, board: str) -> None:
        super().__init__(symbol)
        self.symbol, self.board = symbol, board

    def __str__(self) -> str:
        return f"{self.board} has no {self.symbol}; symbols() tells what it has"


@dataclass(frozen=True, slots=True)
class Top:
    """The best levels of one book at one moment. `bids` and `asks`: LEVEL arrays (price, qty mantissas), best first."""

    symbol: str
    state: BookState
    reason: Reason
    detail: str  # a word more where the reason needs one: "owner dead"
    bids: npt.NDArray[np.void]
    asks: npt.NDArray[np.void]
    price_scale: int
    qty_scale: int
    last_seq: int  # the venue's number of the newest update that changed one of the board's levels
    ring_seq: int  # the book-ring record that this reflects
    updates: int
    version: int
    exch_ns: int
    recv_ns: int
    age_ns: int  # since the book was written; while live, nothing has changed since

    @property
    def live(self) -> bool:
        return self.state is BookState.LIVE

    def bid_texts(self) -> list[tuple[str, str]]:
        """(price, quantity) as exact decimal text, best first."""
        return self._texts(self.bids)

    def ask_texts(self) -> list[tuple[str, str]]:
        return self._texts(self.asks)

    def _texts(self, levels: npt.NDArray[np.void]) -> list[tuple[str, str]]:
        return [
            (decimal_text(price, self.price_scale), decimal_text(qty, self.qty_scale)) for price, qty in levels.tolist()
        ]


class Board:
    """The board of an instance ("binance" or its full name "/lob.binance.board")."""

    def __init__(self, instance: str) -> None:
        """Raises NoRing or WrongLayout."""
        self.name = check_name(instance) if instance.startswith("/") else ring_name(instance, "board")
        self._attach()

    def _attach(self) -> None:
        segment = open_segment(self.name, writable=False)
        if segment.facts()["kind"] != int(Kind.BOARD):
            raise WrongLayout(f"{self.name} is no board")
        self._segment = segment
        self._board = _native.Board(segment)
        self._slots: dict[str, int] = {}

    @property
    def depth(self) -> int:
        """Levels a side that the board keeps."""
        return self._board.depth

    def symbols(self) -> list[str]:
        """All instruments that the board has ever had, in their order."""
        self._owner_trouble()  # goes over to a board that was made anew
        self._look_for_symbols()
        return list(self._slots)

    def top(self, symbol: str, n: int | None = None) -> Top:
        """The best `n` levels a side (None: all that the board keeps). Raises NoSuchSymbol."""
        trouble = self._owner_trouble()
        slot = self._slots.get(symbol)
        read = None if slot is None else self._read(slot)
        if slot is None or (read is not None and _symbol(_entry(read[0])) != symbol):
            self._look_for_symbols()
            slot = self._slots.get(symbol)
            if slot is None:
                raise NoSuchSymbol(symbol, self.name)
            read = self._read(slot)
        if read is None:
            return _unreadable(symbol)
        entry = _entry(read[0])
        state, reason, detail = BookState(int(entry["state"])), Reason(int(entry["reason"])), ""
        if trouble is not None:
            state, (reason, detail) = BookState.STALE, trouble
        return Top(
            symbol,
            state,
            reason,
            detail,
            np.frombuffer(read[1], LEVEL)[:n],
            np.frombuffer(read[2], LEVEL)[:n],
            int(entry["price_scale"]),
            int(entry["qty_scale"]),
            int(entry["last_seq"]),
            int(entry["ring_seq"]),
            int(entry["updates"]),
            int(entry["version"]),
            int(entry["exch_ns"]),
            int(entry["recv_ns"]),
            max(0, _native.mono_ns() - int(entry["updated_ns"])),
        )

    def _read(self, slot: int) -> tuple[bytes, bytes, bytes] | None:
        """A slot at one moment; None if it stays half-written."""
        deadline = time.monotonic() + READ_S
        while (read := self._board.read(slot)) is None:
            if time.monotonic() > deadline:
                return None
            time.sleep(0.0005)
        return read

    def _look_for_symbols(self) -> None:
        slots: dict[str, int] = {}
        for slot in range(self._board.slots):
            read = self._board.read(slot)
            if read is None:
                continue
            entry = _entry(read[0])
            if int(entry["updates"]) and (symbol := _symbol(entry)):
                slots[symbol] = slot
        # A slot that is half-written now keeps the name it had.
        self._slots = {**{s: i for s, i in self._slots.items() if i not in slots.values()}, **slots}

    def _owner_trouble(self) -> tuple[Reason, str] | None:
        """Why the board's writer cannot be trusted; None if it lives. Goes over to a board that was made anew."""
        trouble = self._trouble()
        if trouble is None:
            return None
        try:
            if open_segment(self.name, writable=False).nonce == self._segment.nonce:
                return trouble
            self._attach()
        except RingError:
            return trouble
        return self._trouble()

    def _trouble(self) -> tuple[Reason, str] | None:
        if _native.mono_ns() - self._segment.heartbeat_ns > SILENT_NS:
            return Reason.UPSTREAM_SILENT, "no sign of life"
        try:
            if not role_held(self.name, WRITER_ROLE):
                return Reason.UPSTREAM_SILENT, "owner gone"
        except ForeignOwner:  # another user's lock cannot be looked at; the sign of life is all we have
            pass
        return None


def _entry(record: bytes) -> np.void:
    entry: np.void = np.frombuffer(record, BOARD_ENTRY)[0]
    return entry


def _symbol(entry: np.void) -> str:
    return bytes(entry["symbol"]).decode("utf-8", "replace")


def _unreadable(symbol: str) -> Top:
    return Top(
        symbol, BookState.STALE, Reason.UPSTREAM_SILENT, "owner dead", _NO_LEVELS, _NO_LEVELS, 0, 0, 0, 0, 0, 0, 0, 0, 0
    )
