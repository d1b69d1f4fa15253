"""The loop of lob-publish: the only file here that touches the world, but for the sinks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import click

from lob import _native
from lob.errors import RingError
from lob.instruments import instrument_records
from lob.names import instance_of
from lob.records import BookState, Reason, RecordType, RequestKind, build
from lob.rings import InputRing
from lob.stage import IDLE_MS, Stage
from lob.trace import open_stage_trace
from lob_publish._native import Pump, trace_to
from lob_publish.settings import Settings
from lob_publish.sinks import Place, ReaderLeft, Sink, SinkFailed, make_sinks
from lob_publish.workers import Workers

TOOL = "lob-publish"
WHO = "publish"  # our name in the book ring: a successor goes on where we stood
TICK_S = 0.02
DRAIN_PATIENCE_S = 10.0
STOP_PATIENCE_S = 1.0  # with --in: what a blocked sink has not is kept upstream for our successor
SAY_S = 1.0  # at most one line a second about losses
COMPLAIN_S = 10.0  # ... and one in ten seconds about what a sink leaves out: it stays so until somebody restarts us
LOOK_S = 1.0  # how often the manifest is looked at for instruments that the stream did not announce to us
ASK_S = 1.0  # ... and one round of requests: who is lapped again and again must not make the flood larger
HOLE_MAX = 1 << 20  # a hole in the public ring is told as a hole, whatever its size


def run(settings: Settings) -> int:
    """Exit code. Raises RingError kinds and click.UsageError before anything was published."""
    sinks = make_sinks(settings.to)
    if settings.workers and not any(sink.is_text for sink in sinks):
        raise click.UsageError("--workers write NDJSON: give --to ndjson:- or ndjson:FILE")
    cores = os.sched_getaffinity(0)
    stage = Stage(TOOL, settings.common, writes=False)
    workers = None
    if settings.workers:  # beside the core of --cpu, where there are others
        workers = Workers(settings.workers, cores - {settings.common.cpu} or cores, stage.wait, stage.say)
    publisher = Publisher(stage, settings, sinks, workers)
    try:
        return publisher.run()
    finally:
        publisher.close_sinks(ended=False)


class Publisher:
    def __init__(self, stage: Stage, settings: Settings, sinks: list[Sink], workers: Workers | None) -> None:
        self._stage = stage
        self._workers = workers
        self._settings = settings
        self._sinks = sinks
        self._all_sinks = list(sinks)
        self._failed = False
        self._lost = 0
        self._lost_unsaid = 0
        self._next_say = 0.0
        self._next_complaint = 0.0
        self._next_tick = 0.0
        self._unasked: list[int] = []  # instruments of which we want a snapshot sooner than its turn comes
        self._next_ask = 0.0
        self._silenced: list[int] = []  # instruments that we called stale because upstream is silent
        self._silent = False
        self._silent_epoch = 0

    def run(self) -> int:
        stage, common = self._stage, self._settings.common
        if common.input_ring is not None:
            # Our own output does not depend on the input: subscribers and the supervisor need not wait for it.
            self._open_sinks(common.instance or instance_of(common.input_ring), named=True)
        source = stage.open_input(WHO)
        if not isinstance(source.reader, _native.BroadcastReader):
            raise click.UsageError(f"{source.name} is not lob-book's ring; pipe lob-book into lob-publish")
        if common.input_ring is None:
            self._open_sinks(common.instance or instance_of(source.name), named=False)
        self._source = source
        open_stage_trace(TOOL, common.instance or instance_of(source.name), stage.say, trace_to)
        self._pump = pump = Pump(source.reader)
        facts = source.segment.facts()
        resumed = source.reader.seq != 0 or facts["tail"] - facts["first_position"] > facts["capacity_bytes"]
        for sink in list(self._sinks):
            self._guard(sink, lambda sink: sink.join(pump, source))
            resumed = resumed or (sink.ring is not None and sink.ring.taken_over)
        if self._workers is not None:
            self._workers.start(pump, source)
        self._learn(source, resumed)
        stage.on_reattach = self._on_reattach
        stage.status_with(self._status)
        while stage.running() and self._sinks:
            self._turn()
        self._drain()
        self._say_lost()  # also what came too late for a tick
        for sink in list(self._sinks):
            self._guard(sink, lambda sink: sink.flush())
        if not self._sinks and self._failed:
            stage.say("no sink is left")
            stage.exit_code = 1
        if self._workers is not None:
            self._workers.close()
            pump.flush()  # what they have done until now need not come again
        unsent = self._pump.pending
        self.close_sinks(ended=stage.exit_code == 0)
        if unsent:  # a record was read that a sink has not: our successor begins at what was released
            source.reader = _native.BroadcastReader(source.segment, "slot", source.slot)
        return stage.finish(self._totals())

    def _open_sinks(self, instance: str, *, named: bool) -> None:
        common = self._settings.common
        place = Place(instance, named, self._settings.ring_bytes, common.shm_group, self._stage.memory, self._workers)
        for sink in list(self._sinks):
            self._guard(sink, lambda sink: sink.open(place))
            if sink.ring is not None:
                self._stage.outputs.append(sink.ring)  # the stage gives its signs of life
        if not self._sinks:
            raise RingError("no sink is left")
        self._stage.supervisor.ready(f"publishing to {', '.join(sink.uri for sink in self._sinks)}")

    def _learn(self, source: InputRing, resumed: bool) -> None:
        """Names and scales, for a reader that begins in the middle; its books are called live when they are whole."""
        self._manifest_version = source.manifest_version
        self._next_look = time.monotonic() + LOOK_S
        records = instrument_records(source.manifest, 0)
        for sink in self._sinks:
            if not records and sink.ring is not None:
                records = instrument_records(sink.ring.manifest, 0)
        for record in records:
            self._pump.learn(record)
        if resumed:
            self._await_snapshots(list(self._pump.states()))

    def _await_snapshots(self, instruments: list[int]) -> None:
        """Called live again with their next snapshot; lob-book repeats that of a live book now and then, or asked."""
        for instrument in instruments:
            self._pump.await_snapshot(instrument)
        if self._source.policy == "drop":  # in a replay what comes "sometime" would make two runs differ
            self._unasked = instruments

    def _ask(self) -> None:
        symbols = dict(zip(self._pump.states(), (row[0] for row in self._pump.rows()), strict=True))
        for instrument in self._unasked:
            if not self._source.request(RequestKind.SNAPSHOT, symbols[instrument], Reason.LOST):
                break  # the queue is full: the others come in their turn
        self._unasked = []

    # -- the loop -----------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._tick()
        if self._workers is not None:
            self._workers.tick()
        self._look_for_silence()
        self._pump_once()

    def _pump_once(self) -> None:
        try:
            stint_ms = min([self._stage.stint_ms, *(sink.tick_ms for sink in self._sinks)])
            turn = self._pump.run(self._stage.wait, stint_ms, IDLE_MS)
        except (_native.CorruptRing, ValueError) as error:
            raise RingError(f"{self._source.name}: {error}; restart lob-book") from None
        if turn == "lost":
            self._on_lost()
        elif turn == "epoch":
            self._on_epoch()

    def _tick(self) -> None:
        now = time.monotonic()
        if now < self._next_tick:
            return
        self._next_tick = now + TICK_S
        for sink in list(self._sinks):
            self._guard(sink, lambda sink: sink.tick())
        if now >= self._next_look and self._source.manifest_version != self._manifest_version:
            self._next_look = now + LOOK_S
            self._manifest_version = self._source.manifest_version
            for record in instrument_records(self._source.manifest, 0):
                self._pump.learn(record)
        if self._unasked and now >= self._next_ask:
            self._next_ask = now + ASK_S
            self._ask()
        if now >= self._next_say:
            self._say_lost()
        if now >= self._next_complaint:
            for sink in self._sinks:
                self._say_complaint(sink)

    def _say_lost(self) -> None:
        if not self._lost_unsaid:
            return
        self._next_say = time.monotonic() + SAY_S
        self._stage.say(
            f"{self._source.name}: lapped, {self._lost_unsaid} records lost; books are stale until their next "
            "refresh; give lob-book a larger --ring-bytes, or this process a core of its own (--cpu)"
        )
        self._lost_unsaid = 0

    def _say_complaint(self, sink: Sink) -> None:
        if complaint := sink.complaint():
            self._next_complaint = time.monotonic() + COMPLAIN_S
            self._stage.say(complaint)

    def _guard(self, sink: Sink, call: Callable[[Sink], None]) -> None:
        """Each sink has its own fate: one that fails is named and closed, the others go on."""
        try:
            call(sink)
        except SinkFailed as error:
            self._failed = True
            self._stage.say(f"{error}" + ("; going on without it" if len(self._sinks) > 1 else ""))
        except ReaderLeft:
            pass
        else:
            return
        self._sinks.remove(sink)
        self._close_sink(sink, ended=False)

    # -- what befalls the input ---------------------------------------------------------------------------------

    def _say_status(self, instruments: list[int], state: BookState, reason: Reason) -> None:
        """A status of our own in every sink, before whatever is read next."""
        states = self._pump.states()
        for instrument in instruments:
            _, _, version, last_seq, connection, session = states[instrument]
            self._pump.inject(
                build(
                    RecordType.STATUS,
                    {"state": int(state), "reason": int(reason), "last_seq": last_seq},
                    instrument=instrument,
                    version=version,
                    connection=connection,
                    session=session,
                )
            )

    def _in_state(self, state: BookState) -> list[int]:
        return [instrument for instrument, facts in self._pump.states().items() if facts[0] == int(state)]

    def _look_for_silence(self) -> None:
        """lob-book cannot say itself that it is stopped: for every book that is live we do."""
        silent = self._stage.input_silent
        if silent == self._silent:
            return
        self._silent = silent
        if silent:
            self._silent_epoch = self._source.reader.epoch
            self._silenced = self._in_state(BookState.LIVE)
            self._say_status(self._silenced, BookState.STALE, Reason.UPSTREAM_SILENT)
            if self._silenced:
                self._stage.say(f"{self._source.name}: lob-book gives no sign of life; its books are stale")
        elif self._silenced:
            self._take_back_silence()

    def _take_back_silence(self) -> None:
        """Live again, if the same owner goes on and nothing is missing: what is unread tells."""
        if not self._pump.drained:
            self._pump_once()  # meets a hole or a new epoch, and forgets whom we called silent
        if self._source.reader.epoch == self._silent_epoch:
            states, ours = self._pump.states(), (int(BookState.STALE), int(Reason.UPSTREAM_SILENT))
            self._say_status([i for i in self._silenced if states[i][:2] == ours], BookState.LIVE, Reason.NONE)
        self._silenced = []

    def _on_lost(self) -> None:
        """Lapped: every book may have changed unseen. Each is live again with its next snapshot."""
        count = self._pump.take_lost()
        self._lost += count
        self._lost_unsaid += count
        self._silenced = []
        self._pump.skip_numbers(min(count, HOLE_MAX))
        known = [i for i, facts in self._pump.states().items() if facts[0] != int(BookState.CLOSED)]
        self._say_status(known, BookState.STALE, Reason.LOST)
        self._await_snapshots(known)

    def _on_epoch(self) -> None:
        """Another owner: it says itself how its books are; until then none of the old ones is live."""
        if self._pump.take_lost():
            self._stage.say(f"{self._source.name}: records were lost while lob-book was restarted")
        self._silenced = []
        self._pump.await_nothing()
        self._say_status(self._in_state(BookState.LIVE), BookState.STALE, Reason.RESTARTED)

    def _on_reattach(self) -> None:
        """Another ring under the name."""
        assert isinstance(self._source.reader, _native.BroadcastReader)
        self._silenced = []
        self._pump.await_nothing()
        self._pump.set_reader(self._source.reader)
        if self._workers is not None:
            self._workers.reattach(self._source)
        self._pump.skip_numbers(1)
        self._say_status(self._in_state(BookState.LIVE), BookState.STALE, Reason.RESTARTED)
        for sink in list(self._sinks):
            self._guard(sink, lambda sink: sink.join(self._pump, self._source))

    # -- the end ------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """What was read goes out; at the end of the input all that is left in it."""
        patience_s = STOP_PATIENCE_S if self._settings.common.input_ring else DRAIN_PATIENCE_S
        patience_ends, seen = time.monotonic() + patience_s, -1
        while self._sinks and time.monotonic() < patience_ends:
            if not (self._pump.pending or (self._stage.input_ended and not self._pump.drained)):
                return
            self._turn()
            progress = self._pump.records + (self._workers.done if self._workers is not None else 0)
            if progress != seen:
                seen, patience_ends = progress, time.monotonic() + patience_s

    def close_sinks(self, *, ended: bool) -> None:
        if self._workers is not None:
            self._workers.close()
        while self._sinks:
            self._close_sink(self._sinks.pop(), ended=ended)

    def _close_sink(self, sink: Sink, *, ended: bool) -> None:
        if sink.ring is not None and sink.ring in self._stage.outputs:
            self._stage.outputs.remove(sink.ring)
        sink.close(ended=ended)
        self._say_complaint(sink)

    def _status(self) -> str:
        return f"{self._pump.records} records to {len(self._sinks)} sinks, {self._all_lost} lost"

    @property
    def _all_lost(self) -> int:
        return self._lost + (self._workers.lost if self._workers is not None else 0)

    def _totals(self) -> str:
        parts = [f"{self._pump.records} records"]
        for sink in self._all_sinks:
            drops = f" ({sink.counts.drops} dropped)" if sink.counts.drops else ""
            if sink.counts.messages or drops:
                parts.append(f"{sink.uri} {sink.counts.messages} messages, {sink.counts.bytes} bytes{drops}")
        parts.append(f"lost {self._all_lost}")
        if self._pump.refused:
            parts.append(f"{self._pump.refused} of versions never announced")
        return "; ".join(parts)
