"""`lob.subscribe`: the records of a public ring as a strategy reads them: one by one, or in batches as numpy arrays.

By default the ring is mapped read-only and the writer does not know of us: a slow subscriber is lapped and told so
(`lost`). With `register=True` we hold a reader's slot: lob-trace shows us, and under the policy `wait` the writer
waits for us.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from lob import _native
from lob.errors import ForeignOwner, NoRing, RingError, WrongLayout
from lob.instruments import instrument_records
from lob.manifest import read_manifest
from lob.names import check_name
from lob.records import HEADER, ROWS, Record, RecordType, parse
from lob.rings import SILENT_NS, InputRing
from lob.roles import WRITER_ROLE, role_held
from lob.segments import Kind, RingState, open_segment, wait_for_ring

Start: TypeAlias = Literal["oldest", "newest"]
Wait: TypeAlias = Literal["spin", "yield", "block", "auto"]
Rows: TypeAlias = npt.NDArray[np.void]

WAIT_MS = 20  # how long native code may keep a signal waiting
LOOK_S = 0.1  # how often a quiet subscription looks whether the ring was made anew
ANNOUNCED = 64  # instruments that one batch may announce before it ends

_TYPES: dict[np.dtype[np.void], int] = {HEADER: _native.ANY_TYPE} | {dtype: int(kind) for kind, dtype in ROWS.items()}


@dataclass(frozen=True, slots=True)
class Instrument:
    """What the numbers of an instrument's rows mean: value = mantissa / 10**scale."""

    symbol: str
    price_scale: int
    qty_scale: int


def subscribe(
    uri: str,
    *,
    start: Start = "newest",
    wait: Wait = "auto",
    timeout_s: float | None = 0.0,
    register: bool = False,
    who: str = "subscriber",
) -> Subscription:
    """The records of `shm:/lob.INSTANCE.public`, from the newest on or from the oldest still there.

    Before the first come the instruments that the ring's manifest knows, as records with ring_seq 0; so a reader that
    starts in the middle knows names and scales, and has each book whole after its next refresh (give the records to a
    SortedBook). A missing ring is waited for, `timeout_s` long (None: for ever). `register`: hold a reader's slot
    under the name `who`; needs write access.

    Raises NoRing, WrongLayout, RoleTaken; ValueError for a URI that is none.
    """
    scheme, _, rest = uri.partition(":")
    if scheme != "shm" or not rest:
        raise ValueError(f"'{uri}' cannot be subscribed to; write shm:/lob.INSTANCE.public")
    name = check_name(rest)
    for _ in wait_for_ring(name, timeout_s):
        time.sleep(0.01)
    return Subscription(name, start=start, wait=wait, register=register, who=who)


class Subscription:
    """An iterator of records; also a context manager. Iteration ends when the ring is closed and read to its end.

    A ring whose writer stopped or died is not closed: `silent` says so, and the records of the next writer (in
    another epoch) follow. When the ring is removed and made anew under its name, reading goes on in the new one.
    """

    def __init__(self, name: str, *, start: Start, wait: Wait, register: bool, who: str) -> None:
        self.name = name
        self._wait = wait
        self._register = register
        self._who = who
        self._input: InputRing | None = None
        self._lost_before = 0  # in rings that were replaced
        self._made: deque[bytes] = deque()  # records of ours that come before the ring's
        self._next_look = 0.0
        self._instruments: dict[tuple[int, int], Instrument] = {}
        self._announced: Rows = np.empty(ANNOUNCED, ROWS[RecordType.INSTRUMENT])
        self._attach(start)

    def _attach(self, start: Start) -> None:
        self._segment = open_segment(self.name, writable=False)
        if self._segment.facts()["kind"] != int(Kind.BROADCAST):
            raise WrongLayout(f"{self.name} is no ring to subscribe to: it has one reader, the stage after it")
        if self._register:
            self._input = InputRing(self.name, self._who)
            self._segment = self._input.segment
            if start == "newest":
                self._input.reader = _native.BroadcastReader(self._segment, "newest", self._input.slot)
            assert isinstance(self._input.reader, _native.BroadcastReader)
            self._reader = self._input.reader
        else:
            self._reader = _native.BroadcastReader(self._segment, start)
        self._known = (-1, -1)  # version of the manifest and epoch of the ring whose instruments were told
        self._learned = (-1, -1)  # ... and whose instruments are in self._instruments

    # -- reading ------------------------------------------------------------------------------------------------

    def poll(self, timeout_s: float = 0.0) -> Record | None:
        """The next record, or None if none came in time."""
        record = self._next()
        if record is not None:
            return record
        deadline = time.monotonic() + timeout_s
        while True:
            left_ms = int((deadline - time.monotonic()) * 1000)
            self._reader.wait(self._wait, max(0, min(WAIT_MS, left_ms)))
            record = self._next()
            if record is not None or time.monotonic() >= deadline:
                return record

    def drain(self, *arrays: Rows, timeout_s: float = 0.0) -> tuple[Rows, ...]:
        """The next records as rows of your arrays: a batch, some 10 ns a record instead of microseconds.

        Each array is one-dimensional and has a dtype of `lob.ROWS`, which says which records it takes: the fields of
        their header, then those of their body; or `lob.HEADER`, which takes the headers of all records. A record of
        no array's type is passed over and not seen again: a strategy that drains BBOs wants ROWS[RecordType.STATUS]
        beside them, to know when a book is stale, and ROWS[RecordType.SNAPSHOT], which says of a book without a status
        since we began that it is live. Rows have no levels: iterate for those.

        Returns, for each array, the view of its rows that were filled now, oldest first; all are empty if nothing came
        within `timeout_s`. The next call writes over them. `ring_seq` tells the order of rows of different arrays.
        Prices and quantities are int64 mantissas whose scales `instruments` knows; a missing side of a BBO has
        quantity 0. `exch_ns` and `recv_ns` are Unix time (0: not given), `origin_ns` is CLOCK_MONOTONIC.

        A batch is of one epoch and without a hole: whatever is missing is missing before it, and `lost` has risen by
        then. After a hole or a new `epoch` believe no book until its next status or snapshot. A batch also ends before
        a record for which its array has no room: call again. May be mixed with `poll` and iteration: each record comes
        once.

        Raises ValueError for an array of another dtype or shape, without rows, not contiguous or read-only.
        """
        pairs: list[int | Rows] = []
        for array in arrays:
            kind = _TYPES.get(array.dtype)
            if kind is None or array.ndim != 1 or not len(array):
                raise ValueError(
                    f"an array of {len(array.dtype.names or ())} fields and shape {array.shape}: give one dimension, "
                    "at least a row, and a dtype of lob.ROWS or lob.HEADER"
                )
            pairs += (kind, array)
        if not pairs:
            raise ValueError("nothing to drain into: give at least one array")
        deadline = time.monotonic() + timeout_s
        while True:
            passed, counts = self._drain_made(pairs) if self._made else self._drain_ring(pairs)
            if any(counts):
                return tuple(array[:count] for array, count in zip(arrays, counts, strict=True))
            if passed:
                continue
            left_s = deadline - time.monotonic()
            if left_s <= 0.0:
                return tuple(array[:0] for array in arrays)
            self._reader.wait(self._wait, min(WAIT_MS, int(left_s * 1000)))

    def _drain_ring(self, pairs: list[int | Rows]) -> tuple[int, list[int]]:
        """(records passed, rows that each array got). Instruments that the ring announces on the way are learned."""
        version = self._segment.manifest_version
        passed, epoch, *counts, announced = self._reader.drain(*pairs, int(RecordType.INSTRUMENT), self._announced)
        if not passed:
            self._look_for_another()
            return 0, counts
        known = (version, epoch)
        if known != self._learned:
            if known[1] != self._learned[1]:
                self._instruments.clear()
            self._learned = known
            for record in instrument_records(read_manifest(self._segment), known[1]):
                self._learn(np.frombuffer(record, ROWS[RecordType.INSTRUMENT], 1)[0])
        for row in self._announced[:announced]:
            self._learn(row)
        return passed, counts

    def _drain_made(self, pairs: list[int | Rows]) -> tuple[int, list[int]]:
        """What `poll` has read from the ring and kept back behind the instruments of the manifest."""
        record = parse(self._made[-1])
        counts = []
        for kind, array in zip(pairs[::2], pairs[1::2], strict=True):
            assert isinstance(array, np.ndarray)
            takes = kind in (_native.ANY_TYPE, int(record.type))
            if takes:
                array[0] = np.frombuffer(self._made[-1], array.dtype, 1)[0]
            counts.append(int(takes))
        if record.type is RecordType.INSTRUMENT:
            self._learn(np.frombuffer(self._made[-1], ROWS[RecordType.INSTRUMENT], 1)[0])
        self._made.clear()
        return 1, counts

    def _learn(self, row: np.void) -> None:
        key = int(row["instrument"]), int(row["version"])
        symbol = bytes(row["symbol"]).decode("utf-8", "replace")
        self._instruments[key] = Instrument(symbol, int(row["price_scale"]), int(row["qty_scale"]))

    @property
    def instruments(self) -> Mapping[tuple[int, int], Instrument]:
        """Symbols and scales by the (instrument, version) of rows; of the last batch's epoch.

        One whose announcement we were lapped by stands in it as soon as the writer has put it into the manifest.
        """
        return self._instruments

    def __iter__(self) -> Iterator[Record]:
        while True:
            record = self.poll(LOOK_S)
            if record is not None:
                yield record
            elif self.closed:
                return

    def _next(self) -> Record | None:
        if self._made:
            return parse(self._made.popleft())
        record = self._reader.read()
        if record is None:
            self._look_for_another()
            return None
        parsed = parse(record)
        # A lapped reader may have missed an instrument's record; what the manifest has learned comes first.
        known = (self._segment.manifest_version, int(parsed.header["epoch"]))
        if known == self._known:
            return parsed
        self._known = known
        self._made.extend(instrument_records(read_manifest(self._segment), known[1]))
        self._made.append(record)
        return parse(self._made.popleft())

    def _look_for_another(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_S
        if not self.silent and self._state is not RingState.CLOSED:
            return
        try:
            replaced = open_segment(self.name, writable=False).nonce != self._segment.nonce
        except RingError:
            return
        if replaced and self._reader.drained:
            lost = self._reader.lost
            self._detach()
            try:
                self._attach("oldest")
            except NoRing:
                return
            self._lost_before += lost

    # -- facts --------------------------------------------------------------------------------------------------

    @property
    def lost(self) -> int:
        """Records that were overwritten before we read them, or dropped by the writer."""
        return self._lost_before + self._reader.lost

    @property
    def silent(self) -> bool:
        """The writer has given no sign of life for half a second, or is gone: what we know may be old."""
        if self._reader.silent_ns > SILENT_NS:
            return True
        try:
            return not role_held(self.name, WRITER_ROLE)
        except ForeignOwner:  # another user's lock cannot be looked at; the sign of life is all we have
            return False

    @property
    def epoch(self) -> int:
        """Rises with each owner of the ring."""
        return self._segment.epoch

    @property
    def closed(self) -> bool:
        """The writer came to its end and all of it has been read."""
        return not self._made and self._state is RingState.CLOSED and self._reader.drained

    @property
    def _state(self) -> RingState:
        try:
            return RingState(self._reader.state)
        except ValueError:
            raise _native.CorruptRing(f"{self.name} has no state {self._reader.state}") from None

    # -- the end ------------------------------------------------------------------------------------------------

    def _detach(self) -> None:
        if self._input is not None:
            self._reader.unregister()  # we are done: under `wait` nobody waits for us any more
            self._input.close()
            self._input = None

    def close(self) -> None:
        """Give back the slot, if we hold one. Safe to call twice."""
        self._detach()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
