"""What the book was at every id, for a bounded stretch of the past.

Segments of 4096 ids, each with a copy of the whole book at its start; a book at an id is one copy and at most 4096 ids
of changes. A change takes three int64 (seq, key, lots) in an array, so 200,000 events a market stay near 5 MB.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

SEGMENT_EVENTS = 4096


class SeqNotKept(LookupError):
    """The id is older than the journal or has not happened yet."""

    def __init__(self, seq: int, first_seq: int, last_seq: int) -> None:
        super().__init__(f"id {seq} is not kept; the journal has {first_seq} to {last_seq}")
        self.seq, self.first_seq, self.last_seq = seq, first_seq, last_seq


@dataclass
class Segment:
    """`book` is the state at `base_seq`; `rows` are seq, key, lots of every change after it."""

    base_seq: int
    book: dict[int, int]
    rows: array[int] = field(default_factory=lambda: array("q"))


class Journal:
    def __init__(self, keep_events: int = 200_000, base_seq: int = 0) -> None:
        self.last_seq = base_seq
        self.book: dict[int, int] = {}
        """the book now: key -> lots, kept from the changes alone, so it checks the engine's own"""
        self._segments: deque[Segment] = deque([Segment(base_seq, {})])
        self._keep_segments = max(1, -(-keep_events // SEGMENT_EVENTS))

    def start(self, seq: int, book: dict[int, int]) -> None:
        """Forget all and begin with `book` at `seq` (after the opening auction, whose steps nobody asks for)."""
        self.last_seq, self.book = seq, dict(book)
        self._segments = deque([Segment(seq, dict(book))])

    @property
    def first_seq(self) -> int:
        """The oldest id that `at` can rebuild."""
        return self._segments[0].base_seq

    def append(self, seq: int, changes: tuple[tuple[int, int], ...]) -> None:
        segment = self._segments[-1]
        if seq > segment.base_seq + SEGMENT_EVENTS:
            segment = Segment(self.last_seq, dict(self.book))
            self._segments.append(segment)
            if len(self._segments) > self._keep_segments + 1:
                self._segments.popleft()
        self.last_seq = seq
        rows, book = segment.rows, self.book
        for key, lots in changes:
            rows.append(seq)
            rows.append(key)
            rows.append(lots)
            if lots:
                book[key] = lots
            else:
                book.pop(key, None)

    def at(self, seq: int) -> dict[int, int]:
        """The whole book at `seq`: key -> lots. Raises SeqNotKept."""
        if not self.first_seq <= seq <= self.last_seq:
            raise SeqNotKept(seq, self.first_seq, self.last_seq)
        segment = next(s for s in reversed(self._segments) if s.base_seq <= seq)
        book = dict(segment.book)
        rows = segment.rows
        for i in range(0, len(rows), 3):
            if rows[i] > seq:
                break
            if rows[i + 2]:
                book[rows[i + 1]] = rows[i + 2]
            else:
                book.pop(rows[i + 1], None)
        return book

    def after(self, seq: int) -> Iterator[tuple[int, int, int]]:
        """(seq, key, lots) of every change after `seq`, in order. Raises SeqNotKept if some are forgotten."""
        if not self.first_seq <= seq <= self.last_seq:
            raise SeqNotKept(seq, self.first_seq, self.last_seq)
        for segment in self._segments:
            rows = segment.rows
            if rows and rows[-3] > seq:
                for i in range(0, len(rows), 3):
                    if rows[i] > seq:
                        yield rows[i], rows[i + 1], rows[i + 2]

    def base_before(self, seq: int) -> int:
        """The oldest segment start that is not before `seq`, or else the newest one: a cheap id to rebuild."""
        return next((s.base_seq for s in self._segments if s.base_seq >= seq), self._segments[-1].base_seq)


def side_of(book: dict[int, int], bids: bool, depth: int | None = None) -> list[tuple[int, int]]:
    """One side of a key -> lots book as (price_ticks, lots), best first."""
    keys = sorted(key for key in book if (key < 0) == bids)[:depth]
    return [(abs(key), book[key]) for key in keys]
