"""The loop of lob-book: rings, clock, signals. What happens to a book is native; here is when, and what to tell."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson

from lob._native import Board, BroadcastWriter, SpscReader
from lob.errors import RingError
from lob.instruments import instrument_records
from lob.manifest import manifest_left_in
from lob.names import instance_of
from lob.records import RequestKind
from lob.rings import InputRing, OutputRing
from lob.segments import Kind
from lob.stage import IDLE_MS, Stage
from lob.trace import open_stage_trace
from lob_book import _native
from lob_book.settings import Settings
from lob_book.summary import summary, totals

TOOL = "lob-book"
BOOK_RING_BYTES = 32 << 20
COMPLAIN_EVERY_S = 10.0

# Counts of a book that somebody should hear of, and how to say them.
TROUBLE = {
    "gaps": "sequence gaps",
    "checksums_failed": "checksums that do not match",
    "crossed": "times crossed or locked",
    "out_of_range": "numbers that do not fit 64 bits at the new scale; book dropped",
    "oversize": "records larger than the book ring takes; give a larger --ring-bytes",
    "buffer_dropped": "diffs fell out of the full buffer while no snapshot came",
    "refused": "requests for a snapshot refused or failed",
    "levels_fallen": "levels beyond --depth fell off",
    "bad_records": "records that contradict themselves or an unannounced version",
}
CURED_BY_SNAPSHOT = ("gaps", "checksums_failed", "crossed")


class BookStage:
    def __init__(self, settings: Settings) -> None:
        """Attaches to the input, makes the ring and the board. Raises RingError kinds."""
        self.settings = settings
        common = settings.common
        self.stage = stage = Stage(TOOL, common)
        self.input: InputRing = stage.open_input(TOOL, after="lob-parse")
        before = manifest_left_in(common.output_ring)
        self.manifest: dict[str, Any] = {**self._from_input(), "instruments": before.get("instruments", [])}
        venue = str(self.manifest["venue"])
        # Nobody answers in a replay, and what comes "sometime" would make two runs differ: no requests, no clock.
        self.replays = self.manifest["source"] == "replay"
        self._cure = "waiting for the recording's next snapshot" if self.replays else "asking for a snapshot"
        self.output: OutputRing = stage.open_output(
            "book",
            Kind.BROADCAST,
            venue=venue,
            policy=self.input.policy,
            capacity_bytes=BOOK_RING_BYTES,
            manifest=self.manifest,
        )
        self.board = stage.open_board(
            venue=venue,
            slots=settings.board_slots,
            depth=settings.board_depth,
            manifest={"venue": venue, "source": self.manifest["source"]},
        )
        if stage.mode != "print":
            open_stage_trace(TOOL, instance_of(self.output.name), stage.say, _native.trace_to)
        self.books = _native.Books(
            depth=settings.depth,
            board_depth=Board(self.board.segment).depth,
            refresh_ns=settings.refresh_ns,
            asks=not self.replays,
            first_request_id=(self.writer.epoch << 32) + 1,
            record_max_bytes=self.writer.record_max_bytes,
        )
        self.pump = self._pump()
        self._restart(before)
        self._announced = 0
        self._complained: dict[tuple[int, str], int] = {}
        self._next_complaint_s = 0.0
        self._holes = 0
        self._beyond_board = 0
        stage.on_reattach = self._reattached
        stage.status_with(self.totals)

    @property
    def writer(self) -> BroadcastWriter:
        assert isinstance(self.output.writer, BroadcastWriter)
        return self.output.writer

    def run(self) -> int:
        """Until the input ends or somebody stops us; the exit code."""
        stage = self.stage
        while stage.running():
            self.pump.upstream_silent(stage.input_silent)
            self.pump.wait_by(stage.wait)
            self.pump.run(stage.stint_ms, IDLE_MS)
            self._tell_instruments()
            stage.pass_requests(self._ours)
            self._complain()
        self._finish_output()
        if self.settings.summary is not None:
            self._write_summary(self.settings.summary)
        return stage.finish(self.totals())

    def totals(self) -> str:
        return totals(self.manifest, self.books.describe(0))

    # -- beginnings ---------------------------------------------------------------------------------------------

    def _pump(self) -> _native.Pump:
        assert isinstance(self.input.reader, SpscReader)
        return _native.Pump(
            self.books,
            self.input.reader,
            self.writer,
            Board(self.board.segment),
            None if self.replays else self.input.requests,
            "records" if self.replays else "host",
            self.stage.wait,
        )

    def _restart(self, before: dict[str, Any]) -> None:
        """What an owner before us left says `stale` before anything else, and is built anew."""
        if self.board.taken_over:
            self.pump.repair_board()
        records = {}
        # Our reader goes on where the reader before us stopped: instruments announced until then it has consumed.
        if any(reader["seq"] for reader in self.input.segment.facts()["readers"]):
            records = _by_id(self.input.manifest)
        if self.output.taken_over:
            records |= _by_id(before)
        for _, record in sorted(records.items()):
            self.books.restore(record, self._now_ns())
        self.pump.flush()

    def _reattached(self) -> None:
        self.books.upstream_changed(self._now_ns())
        self.pump = self._pump()

    def _now_ns(self) -> int:
        return 0 if self.replays else time.time_ns()

    # -- the middle ---------------------------------------------------------------------------------------------

    def _from_input(self) -> dict[str, Any]:
        self._input_version = self.input.manifest_version
        manifest = self.input.manifest
        return {
            "writer": TOOL,
            "venue": manifest.get("venue"),
            "source": manifest.get("source"),
            "policy": self.input.policy,
            "connections": manifest.get("connections", []),
        }

    def _tell_instruments(self) -> None:
        """Late readers learn names and scales from the manifest."""
        announced = self.books.announced
        if announced == self._announced and self.input.manifest_version == self._input_version:
            return
        self.manifest |= self._from_input()
        if announced != self._announced:
            self.manifest["instruments"] = self.books.instruments()
            self._announced = announced
        self.output.manifest = self.manifest
        try:
            self.output.write_manifest()
        except IndexError:  # std::length_error
            count = len(self.manifest["instruments"])
            raise RingError(f"{self.output.name}: {count} instruments are more than its manifest holds") from None

    def _ours(self, kind: int, symbol: str) -> bool:
        """A snapshot of a live book is ours to give."""
        return kind == RequestKind.SNAPSHOT and bool(self.books.refresh(symbol, self._now_ns()))

    def _complain(self) -> None:
        now_s = time.monotonic()
        if now_s < self._next_complaint_s:
            return
        self._next_complaint_s = now_s + COMPLAIN_EVERY_S
        self._say_troubles()

    def _say_troubles(self) -> None:
        venue = self.manifest["venue"]
        for book in self.books.describe(0):
            for name, words in TROUBLE.items():
                fresh = book[name] - self._complained.get((book["id"], name), 0)
                if fresh > 0:
                    self._complained[book["id"], name] = book[name]
                    then = f"; {self._cure}" if name in CURED_BY_SNAPSHOT else ""
                    self.stage.say(f"{venue} {book['symbol']}: {fresh} {words}{then}")
        if self.books.holes > self._holes:
            self.stage.say(f"{self.input.name}: {self.books.holes - self._holes} holes; all books were dropped")
            self._holes = self.books.holes
        if self.pump.beyond_board > self._beyond_board:
            self._beyond_board = self.pump.beyond_board
            self.stage.say(
                f"{self.board.name}: no slot for {self._beyond_board} instruments; give a larger --board-slots"
            )

    # -- the end ------------------------------------------------------------------------------------------------

    def _finish_output(self) -> None:
        """What was applied already goes out, if its reader makes room within a second."""
        deadline = time.monotonic() + 1.0
        while not self.pump.flush() and time.monotonic() < deadline:
            time.sleep(0.005)
        self._tell_instruments()
        self._say_troubles()

    def _write_summary(self, path: Path) -> None:
        text = orjson.dumps(summary(self.manifest, self.books.describe(self.settings.summary_depth)))
        try:
            path.write_bytes(text + b"\n")
        except OSError as error:
            self.stage.say(f"{path}: {error.strerror}")
            self.stage.exit_code = 1


def _by_id(manifest: dict[str, Any]) -> dict[int, bytes]:
    known = [fields for fields in manifest.get("instruments", []) if isinstance(fields, dict)]
    records = instrument_records({"instruments": known}, 0)
    return {int.from_bytes(record[48:52], "little"): record for record in records}
