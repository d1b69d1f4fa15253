"""lob-trace as its user runs it, on rings of other processes. It never writes and holds no role, unless it says so."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lob import _native
from lob.records import RequestKind
from lob.rings import SHM, InputRing, Kind, OutputRing, RingState, ring_name, role_held
from processes.peer import eventually, own_instance, peers, record

COMMAND = [sys.executable, "-m", "lob_trace"]


@pytest.fixture
def instance() -> Iterator[str]:
    with own_instance() as name:
        yield name


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=30, **options)


def lines(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def left(instance: str) -> set[str]:
    return {path.name for path in SHM.glob(f"*lob.{instance}*")}


def on_a_terminal(*arguments: str, answer: bytes = b"") -> tuple[int, str]:
    """(exit status, what was shown) with all three on a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    if answer:
        os.write(ours, answer)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    return process.wait(30), shown.decode().replace("\r\n", "\n")


class Feed:
    """A public ring into which stamped records go all the time."""

    def __init__(self, name: str, capacity_bytes: int = 1 << 20, payload: int = 0) -> None:
        self.ring = OutputRing(name, Kind.BROADCAST, capacity_bytes=capacity_bytes, manifest={"venue": "test"})
        self._payload = b"x" * payload
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            for _ in range(20):
                stamps = [1_000, 3_000, 10_000, 60_000]
                self.ring.writer.write(record(self._payload, origin_ns=_native.mono_ns(), stage_ns=stamps))
            self.ring.writer.beat()
            time.sleep(0.002)

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        self.ring.close(RingState.CLOSED, remove=True)


@pytest.fixture
def feed(instance: str) -> Iterator[Feed]:
    running = Feed(ring_name(instance, "public"))
    yield running
    running.end()


# -- latency ------------------------------------------------------------------------------------------------------


def test_latency_by_stage_in_a_pipe_is_one_json_object_a_line(feed: Feed, instance: str) -> None:
    rows = lines(run("300ms", "2", "--instance", instance))
    assert [row["stage"] for row in rows] == ["connect", "parse", "book", "publish", "end to end"] * 2
    for row, us in zip(rows, [1, 2, 7, 50, 60] * 2, strict=True):
        assert row["ring"] == feed.ring.name and row["count"] == row["records"] > 100 and row["lost"] == 0
        for key in ("p50_us", "p90_us", "p99_us", "p99_9_us", "max_us"):
            assert row[key] == us


def test_on_a_terminal_it_is_a_table(feed: Feed, instance: str) -> None:
    code, shown = on_a_terminal("200ms", "1", "--instance", instance)
    assert code == 0
    assert max(map(len, shown.splitlines())) < 80
    assert "STAGE" in shown and "P99.9_US" in shown and "end to end" in shown and feed.ring.name in shown


def test_it_reads_the_book_ring_where_there_is_no_public_one(instance: str) -> None:
    book = Feed(ring_name(instance, "book"))
    try:
        assert {row["ring"] for row in lines(run("200ms", "1", "--instance", instance))} == {book.ring.name}
        public = Feed(ring_name(instance, "public"))
        try:
            assert {row["ring"] for row in lines(run("200ms", "1", "--instance", instance))} == {public.ring.name}
        finally:
            public.end()
    finally:
        book.end()


def test_when_it_is_overtaken_it_says_that_this_is_a_sample(instance: str) -> None:
    fast = Feed(ring_name(instance, "public"), capacity_bytes=4096, payload=800)
    try:
        code, shown = on_a_terminal("500ms", "1", "--instance", instance)
        assert code == 0 and "records were not seen; what follows is a sample" in shown
    finally:
        fast.end()


def test_it_goes_over_to_a_ring_made_anew_and_ends_at_sigint_with_0(feed: Feed, instance: str) -> None:
    with subprocess.Popen(
        [*COMMAND, "200ms", "--instance", instance], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as trace:
        assert trace.stdout is not None and trace.stderr is not None
        assert json.loads(trace.stdout.readline())["count"] > 0
        feed.end()
        feed.__init__(feed.ring.name)  # type: ignore[misc]
        time.sleep(0.6)
        while json.loads(trace.stdout.readline())["count"] == 0:
            pass
        trace.send_signal(signal.SIGINT)
        assert trace.wait(10) == 0 and trace.stderr.read() == ""


def test_a_reader_of_its_stdout_that_leaves_is_success(feed: Feed, instance: str) -> None:
    with subprocess.Popen(
        [*COMMAND, "100ms", "--instance", instance], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as trace:
        assert trace.stdout is not None and trace.stderr is not None
        trace.stdout.readline()
        trace.stdout.close()
        assert trace.wait(10) == 0 and trace.stderr.read() == b""


def test_nothing_to_read_is_exit_1_in_one_sentence(instance: str) -> None:
    result = run("--instance", instance)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith(f"lob-trace: no book or public ring of instance {instance}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["sometimes"], ["1", "0"], ["0"], ["1", "2", "3"], ["--no-such"], ["--instance", "a.b"]]
)
def test_a_wrong_option_is_exit_2_in_one_sentence(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("lob-trace: ") and result.stderr.count("\n") == 1


def test_reading_verbs_write_nothing_and_hold_no_role(instance: str) -> None:
    name = ring_name(instance, "public")
    ring = OutputRing(name, Kind.BROADCAST, capacity_bytes=4096, manifest={"venue": "test"})
    for _ in range(3):
        ring.writer.write(record(b"x"))
    ring.close(RingState.PAUSED, remove=False)
    path = SHM / name[1:]
    before = (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns, left(instance))
    with subprocess.Popen([*COMMAND, "1", "1", "--instance", instance], stdout=subprocess.PIPE) as trace:
        eventually(lambda: name[1:] in Path(f"/proc/{trace.pid}/maps").read_text(), "it reads the ring")
        maps = [line for line in Path(f"/proc/{trace.pid}/maps").read_text().splitlines() if name[1:] in line]
        assert maps and all(line.split()[1] == "r--s" for line in maps)
        assert not role_held(name)
        trace.communicate(timeout=10)
    assert len(lines(run("rings", "--instance", instance))) == 1
    assert (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns, left(instance)) == before


# -- rings --------------------------------------------------------------------------------------------------------


def test_rings_shows_owners_readers_rates_and_connections(instance: str) -> None:
    connection = {"id": 0, "url": "wss://example.org/ws", "up": True, "session": 3, "ping_ms": 12.3}
    raw, book, board = (ring_name(instance, what) for what in ("raw", "book", "board"))
    with peers(1) as (reader,):
        manifest = {"venue": "test", "connections": [connection]}
        owner = OutputRing(raw, Kind.SPSC, capacity_bytes=1 << 16, manifest=manifest)
        reader.do(f"ring = InputRing({raw!r}, 'lob-parse')")
        OutputRing(book, Kind.BROADCAST, policy="wait", capacity_bytes=4096).close(RingState.PAUSED, remove=False)
        OutputRing(board, Kind.BOARD, board_slots=2, board_depth=5).close(RingState.PAUSED, remove=False)
        for _ in range(4):
            owner.writer.write(record(b"x" * 1000))
        owner.writer.drop()
        rows = {row["ring"]: row for row in lines(run("rings", "--instance", instance, "--apart", "100ms"))}
        assert list(rows) == [raw, book, board]
        seen = rows[raw]
        assert (seen["kind"], seen["policy"], seen["state"]) == ("spsc", "drop", "open")
        assert seen["owner_pid"] == os.getpid() and seen["owner_alive"] is True and seen["drops"] == 1
        assert seen["records_per_s"] == 0.0 and 5 < seen["fill_pct"] < 8 and seen["epoch"] == owner.writer.epoch
        assert seen["readers"][0]["name"] == "lob-parse" and seen["readers"][0]["pid"] == reader.pid
        assert seen["readers"][0]["alive"] is True and seen["readers"][0]["behind_bytes"] > 4000
        assert seen["connections"] == [connection]
        assert rows[book]["owner_alive"] is False and rows[book]["state"] == "paused"
        assert rows[board]["kind"] == "board" and rows[board]["fill_pct"] is None
        code, shown = on_a_terminal("rings", "--instance", instance, "--apart", "50ms")
        assert code == 0 and max(map(len, shown.splitlines())) < 80
        assert "ping_ms 12.3" in shown and "reader lob-parse" in shown and "BEAT_MS" in shown


def test_a_ring_that_cannot_be_read_is_a_sentence_and_the_others_are_shown(instance: str) -> None:
    OutputRing(ring_name(instance, "raw"), Kind.SPSC, capacity_bytes=4096)
    (SHM / ring_name(instance, "book")[1:]).write_bytes(b"garbage" * 1000)
    result = run("rings", "--instance", instance, "--apart", "50ms")
    assert result.returncode == 1 and len(result.stdout.splitlines()) == 1
    assert result.stderr.startswith(f"lob-trace: {ring_name(instance, 'book')} is no ring of ours")


# -- request ------------------------------------------------------------------------------------------------------


def test_a_request_is_posted_into_the_raw_rings_queue_and_it_says_so(instance: str) -> None:
    ring = OutputRing(ring_name(instance, "raw"), Kind.SPSC, capacity_bytes=4096)
    queue = _native.RequestQueue(ring.segment)
    for kind, symbol in (("resync", "BTCUSDT"), ("snapshot", "Ä/USD"), ("reconnect", "")):
        result = run("request", instance, kind, *([symbol] if symbol else []))
        assert result.returncode == 0 and result.stdout == ""
        assert f"opened {ring.name} read-write and posted: {kind}" in result.stderr
        taken = queue.take()
        assert taken is not None and taken[1:] == (RequestKind[kind.upper()], 0, symbol)
    while queue.post(1, 2, 0, "A"):
        pass
    result = run("request", instance, "reconnect")
    assert result.returncode == 1 and "queue is full" in result.stderr


def test_a_request_that_nobody_would_read_is_not_posted(instance: str) -> None:
    result = run("request", instance, "reconnect")
    assert result.returncode == 1 and f"no raw ring of instance {instance}" in result.stderr
    OutputRing(ring_name(instance, "raw"), Kind.SPSC, capacity_bytes=4096).close(RingState.PAUSED, remove=False)
    result = run("request", instance, "reconnect")
    assert result.returncode == 1 and "has no owner who would read a request" in result.stderr


@pytest.mark.parametrize("arguments", [["subscribe"], ["snapshot"], ["please"], ["subscribe", "x" * 64], []])
def test_a_request_of_nothing_we_know_is_exit_2(instance: str, arguments: list[str]) -> None:
    result = run("request", instance, *arguments)
    assert result.returncode == 2 and result.stderr.count("\n") == 1


# -- clean --------------------------------------------------------------------------------------------------------


@pytest.fixture
def leftovers(instance: str) -> Iterator[set[str]]:
    """A live ring, a ring whose reader lives, and what dead ones left: names of the latter."""
    live, read_, dead, board = (ring_name(instance, what) for what in ("raw", "events", "book", "board"))
    OutputRing(live, Kind.SPSC, capacity_bytes=4096)
    with peers(1) as (reader,):
        OutputRing(read_, Kind.SPSC, capacity_bytes=4096).close(RingState.PAUSED, remove=False)
        reader.do(f"ring = InputRing({read_!r}, 'lob-book')")
        OutputRing(dead, Kind.BROADCAST, capacity_bytes=4096).close(RingState.PAUSED, remove=False)
        OutputRing(board, Kind.BOARD, board_slots=1, board_depth=1).close(RingState.PAUSED, remove=False)
        (SHM / f"lob.{instance}.public.lock").touch()
        (SHM / f".lob.{instance}.public.99.0123abcd").write_bytes(b"half")
        (SHM / f".lob.{instance}.book.lock.99.0123abcd").touch()
        (SHM / f".lob.{instance}.raw.99.0123abcd").write_bytes(b"its maker lives: it holds the ring's role")
        yield {
            f"/lob.{instance}.book", f"/lob.{instance}.board", f"/lob.{instance}.public",
            f"/.lob.{instance}.public.99.0123abcd", f"/.lob.{instance}.book.lock.99.0123abcd",
        }  # fmt: skip


def kept(instance: str) -> set[str]:
    rings = {f"lob.{instance}.{what}" for what in ("raw", "events")}
    return rings | {f"{name}.lock" for name in rings} | {f".lob.{instance}.raw.99.0123abcd"}


def test_clean_removes_what_nobody_holds_and_names_it(instance: str, leftovers: set[str]) -> None:
    result = run("clean", "--yes", instance)
    assert {row["removed"] for row in lines(result)} == leftovers
    assert left(instance) == kept(instance)
    for what in ("raw", "events"):
        assert f"{ring_name(instance, what)} is held by a live process; kept" in result.stderr
    again = run("clean", "--yes", instance)
    assert again.returncode == 0 and again.stdout == "" and "nothing to remove" in again.stderr


def test_clean_without_a_terminal_and_without_yes_is_exit_2_and_removes_nothing(
    instance: str, leftovers: set[str]
) -> None:
    before = left(instance)
    result = run("clean", instance)
    assert result.returncode == 2 and "no terminal to ask on; give --yes" in result.stderr
    assert left(instance) == before and len(leftovers) == 5


def test_clean_on_a_terminal_asks_first(instance: str, leftovers: set[str]) -> None:
    before = left(instance)
    code, shown = on_a_terminal("clean", instance, answer=b"\n")
    assert code == 0 and "Remove these 5? [y/N]" in shown and all(name in shown for name in leftovers)
    assert left(instance) == before
    code, shown = on_a_terminal("clean", instance, answer=b"y\n")
    assert code == 0 and all(f"removed {name}" in shown for name in leftovers)
    assert left(instance) == kept(instance)


def test_clean_of_one_instance_leaves_the_others_alone(instance: str) -> None:
    with own_instance() as other:
        for name in (instance, other):
            OutputRing(ring_name(name, "raw"), Kind.SPSC, capacity_bytes=4096).close(RingState.PAUSED, remove=False)
        assert len(lines(run("clean", "--yes", instance))) == 1
        assert left(instance) == set() and len(left(other)) == 2


def test_clean_removes_a_segment_of_another_layout(instance: str) -> None:
    (SHM / ring_name(instance, "raw")[1:]).write_bytes(b"layout of the day before")
    assert [row["removed"] for row in lines(run("clean", "--yes", instance))] == [ring_name(instance, "raw")]
    assert left(instance) == set()


def test_a_reader_that_comes_after_the_cleaning_finds_no_ring_and_waits_for_the_next(instance: str) -> None:
    name = ring_name(instance, "raw")
    OutputRing(name, Kind.SPSC, capacity_bytes=4096).close(RingState.PAUSED, remove=False)
    run("clean", "--yes", instance)
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=4096, keep=True)
    assert not ring.taken_over and InputRing(name, "x").writer_alive
