"""The life of a stage: how it meets its neighbours, and how it ends. The one place where that is decided.

Two ways to be joined
- *Pipe*: the stage makes its ring, prints one line that describes it on stdout, and reads such a line from stdin.
  End of data is the ring marked closed. What the stage made it unlinks, after its reader has drained it.
- *Named* (`--in`, `--out`): rings outlive processes. A stop leaves the ring paused; nobody closes or unlinks it here.

A third way, *print*: stdout is a terminal, a file or /dev/null, or `--print` was given. Then the stage writes into a
private ring, reads it back itself and prints the records.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Literal, NoReturn, TypeAlias

import click

from lob import _native
from lob.descriptor import Descriptor
from lob.errors import NoRing, RingError
from lob.manifest import read_manifest
from lob.memory import RingMemory
from lob.names import instance_of, ring_name
from lob.options import Common, say
from lob.printer import Printer, make_printer
from lob.rings import HEARTBEAT_S, InputRing, OutputRing
from lob.segments import Kind, Policy, RingState, open_segment, unlink, wait_for_ring
from lob.supervisor import Supervisor
from lob.waiting import spin_refusal, stages_of, way_of_waiting

Mode: TypeAlias = Literal["pipe", "named", "print", "none"]

DRAIN_PATIENCE_S = 10.0  # a reader that makes no progress for so long is given up
ATTACH_S = 5.0  # in a pipe: when nobody has attached to our ring for so long, it is no stage that reads our stdout
TICK_S = 0.02
STINT_MS = 250  # of a native loop while records flow
IDLE_MS = 50  # ... and while none comes
PRINT_STINT_MS = 10  # what is printed is read back by this process itself
DEFAULT_RING_TIMEOUT_S = 30.0


class UpstreamEnded(RingError):
    """stdin ended before a ring was announced."""


class Stage:
    """One process of the pipeline.

    Use: `open_input`, `open_output`, then `while stage.running(): work for stage.stint_ms`, then `finish(totals)`.
    """

    def __init__(self, tool: str, common: Common, *, writes: bool = True) -> None:
        self.tool = tool
        self.common = common
        self.supervisor = Supervisor()
        self.memory = RingMemory(common.huge, common.mlock, common.numa_node, self.say)
        self.exit_code = 0
        self.input: InputRing | None = None
        self.outputs: list[OutputRing] = []
        self.mode: Mode = self._output_mode() if writes else "none"
        self.on_reattach: Callable[[], None] | None = None
        self._printer: Printer | None = None
        self._tap: _native.SpscReader | _native.BroadcastReader | None = None
        self._piped_in = False
        self._stop_requested = False
        self._input_ended = False
        self._ended = False
        self._started = time.monotonic()
        self._deadline: float | None = None if common.for_s is None else self._started + common.for_s
        self._unread: tuple[OutputRing, float] | None = None  # our ring in a pipe, and when somebody should read it
        self._next_tick = 0.0
        self._next_second = self._started + 1.0
        self._status: Callable[[], str] | None = None
        self._stdout_poll = select.poll()
        if _is_pipe(1):
            self._stdout_poll.register(1, select.POLLERR | select.POLLHUP)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup; else a closed terminal would leave the rings
            signal.signal(signal.SIGHUP, self._on_signal)
        atexit.register(self._abandon)
        # A reader that went away is told by EPIPE and POLLERR; an unhandled signal would end us without a word.
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        allowed = os.sched_getaffinity(0)
        if common.cpu is not None:
            pin(tool, common.cpu)
        if common.wait == "spin" and (reason := spin_refusal(allowed)) is not None:
            raise click.BadParameter(reason, param_hint="--wait")
        self.wait = common.wait if common.wait != "auto" else way_of_waiting(set())

    # -- beginnings ---------------------------------------------------------------------------------------------

    def _output_mode(self) -> Mode:
        if self.common.output_ring is not None:
            return "named"
        if self.common.print_records:
            return "print"
        return "pipe" if _is_pipe(1) else "print"

    def say(self, sentence: str) -> None:
        """One line for people, on stderr."""
        say(self.tool, sentence)

    def open_input(self, who: str, *, after: str | None = None) -> InputRing:
        """Attach to the ring of --in, or to the one announced on stdin; waits for either. `after`: whose it must be.

        Raises RingError kinds, or click.UsageError if stdin holds no such line, or the ring is of another stage.
        """
        common = self.common
        if common.input_ring is not None:
            name = common.input_ring
            timeout_s = common.ring_timeout_s
            if timeout_s is None and not self.supervisor.present:
                timeout_s = DEFAULT_RING_TIMEOUT_S
            self.supervisor.status(f"waiting for {name}")
            for _ in wait_for_ring(name, timeout_s):
                if not self.running():
                    self._leave_early()
                time.sleep(TICK_S)
        else:
            name = self._read_descriptor().ring
            self._piped_in = True
        if after is not None:
            # Before we attach, as we would take a reader's place. Rings of a stage that says nothing are let through.
            writer = read_manifest(open_segment(name, writable=False)).get("writer", after)
            if writer != after:
                raise click.UsageError(f"{name} is a ring of {writer}; {self.tool} reads those of {after}")
        self.input = InputRing(name, who, self.memory)
        return self.input

    def _read_descriptor(self) -> Descriptor:
        if os.isatty(0):
            raise click.UsageError("stdin is a terminal; pipe the stage before into this one, or give --in RING")
        line = b""
        poll = select.poll()
        poll.register(0, select.POLLIN | select.POLLHUP)
        while b"\n" not in line:
            if not self.running():
                self._leave_early()
            if poll.poll(20):
                try:
                    chunk = os.read(0, 4096)
                except OSError as error:
                    raise click.UsageError(f"stdin: {error.strerror}") from None
                if not chunk:
                    if line:
                        break
                    raise UpstreamEnded("upstream ended before it announced a ring")
                line += chunk
                if len(line) > 65536:
                    break
        try:
            return Descriptor.parse(line.split(b"\n", 1)[0])
        except ValueError as error:
            raise click.UsageError(f"stdin: {error}") from None

    def _leave_early(self) -> NoReturn:
        """Told to stop before there was anything to do."""
        raise SystemExit(self.finish("stopped before there was a ring to read"))

    def open_output(
        self, what: str, kind: Kind, *, venue: str, policy: Policy, capacity_bytes: int, manifest: dict[str, Any]
    ) -> OutputRing:
        """Make or take over the output ring and announce it. Raises RingError kinds."""
        instance = self._instance(venue)
        capacity_bytes = self.common.ring_bytes or capacity_bytes
        if self.mode == "print":
            name = ring_name(f"{instance[:40]}-print-{os.getpid()}", what)
            policy = "wait" if kind is Kind.BROADCAST else policy
        else:
            name = self.common.output_ring or ring_name(instance, what)
        ring = OutputRing(
            name,
            kind,
            policy=policy,
            capacity_bytes=capacity_bytes,
            manifest=manifest,
            keep=self.mode == "named",
            group=self.common.shm_group if kind is Kind.BROADCAST else None,
            memory=self.memory,
        )
        self.outputs.append(ring)
        if ring.taken_over and ring.capacity_bytes != capacity_bytes:
            self.say(
                f"{name} keeps the {ring.capacity_bytes} bytes it was made with, not {capacity_bytes}; "
                "for another size remove it with lob-trace clean"
            )
        if self.mode == "print":
            unlink(name)
            if kind is Kind.SPSC:
                self._tap = _native.SpscReader(ring.segment)
            else:
                self._tap = _native.BroadcastReader(ring.segment, "oldest", 0)
            self._printer = make_printer(self.tool, ndjson=self.common.print_records)
        elif self.mode == "pipe":
            try:
                os.write(1, Descriptor(name, kind.name.lower(), venue, policy, os.getpid()).line())
            except BrokenPipeError:
                pass  # the reader is gone already: running() will say so
            self._unread = ring, time.monotonic() + ATTACH_S
        self.supervisor.ready(f"{name} open")
        return ring

    def open_board(self, *, venue: str, slots: int, depth: int, manifest: dict[str, Any]) -> OutputRing:
        """Make or take over the board beside the output ring."""
        instance = self._instance(venue)
        if self.mode == "print":
            instance = f"{instance[:40]}-print-{os.getpid()}"
        board = OutputRing(
            ring_name(instance, "board"),
            Kind.BOARD,
            manifest=manifest,
            keep=self.mode == "named",
            group=self.common.shm_group,
            board_slots=slots,
            board_depth=depth,
            memory=self.memory,
        )
        self.outputs.append(board)
        return board

    def _instance(self, venue: str) -> str:
        """The middle part of our names: as asked, else that of our named ring, of the ring we read, or the venue."""
        if self.common.instance is not None:
            return self.common.instance
        if self.common.output_ring is not None:
            return instance_of(self.common.output_ring)
        return venue if self.input is None else instance_of(self.input.name)

    def status_with(self, status: Callable[[], str]) -> None:
        """What to tell the supervisor once a second."""
        self._status = status

    # -- the middle ---------------------------------------------------------------------------------------------

    def request_stop(self) -> None:
        """As SIGTERM does."""
        self._stop_requested = True

    @property
    def stopping(self) -> bool:
        return self._stop_requested

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._stop_requested:
            for ring in self.outputs:
                if self.mode in ("pipe", "print"):
                    unlink(ring.name)
            os._exit(128 + number)
        self._stop_requested = True

    @property
    def input_silent(self) -> bool:
        """Live only: the stage before us gives no sign of life, so what we hold may be old."""
        ring = self.input
        return ring is not None and ring.policy == "drop" and (ring.silent or ring.state is RingState.PAUSED)

    def pass_requests(self, ours: Callable[[int, str], bool] = lambda kind, symbol: False) -> None:
        """Requests of those who read us travel upstream, but for those that `ours(kind, symbol)` has dealt with.

        Under `wait` they end here: nobody upstream answers a replay, and an answer would make two runs differ.
        """
        if not self.outputs or self.input is None:
            return
        while (request := self.outputs[0].requests.take()) is not None:
            id_, kind, reason, symbol = request
            if ours(kind, symbol) or self.input.policy == "wait":
                continue
            if not self.input.requests.post(id_, kind, reason, symbol):
                self.say(f"{self.input.name}: its request queue is full; one for {symbol or 'all'} is lost")

    @property
    def stint_ms(self) -> int:
        """How long a native loop may work before `running` is asked again; it gives the signs of life meanwhile."""
        if self.mode == "print":
            return PRINT_STINT_MS
        if self._deadline is None:
            return STINT_MS
        return max(0, min(STINT_MS, int((self._deadline - time.monotonic()) * 1e3)))

    def running(self) -> bool:
        """Housekeeping; False when the stage should stop, and from then on. Call it after each `stint_ms` of work, and
        every 50 ms while there is none."""
        self._pump()
        if self._stop_requested or self._ended:
            return False
        now = time.monotonic()
        if now < self._next_tick:
            return True
        self._next_tick = now + TICK_S
        for ring in self.outputs:
            ring.writer.beat()
        self.supervisor.alive()
        if now >= self._next_second:
            self._next_second = now + 1.0
            self._choose_wait()
            self._tell_unread()
            if self._status is not None and self.supervisor.present:
                self.supervisor.status(self._status())
            for ring in self.outputs:
                if ring.policy == "wait" and ring.kind is Kind.BROADCAST:
                    for name in ring.free_dead_readers():
                        self.say(f"{ring.name}: reader {name} is gone; going on without it")
        out_of_time = self._deadline is not None and now >= self._deadline
        self._ended = out_of_time or self._reader_gone() or not self._input_goes_on()
        return not self._ended

    def _choose_wait(self) -> None:
        """`auto` is not the same alone on a core and beside the others; they come and go, and are moved."""
        name = self.outputs[0].name if self.outputs else self.input.name if self.input is not None else None
        if self.common.wait == "auto" and name is not None:
            pinned = len(os.sched_getaffinity(0)) == 1
            self.wait = way_of_waiting(stages_of(instance_of(name)) if pinned else set())

    def _tell_unread(self) -> None:
        """Who looks at our stdout himself (`| jq`) has the one line that names the ring, and waits for more."""
        if self._unread is None or time.monotonic() < self._unread[1]:
            return
        ring, self._unread = self._unread[0], None
        if not any(reader["pid"] for reader in ring.segment.facts()["readers"]):
            self.say(f"nobody reads {ring.name}, as the next stage would; for records as text on stdout give --print")

    def _reader_gone(self) -> bool:
        return self.mode in ("pipe", "print") and bool(self._stdout_poll.poll(0))

    def _input_goes_on(self) -> bool:
        ring = self.input
        if ring is None or not ring.reader.drained:
            return True
        # In this order: whoever is found dead, or the ring closed, wrote nothing after we find it drained.
        alive, state = ring.writer_alive, ring.state
        if not ring.reader.drained:
            return True
        if state is RingState.CLOSED:
            self._input_ended = True
            return False
        if self._piped_in:
            if not alive:
                self.say(f"{ring.name}: the stage before ended without closing its ring; what it left was read")
                self.exit_code = 1
            return alive
        if (not alive or ring.silent) and ring.replaced():
            try:
                ring.reattach()
            except NoRing:
                return True  # removed again: the next look will tell
            self.say(f"{ring.name}: was made anew; reading the new one")
            if self.on_reattach is not None:
                self.on_reattach()
        return True

    @property
    def input_ended(self) -> bool:
        """The ring before us was closed and is drained."""
        return self._input_ended

    def _pump(self) -> None:
        """Print mode: what was written since the last call goes to stdout."""
        if self._tap is None or self._printer is None:
            return
        try:
            while (record := self._tap.read()) is not None:
                self._printer.write(record)
            self._tap.publish()
            self._printer.tick()
        except OSError as error:
            self._stdout_failed(error)
            self._stop_requested = True

    def _stdout_failed(self, error: OSError) -> None:
        """Nothing more is printed: the reader has what it wanted (`| head -1`), or there is no room for more."""
        self._printer = None
        if not isinstance(error, BrokenPipeError):
            self.say(f"stdout: {error.strerror}; what was read from there on is not printed")
            self.exit_code = 1

    # -- the end ------------------------------------------------------------------------------------------------

    def finish(self, totals: str) -> int:
        """Leave what others still need, say one line of totals; the exit code."""
        self.supervisor.stopping()
        if self.input is not None:
            self.input.close()
        try:
            self._pump()
            if self._printer is not None:
                self._printer.close()
                sys.stdout.flush()
        except OSError as error:
            self._stdout_failed(error)
        for ring in self.outputs:
            if self.mode == "named":
                ring.close(RingState.PAUSED, remove=False)
                continue
            state = RingState.CLOSED if self.exit_code == 0 else RingState.PAUSED
            ring.writer.set_state(int(state))
        if self.mode == "pipe":
            for ring in self.outputs:
                if ring.kind is not Kind.BOARD:
                    self._wait_drained(ring)
            for ring in self.outputs:
                ring.close(RingState.CLOSED if self.exit_code == 0 else RingState.PAUSED, remove=True)
        elif self.mode == "print":
            for ring in self.outputs:
                ring.close(RingState.CLOSED, remove=True)
        self.say(totals)
        return self.exit_code

    def _abandon(self) -> None:
        """At exit, also by an error: rings that live only as long as their pipe do not stay behind."""
        for ring in self.outputs:
            if self.mode in ("pipe", "print"):
                ring.close(RingState.PAUSED, remove=True)

    def _wait_drained(self, ring: OutputRing) -> None:
        """Until the reader has attached and drained, is gone, or makes no progress."""
        last_behind, patience_ends = -1, time.monotonic() + DRAIN_PATIENCE_S
        next_beat = 0.0
        while time.monotonic() < patience_ends and not self._reader_gone():
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + HEARTBEAT_S
                for output in self.outputs:
                    output.writer.beat()
                self.supervisor.alive()
                self._tell_unread()
            attached, behind = ring.readers_behind()
            seen = any(reader["pid"] for reader in ring.segment.facts()["readers"])
            if seen and (behind == 0 or not attached):
                return
            if behind != last_behind:
                last_behind, patience_ends = behind, time.monotonic() + DRAIN_PATIENCE_S
            time.sleep(0.005)


def _is_pipe(fd: int) -> bool:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def pin(tool: str, cpu: int) -> None:
    """Pin this process to one core. Raises click.BadParameter if there is none of that number for us."""
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError:
        allowed = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        raise click.BadParameter(f"core {cpu} is not ours; allowed: {allowed}", param_hint="--cpu") from None
