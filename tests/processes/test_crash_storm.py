"""A stage killed or stopped at any moment while numbered records flow through real rings: nothing is lost between
commit and release, nothing torn, nothing out of order; the one that is started again goes on.

The stages are small C++ programs (storm_stage.cpp), so that hundreds of deaths fit into a test; then the real tools.
LOB_STORM_KILLS=500 and LOB_STORM_SECONDS=60 (`make stress`) make it longer.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import lob
from exchange.running import running
from lob import _native
from lob.names import SHM, ring_name
from lob.records import RequestKind
from lob.rings import InputRing, OutputRing
from lob.segments import Kind, open_segment
from pipeline import STAGES, pipeline, wait_for
from processes.peer import own_instance, peers, record

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("LOB_STORM_KILLS", "50"))
SECONDS = float(os.environ.get("LOB_STORM_SECONDS", "6"))
BELOW_2_32, BELOW_2_63 = (1 << 32) - 64, (1 << 63) - 64
SPSC, BROADCAST = 1, 2
WAIT, DROP = 0, 1

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("storm") / "storm_stage"
    chosen = ROOT / "build" / "compiler"
    compiler = chosen.read_text().strip() if chosen.exists() else os.environ.get("CXX", "g++")
    source = Path(__file__).with_name("storm_stage.cpp")
    flags = ["-std=c++20", "-O3", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{ROOT / 'shared' / 'native'}"]
    subprocess.run([*compiler.split(), *flags, str(source), "-o", str(made)], check=True)
    return made


class State:
    """What the reader has found, in a file that outlives it; see storm_stage.cpp."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(256))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 256)

    def numbers(self) -> tuple[int, int, int, int]:
        """last, count, twice, lost"""
        return struct.unpack_from("<4Q", self._map)  # type: ignore[return-value]

    @property
    def wrong(self) -> str:
        return self._map[32:].split(b"\0")[0].decode()


class Storm:
    """write -> (copy ->) read, each a process."""

    def __init__(
        self, program: Path, folder: Path, instance: str, kind: int, policy: int, first: int, *, copies: bool
    ) -> None:
        self.program = str(program)
        self.state = State(folder / "state")
        last = self._ring(instance, "last", kind, policy, first)
        if copies:
            middle = self._ring(instance, "middle", SPSC, WAIT, first)
            self.commands = {"write": [middle], "copy": [middle, last], "read": [last, str(folder / "state")]}
        else:
            self.commands = {"write": [last], "read": [last, str(folder / "state")]}
        self.processes: dict[str, subprocess.Popen[str]] = {}
        for role in self.commands:
            self.start(role)

    @staticmethod
    def _ring(instance: str, what: str, kind: int, policy: int, first: int) -> str:
        path = SHM / f"lob.{instance}.{what}"  # of a few records: each kind of wrap comes all the time
        with path.open("x+b") as file:
            os.posix_fallocate(file.fileno(), 0, _native.segment_bytes(4096))
            _native.format_segment(file.fileno(), kind, policy, 4096, 1, 0, 0, first)
        return str(path)

    def start(self, role: str) -> None:
        self.processes[role] = subprocess.Popen(
            [self.program, role, *self.commands[role]], stdout=subprocess.PIPE, text=True
        )

    def kill(self, role: str) -> None:
        process = self.processes[role]
        process.kill()
        assert process.wait(10) == -signal.SIGKILL, (role, process.returncode, self.state.wrong)
        assert process.stdout is not None
        process.stdout.close()

    def end(self) -> int:
        """Let the writer stop and all that it wrote run through; how many that were."""
        writer = self.processes["write"]
        writer.terminate()
        assert writer.stdout is not None
        written = int(writer.communicate(timeout=30)[0])
        for role, process in self.processes.items():
            assert process.wait(30) == 0, (role, process.returncode, self.state.wrong)
        return written

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def instance() -> Iterator[str]:
    with own_instance() as name:
        yield name


@pytest.mark.parametrize("first", [0, BELOW_2_32, BELOW_2_63])
@pytest.mark.parametrize(("kind", "policy"), [(SPSC, WAIT), (BROADCAST, WAIT), (BROADCAST, DROP)])
@pytest.mark.timeout(300)
def test_no_record_is_lost_torn_or_out_of_order_whoever_is_killed(
    program: Path, tmp_path: Path, instance: str, kind: int, policy: int, first: int
) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    storm = Storm(program, tmp_path, instance, kind, policy, first, copies=True)
    try:
        for _ in range(-(-KILLS // 9)):
            time.sleep(chance.uniform(0.0, 0.02))
            role = chance.choice(list(storm.commands))
            storm.kill(role)
            before = storm.state.numbers()[0]
            storm.start(role)
            end = time.monotonic() + 10
            while storm.state.numbers()[0] == before:  # it goes on
                assert time.monotonic() < end, f"nothing moves after the death of {role}: {storm.state.wrong}"
                time.sleep(0.001)
        written = storm.end()
    finally:
        storm.stop()
    last, count, twice, lost = storm.state.numbers()
    print(f"{written} written, {count} read, {twice} seen twice, {lost} lost")
    assert storm.state.wrong == ""
    assert last == written and count + lost == written
    if policy == WAIT:
        assert lost == 0


@pytest.mark.parametrize("first", [0, BELOW_2_32, BELOW_2_63])
@pytest.mark.parametrize(("kind", "policy"), [(SPSC, WAIT), (BROADCAST, DROP)])
@pytest.mark.timeout(300)
def test_two_processes_agree_on_every_record_while_the_reader_is_stopped_now_and_then(
    program: Path, tmp_path: Path, instance: str, kind: int, policy: int, first: int
) -> None:
    storm = Storm(program, tmp_path, instance, kind, policy, first, copies=False)
    try:
        end = time.monotonic() + SECONDS / 6
        while time.monotonic() < end:
            time.sleep(random.uniform(0.0, 0.1))
            storm.processes["read"].send_signal(signal.SIGSTOP)
            time.sleep(random.uniform(0.0, 0.1))
            storm.processes["read"].send_signal(signal.SIGCONT)
        written = storm.end()
    finally:
        storm.stop()
    last, count, twice, lost = storm.state.numbers()
    print(f"{written} written, {count} read, {lost} lost")
    assert storm.state.wrong == ""
    assert last == written and count + lost == written and twice == 0
    assert (lost > 0) == (policy == DROP)


@pytest.mark.timeout(300)
def test_the_real_tools_go_on_with_a_true_book_whichever_of_them_is_killed(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    symbol = "BTCUSDT"
    with running("--seed", "7", "--rate", "200", "--symbols", symbol) as venue:
        options = {
            "connect": ["binance", symbol, "--url", venue.ws, "--rest-url", venue.rest],
            "publish": ["--to", f"ndjson:{tmp_path / 'out.ndjson'}"],
        }
        with pipeline(options, tmp_path, named=True) as stages:

            def true_book() -> bool:
                try:
                    top = lob.Board(stages.instance).top(symbol, 5)
                except (lob.RingError, lob.NoSuchSymbol):
                    return False
                if not top.live:
                    return False
                truth = venue.get("truth/book", symbol=symbol, id=top.last_seq, depth=5)
                told = [list(map(list, side)) for side in (top.bid_texts(), top.ask_texts())]
                assert told == [truth["bids"], truth["asks"]], f"wrong levels under live at id {top.last_seq}"
                return True

            wait_for(true_book, 20, "the first live book")
            for _ in range(max(3, KILLS // 50)):
                stage = chance.choice(STAGES)
                time.sleep(chance.uniform(0.0, 0.3))
                stages.signal(stage, signal.SIGKILL)
                stages.processes[stage].wait(10)
                stages.start(stage)
                updates = lob.Board(stages.instance).top(symbol, 1).updates

                def goes_on(updates: int = updates) -> bool:
                    return true_book() and lob.Board(stages.instance).top(symbol, 1).updates > updates

                wait_for(goes_on, 20, f"{stage} was killed: the book is live and true again")


# -- what went wrong in other people's rings ---------------------------------------------------------------------------


def test_cpython_104291_a_ring_survives_the_exit_of_the_second_process(instance: str) -> None:
    name = ring_name(instance, "raw")
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=4096)
    with peers(1) as (reader,):
        reader.do(f"globals().update(ring=InputRing({name!r}, 'guest'))")
        reader.process.stdin.close()  # type: ignore[union-attr]
        assert reader.process.wait(10) == 0
    open_segment(name, writable=False)
    again = InputRing(name, "test")
    assert ring.writer.write(record(b"x")) and again.reader.read() is not None


def test_iceoryx2_434_a_request_opens_nothing(instance: str) -> None:
    name = ring_name(instance, "raw")
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=4096)
    reader = InputRing(name, "test")
    queue = ring.requests
    before = len(list(Path("/proc/self/fd").iterdir()))
    for n in range(1000):
        assert reader.request(RequestKind.RESYNC, f"S{n}")
        assert queue.take() is not None
    assert len(list(Path("/proc/self/fd").iterdir())) == before
