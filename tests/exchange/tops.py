"""Was this top of book ever true? An index from the top 1, 5 and 10 levels to the last id at which they stood.

Kraken's messages carry no id, so a test can only ask by content. The index is built when asked, from the journal: a run
that never asks pays nothing. It looks back at most LOOKBACK_EVENTS.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from exchange.journal import Journal, side_of

DEPTHS = (1, 5, 10)
LOOKBACK_EVENTS = 50_000
KEEP_TOPS = 100_000

Levels = list[tuple[int, int]]


class Tops:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._seq = -1
        self._book: dict[int, int] = {}
        self._keys: tuple[list[int], list[int]] = ([], [])
        self._current: dict[int, int] = {}
        self._last_seq: dict[int, dict[int, int]] = {depth: {} for depth in DEPTHS}

    def find(self, bids: Levels, asks: Levels) -> int | None:
        """The newest id at which the best levels were exactly these (price_ticks, lots), or None.

        Both sides have the same length, one of DEPTHS; else ValueError.
        """
        depth = len(bids)
        if depth != len(asks) or depth not in DEPTHS:
            raise ValueError(f"a top has 1, 5 or 10 levels on both sides, not {len(bids)} and {len(asks)}")
        self._catch_up()
        wanted = _digest(bids, asks)
        seq = self._seq if self._current[depth] == wanted else self._last_seq[depth].get(wanted)
        if seq is None or seq < self._journal.first_seq:
            return None
        book = self._journal.at(seq)
        exact = side_of(book, True, depth) == bids and side_of(book, False, depth) == asks
        return seq if exact else None

    def _catch_up(self) -> None:
        last = self._journal.last_seq
        if self._seq < max(self._journal.first_seq, last - LOOKBACK_EVENTS):
            self._restart(self._journal.base_before(last - LOOKBACK_EVENTS))
        at, changed = self._seq, 99
        for seq, key, lots in self._journal.after(self._seq):
            if seq != at:
                if changed < DEPTHS[-1]:
                    self._note(at, changed)
                at, changed = seq, 99
            changed = min(changed, self._apply(key, lots))
        if changed < DEPTHS[-1]:
            self._note(at, changed)
        self._seq = last

    def _restart(self, seq: int) -> None:
        self._seq, self._book = seq, self._journal.at(seq)
        self._keys = (sorted(k for k in self._book if k < 0), sorted(k for k in self._book if k > 0))
        self._last_seq = {depth: {} for depth in DEPTHS}
        self._current = {depth: self._top(depth) for depth in DEPTHS}

    def _apply(self, key: int, lots: int) -> int:
        """Set one level; returns its index on its side."""
        keys = self._keys[0 if key < 0 else 1]
        index = bisect_left(keys, key)
        if lots:
            if key not in self._book:
                insort(keys, key)
            self._book[key] = lots
        elif key in self._book:
            del self._book[key], keys[index]
        return index

    def _note(self, seq: int, changed: int) -> None:
        """The event `seq` touched level `changed`: what stood until then stood until seq - 1."""
        for depth in DEPTHS:
            if changed < depth and (top := self._top(depth)) != self._current[depth]:
                tops = self._last_seq[depth]
                tops.pop(self._current[depth], None)
                tops[self._current[depth]] = seq - 1
                if len(tops) > KEEP_TOPS:
                    del tops[next(iter(tops))]
                self._current[depth] = top

    def _top(self, depth: int) -> int:
        bids, asks = ([(abs(k), self._book[k]) for k in keys[:depth]] for keys in self._keys)
        return _digest(bids, asks)


def _digest(bids: Levels, asks: Levels) -> int:
    return hash((tuple(bids), tuple(asks)))
