"""The loop of lob-parse: rings, clock, signals. Decoding is native; here stands only when, and what to tell."""

from __future__ import annotations

import time
from typing import Any

from lob import venues
from lob._native import SpscReader, SpscWriter
from lob.errors import RingError, WrongLayout
from lob.manifest import manifest_left_in
from lob.names import instance_of
from lob.options import Common
from lob.records import BookState, Reason
from lob.rings import InputRing, OutputRing
from lob.segments import Kind
from lob.stage import IDLE_MS, Stage
from lob.trace import open_stage_trace
from lob_parse import _native
from lob_parse.parser import parser_of, restore

TOOL = "lob-parse"
EVENT_RING_BYTES = 32 << 20
COMPLAIN_EVERY_S = 10.0

# Counts that somebody should hear of, and how to say them.
TROUBLE = {
    "bad_json": "frames that are no JSON we take",
    "bad_number": "messages with a number that cannot be read",
    "bad_time": "messages with a time that cannot be read",
    "bad_field": "messages that lack a field",
    "bad_symbol": "messages with an impossible symbol",
    "out_of_range": "messages with a number that does not fit 64 bits",
    "oversize": "messages larger than the event ring takes; give a larger --ring-bytes",
    "unknown_frame": "frames of a kind unknown to us",
    "unknown_symbol": "trades and best prices of symbols without a book",
    "unknown_record": "records of a type that does not belong into a raw ring",
    "holes": "holes in the raw ring: records were dropped",
}


class Complaints:
    """Says what went wrong, at most one line a kind in ten seconds, each with the count since the last."""

    def __init__(self) -> None:
        self._said: dict[str, int] = {}
        self._next_s: dict[str, float] = {}

    def lines(self, counts: dict[str, int], now_s: float) -> list[str]:
        out = []
        for kind, words in TROUBLE.items():
            fresh = counts[kind] - self._said.get(kind, 0)
            if fresh > 0 and now_s >= self._next_s.get(kind, 0.0):
                out.append(f"{kind}: {fresh} {words}")
                self._said[kind] = counts[kind]
                self._next_s[kind] = now_s + COMPLAIN_EVERY_S
        return out


class ParseStage:
    def __init__(self, common: Common) -> None:
        """Attaches to the input and makes the output. Raises RingError kinds."""
        self.stage = stage = Stage(TOOL, common)
        self.input: InputRing = stage.open_input(TOOL, after="lob-connect")
        raw = self._raw_manifest()
        try:
            self.venue = venues.load(str(raw.get("venue", "")))
        except venues.UnknownVenue as error:
            raise RingError(f"{self.input.name}: {error}") from None
        self.parser = parser_of(self.venue, self._instruments_changed, stage.say)
        before = manifest_left_in(common.output_ring)
        self.manifest: dict[str, Any] = {**self._from_raw(raw), "instruments": before.get("instruments", [])}
        self.output: OutputRing = stage.open_output(
            "events",
            Kind.SPSC,
            venue=self.venue.name,
            policy=self.input.policy,
            capacity_bytes=EVENT_RING_BYTES,
            manifest=self.manifest,
        )
        if stage.mode != "print":
            open_stage_trace(TOOL, instance_of(self.output.name), stage.say, _native.trace_to)
        self._take_over(before)
        self._complaints = Complaints()
        self._was_silent = False
        stage.on_reattach = self._reattached
        stage.status_with(self.totals)

    @property
    def writer(self) -> SpscWriter:
        assert isinstance(self.output.writer, SpscWriter)
        return self.output.writer

    @property
    def reader(self) -> SpscReader:
        """Another object after a reattach."""
        assert isinstance(self.input.reader, SpscReader)
        return self.input.reader

    def run(self) -> int:
        """Until the input ends or somebody stops us; the exit code."""
        while self.stage.running():
            self.parser.run(self.reader, self.writer, self.stage.wait, self.stage.stint_ms, IDLE_MS)
            if self.input.manifest_version != self._raw_version:
                self._write_manifest(self._from_raw(self._raw_manifest()))
            self.stage.pass_requests()
            self._tell_silence()
            for line in self._complaints.lines(self.parser.counts(), time.monotonic()):
                self.stage.say(line)
        return self.stage.finish(self.totals())

    def totals(self) -> str:
        counts = self.parser.counts()
        bad = sum(counts[kind] for kind in TROUBLE if kind.startswith("bad_") or kind == "out_of_range")
        return (
            f"{self.venue.name}: {counts['frames']} frames, {counts['events']} events, {counts['levels']} levels, "
            f"{len(self.parser.instruments())} instruments, {bad} bad, {counts['unknown_frame']} unknown"
        )

    def _take_over(self, before: dict[str, Any]) -> None:
        """Go on where the owner before us stopped: exactly once."""
        if not self.output.taken_over:
            return
        committed = self.writer.raw_seq
        try:
            restore(self.parser, before.get("instruments", []), committed)
        except ValueError as error:
            raise WrongLayout(f"{self.output.name}: {error}; remove it with lob-trace clean") from None
        if before.get("upstream") == self._upstream():
            self.parser.resume(committed)
        else:
            self.parser.replaced()

    def _upstream(self) -> dict[str, Any]:
        """Which raw ring our raw sequences count in."""
        return {"ring": self.input.name, "nonce": self.input.segment.nonce}

    def _raw_manifest(self) -> dict[str, Any]:
        self._raw_version = self.input.manifest_version
        return self.input.manifest

    def _from_raw(self, raw: dict[str, Any]) -> dict[str, Any]:
        return {
            "writer": TOOL,
            "venue": raw.get("venue"),
            "source": raw.get("source"),
            "policy": self.input.policy,
            "connections": raw.get("connections", []),
            "upstream": self._upstream(),
        }

    def _write_manifest(self, change: dict[str, Any]) -> None:
        self.manifest.update(change)
        self.output.manifest = self.manifest
        try:
            self.output.write_manifest()
        except ValueError:  # std::length_error
            count = len(self.manifest["instruments"])
            raise RingError(f"{self.output.name}: {count} instruments are more than its manifest holds") from None

    def _instruments_changed(self, raw_seq: int) -> None:
        """Before the commit of that raw record: a successor must find the ids that readers may see."""
        self._write_manifest({"instruments": self.parser.instruments()})

    def _reattached(self) -> None:
        self.parser.replaced()
        self._write_manifest({**self._from_raw(self._raw_manifest()), "instruments": self.parser.instruments()})

    def _tell_silence(self) -> None:
        silent = self.stage.input_silent
        if silent == self._was_silent:
            return
        state, reason = (BookState.STALE, Reason.UPSTREAM_SILENT) if silent else (BookState.LIVE, Reason.NONE)
        if self.parser.status(self.writer, int(state), int(reason)):
            self._was_silent = silent
