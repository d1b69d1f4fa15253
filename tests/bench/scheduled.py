"""A source that sends on schedule into real stages: what lob-connect would write, at the times it should have come.

The origin of each record is the moment when it was due, not the moment when we got round to it: a source that is held
up by its sink hides the very delays that are looked for (coordinated omission).
"""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from bench.flow import PlainBook, depth_updates
from lob import _native
from lob.board import Board
from lob.descriptor import Descriptor
from lob.errors import RingError
from lob.names import list_rings
from lob.records import HEADER, RecordType, build
from lob.rings import OutputRing
from lob.segments import Kind, RingState, open_segment, unlink
from lob.units import decimal_text
from pipeline import BIN, unique_instance, wait_for

STAGES = ("parse", "book", "publish")
CONNECTION, SESSION = 0, 1
RAW_FRAME, RAW_HTTP = int(RecordType.RAW_FRAME), int(RecordType.RAW_HTTP)
DUE_SOON_NS = 300_000  # nearer than this to the next message we yield: a nap may end so late
Headers = npt.NDArray[np.void]


class Flow:
    """Endless depth messages of one symbol, of `levels` levels each: `distinct` different ones, over and over.

    Their numbers never break, and each changes the book: one level has the number as its quantity. `oracle`: the book
    as plain Python keeps it, for messages taken while there is one.
    """

    def __init__(self, symbol: str, levels: int, *, distinct: int = 2000, seed: int = 7) -> None:
        self.symbol, self.levels = symbol, levels
        self._parts = []
        for frame in depth_updates(levels - 1, distinct, seed):
            data = orjson.loads(frame)["data"]
            stream = f'{{"stream":"{symbol.lower()}@depth@100ms","data":'
            head = stream + f'{{"e":"depthUpdate","E":1700000000000,"s":"{symbol}"'
            bids = orjson.dumps(data["b"])[1:]
            comma = b"" if bids == b"]" else b","
            self._parts.append((head.encode(), comma + bids + b',"a":' + orjson.dumps(data["a"]) + b"}}"))
        self._next = 0
        self.seq = 1000
        self.oracle: PlainBook | None = None

    def message(self) -> bytes:
        head, rest = self._parts[self._next]
        self._next = (self._next + 1) % len(self._parts)
        first, self.seq = self.seq + 1, self.seq + self.levels
        text = b'%b,"U":%d,"u":%d,"b":[["60500.00000000","%d.00000000"]%b' % (head, first, self.seq, self.seq, rest)
        if self.oracle is not None:
            self.oracle.apply(text)
        return text

    def snapshot(self, depth: int = 1) -> tuple[bytes, bytes]:
        """(url, answer) of a snapshot with `depth` levels a side, far from where the messages play."""
        bids = [[f"{60000 - i}.00000000", "1.00000000"] for i in range(depth)]
        asks = [[f"{63500 + i}.00000000", "1.00000000"] for i in range(depth)]
        answer = orjson.dumps({"lastUpdateId": self.seq, "bids": bids, "asks": asks})
        if self.oracle is not None:
            self.oracle.snapshot(answer)
        return f"https://api.binance.com/api/v3/depth?symbol={self.symbol}&limit=1000".encode(), answer


def wait_until(due_ns: int) -> None:
    """By the monotonic clock: a nap if there is time for one, then yielding."""
    mono_ns = _native.mono_ns
    while (left_ns := due_ns - mono_ns()) > 0:
        if left_ns > DUE_SOON_NS:
            time.sleep((left_ns - DUE_SOON_NS * 3 // 4) / 1e9)
        else:
            os.sched_yield()


class Running:
    """Stages as processes, joined by pipes, and the end of the public ring."""

    def __init__(self, folder: Path, options: Mapping[str, list[str]], stages: tuple[str, ...], instance: str) -> None:
        self.folder, self.instance = folder, instance
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.reader: _native.BroadcastReader | None = None
        before: Any = subprocess.PIPE
        for stage in stages:
            command = [str(BIN / f"lob-{stage}"), *options.get(stage, []), "--instance", instance]
            if stage == "publish":
                command += ["--to", "shm:"]
            with (folder / f"{stage}.err").open("ab") as stderr:
                self.processes[stage] = subprocess.Popen(
                    command,
                    stdin=before,
                    stdout=subprocess.DEVNULL if stage == "publish" else subprocess.PIPE,
                    stderr=stderr,
                )
            if before != subprocess.PIPE:
                before.close()
            before = self.processes[stage].stdout

    def attach(self) -> None:
        wait_for(self._attached, 30, "the public ring")

    def _attached(self) -> bool:
        self.beat()
        with contextlib.suppress(RingError):
            segment = open_segment(f"/lob.{self.instance}.public", writable=False)
            self.reader = _native.BroadcastReader(segment, "oldest")
        dead = [stage for stage, process in self.processes.items() if process.poll() is not None]
        assert not dead, (dead, self.errors())
        return self.reader is not None

    def beat(self) -> None:
        """A sign of life of the source, if that is us."""

    @property
    def pids(self) -> dict[str, int]:
        return {stage: process.pid for stage, process in self.processes.items()}

    def errors(self) -> str:
        return " / ".join((self.folder / f"{stage}.err").read_text() for stage in self.processes)

    def place(self, cores: Mapping[str, set[int]]) -> None:
        """Which cores each stage, and `source` (we), may use."""
        for stage, pid in {**self.pids, "source": 0}.items():
            os.sched_setaffinity(pid, cores[stage])

    # -- what comes out -----------------------------------------------------------------------------------------------

    def headers(self, diffs: int, timeout_s: float = 30.0) -> Headers:
        """Headers of the next `diffs` diffs at the public ring; AssertionError if one is missing or came twice."""
        assert self.reader is not None
        parts: list[Headers] = []
        found = 0
        deadline = time.monotonic() + timeout_s
        while found < diffs:
            batch = np.empty(1 << 14, HEADER)
            part = batch[: self.reader.drain(_native.ANY_TYPE, batch)[2]]
            part = part[part["type"] == int(RecordType.DIFF)]
            found += len(part)
            parts.append(part)
            if not len(part):
                assert time.monotonic() < deadline, f"{found} of {diffs} diffs came; {self.errors()}"
                self.beat()
                time.sleep(0.005)
        headers = np.concatenate(parts) if parts else np.empty(0, HEADER)
        assert len(headers) == diffs and self.reader.lost == 0, f"{len(headers)} diffs, {diffs} sent; {self.errors()}"
        if diffs:
            steps = np.diff(headers["raw_seq"].astype(np.int64))
            assert (steps == 1).all(), "records of the raw ring are missing at the public ring, or came twice"
        return headers

    def await_live(self, symbol: str) -> None:
        def live() -> bool:
            with contextlib.suppress(RingError, KeyError):
                return Board(self.instance).top(symbol, 1).live
            return False

        wait_for(live, 20, f"a live book of {symbol}; {self.errors()}")

    def check(self, flow: Flow, depth: int = 10) -> None:
        """The board has the oracle's book."""
        assert flow.oracle is not None
        board = Board(self.instance)
        top = board.top(flow.symbol, depth)
        bids, asks = flow.oracle.top(depth)
        expected = [
            [(decimal_text(int(price.scaleb(8)), 8), decimal_text(int(qty.scaleb(8)), 8)) for price, qty in side]
            for side in (bids, asks)
        ]
        assert top.live, (top, self.errors())
        assert [top.bid_texts(), top.ask_texts()] == expected, f"{flow.symbol}: the books differ"

    # -- the end ------------------------------------------------------------------------------------------------------

    def end_input(self) -> None:
        """As an operator does."""
        self.processes["connect"].terminate()

    def stop(self) -> tuple[dict[str, int], list[str]]:
        """(exit codes of the stages, rings that they left behind); all are gone then."""
        self.reader = None
        self.end_input()
        codes = {}
        try:
            for stage, process in self.processes.items():
                codes[stage] = process.wait(20)
        except subprocess.TimeoutExpired:
            codes["hung"] = 1
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        left = list_rings(self.instance)
        for name in left:
            unlink(name)
        return codes, left


class Scheduled(Running):
    """parse, book and publish as processes, and we as the source before them."""

    def __init__(self, folder: Path, options: Mapping[str, list[str]], instance: str, ring_bytes: int) -> None:
        self.sent = 0
        manifest = {"format": 1, "venue": "binance", "source": "live", "policy": "drop", "connections": []}
        self.raw = OutputRing(
            f"/lob.{instance}.raw", Kind.SPSC, policy="drop", capacity_bytes=ring_bytes, manifest=manifest
        )
        assert isinstance(self.raw.writer, _native.SpscWriter)
        self._write = self.raw.writer.write_raw
        super().__init__(folder, options, STAGES, instance)
        pipe = self.processes["parse"].stdin
        assert pipe is not None
        pipe.write(Descriptor(self.raw.name, "spsc", "binance", "drop", os.getpid()).line())
        pipe.flush()
        link = build(RecordType.LINK, {"up": 1}, url=b"wss://bench", connection=CONNECTION, session=SESSION)
        assert self.raw.writer.write(link)
        self.attach()

    def beat(self) -> None:
        self.raw.writer.beat()

    def end_input(self) -> None:
        self.raw.close(RingState.CLOSED, remove=False)

    def stop(self) -> tuple[dict[str, int], list[str]]:
        codes, left = super().stop()
        return codes, [name for name in left if name != self.raw.name]

    def rest(self, seconds: float) -> None:
        """Silence, with the signs of life of a source."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.beat()
            time.sleep(min(0.05, seconds))

    # -- sending ------------------------------------------------------------------------------------------------------

    def put(self, payload: bytes, *, url: bytes = b"", due_ns: int = 0) -> None:
        """Write one record now, waiting for room."""
        kind = RAW_HTTP if url else RAW_FRAME
        while self._write(kind, CONNECTION, SESSION, time.time_ns(), due_ns or _native.mono_ns(), url, payload):
            self.beat()
            time.sleep(0.001)
        self.sent += 1

    def start_book(self, flow: Flow, depth: int = 1) -> None:
        """The first message, which names the instrument, then its snapshot."""
        self.put(flow.message())
        url, answer = flow.snapshot(depth)
        self.put(answer, url=url)

    def send(self, flows: list[Flow], per_s: float, count: int) -> None:
        """`count` messages, each at its time; the flows in turn."""
        write = self._write
        gc.disable()
        try:
            start_ns = _native.mono_ns() + 2_000_000
            next_beat = start_ns
            for number in range(count):
                payload = flows[number % len(flows)].message()
                due_ns = start_ns + int(number * 1e9 / per_s)
                wait_until(due_ns)
                while write(RAW_FRAME, CONNECTION, SESSION, time.time_ns(), due_ns, b"", payload):
                    os.sched_yield()
                os.sched_yield()  # the next stage may wait for this very core, and we only make ready what comes later
                if due_ns >= next_beat:
                    next_beat = due_ns + 50_000_000
                    self.beat()
        finally:
            gc.enable()
        self.sent += count


@contextlib.contextmanager
def _ended(running: Running, allowed: set[int]) -> Iterator[None]:
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
        codes, left = running.stop()
    assert set(codes.values()) == {0} and not left, (codes, left, running.errors())


@contextlib.contextmanager
def scheduled(options: Mapping[str, list[str]] | None = None, *, ring_bytes: int = 32 << 20) -> Iterator[Scheduled]:
    """Running stages that we feed; they end, and their rings are gone, also when the benchmark fails."""
    with tempfile.TemporaryDirectory() as folder:
        running = Scheduled(Path(folder), options or {}, unique_instance("bench"), ring_bytes)
        with _ended(running, os.sched_getaffinity(0)):
            yield running


@contextlib.contextmanager
def connected(options: Mapping[str, list[str]]) -> Iterator[Running]:
    """All four stages; lob-connect is ended by a signal."""
    with tempfile.TemporaryDirectory() as folder:
        running = Running(Path(folder), options, ("connect", *STAGES), unique_instance("bench"))
        with _ended(running, os.sched_getaffinity(0)):
            yield running
