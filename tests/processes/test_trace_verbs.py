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

from lob.names import SHM, ring_name
from lob.records import RequestKind, Stage
from lob.rings import InputRing, OutputRing
from lob.segments import Kind, RingState
from lob.trace import StageTrace
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


STAGES = ("connect", "parse", "book", "publish")


class Feed:
    """The traces of four stages, in which a message is counted all the time."""

    def __init__(self, instance: str) -> None:
        self.traces = [StageTrace(instance, stage) for stage in Stage]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        shares = [1_000, 2_000, 7_000, 50_000]
        here = [1_000, 3_000, 10_000, 60_000]
        while not self._stop.is_set():
            for trace, share_ns, here_ns in zip(self.traces, shares, here, strict=True):
                for _ in range(20):
                    trace.trace.record(share_ns, here_ns)
            time.sleep(0.002)

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        for trace in self.traces:
            trace.close()


@pytest.fixture
def feed(instance: str) -> Iterator[Feed]:
    running = Feed(instance)
    yield running
    running.end()


# -- latency ------------------------------------------------------------------------------------------------------


def test_latency_by_stage_in_a_pipe_is_one_json_object_a_line(feed: Feed, instance: str) -> None:
    rows = lines(run("300ms", "2", "--instance", instance))
    assert [row["stage"] for row in rows] == [*STAGES, "end to end"] * 2
    for row, us in zip(rows, [1, 2, 7, 50, 60] * 2, strict=True):
        assert row["instance"] == instance and row["interval_s"] == 0.3 and row["count"] > 100
        for key in ("p50_us", "p90_us", "p99_us", "p99_9_us", "max_us"):
            assert us <= row[key] <= us * (1 + 1 / 128)


def test_on_a_terminal_it_is_a_table(feed: Feed, instance: str) -> None:
    code, shown = on_a_terminal("200ms", "1", "--instance", instance)
    assert code == 0
    assert max(map(len, shown.splitlines())) < 80
    assert "STAGE" in shown and "P99.9_US" in shown and "end to end" in shown and f"{instance}: 0.2 s" in shown


def test_it_goes_over_to_traces_made_anew_and_ends_at_sigint_with_0(feed: Feed, instance: str) -> None:
    with subprocess.Popen(
        [*COMMAND, "200ms", "--instance", instance], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as trace:
        assert trace.stdout is not None and trace.stderr is not None
        assert json.loads(trace.stdout.readline())["count"] > 0
        feed.end()
        time.sleep(0.6)
        feed.__init__(instance)  # type: ignore[misc]
        seen: list[int] = []
        while len(seen) < 5 or seen[-5:].count(0):
            seen.append(json.loads(trace.stdout.readline())["count"])
        trace.send_signal(signal.SIGINT)
        assert trace.wait(10) == 0 and trace.stderr.read() == ""


def test_what_a_stage_counted_last_is_told_when_it_has_ended(feed: Feed, instance: str) -> None:
    with subprocess.Popen([*COMMAND, "1", "1", "--instance", instance], stdout=subprocess.PIPE, text=True) as trace:
        eventually(lambda: "trace-publish" in Path(f"/proc/{trace.pid}/maps").read_text(), "it reads the traces")
        time.sleep(0.1)
        feed.end()
        out, _ = trace.communicate(timeout=10)
    assert [json.loads(line)["count"] > 0 for line in out.splitlines()] == [True] * 5


def test_a_reader_of_its_stdout_that_leaves_is_success(feed: Feed, instance: str) -> None:
    with subprocess.Popen(
        [*COMMAND, "100ms", "--instance", instance], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as trace:
        assert trace.stdout is not None and trace.stderr is not None
        trace.stdout.readline()
        trace.stdout.close()
        assert trace.wait(10) == 0 and trace.stderr.read() == b""


def test_nothing_to_read_is_exit_1_in_one_sentence(instance: str, tmp_path: Path) -> None:
    for verb in ([], ["hist", "100ms"], ["record", str(tmp_path / "x"), "--for", "100ms"]):
        result = run(*verb, "--instance", instance)
        assert result.returncode == 1 and result.stdout == ""
        sentence = f"no traced stage of instance {instance} on this host; is a pipeline running?"
        assert result.stderr == f"lob-trace: {sentence}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [["sometimes"], ["1", "0"], ["0"], ["1", "2", "3"], ["--no-such"], ["--instance", "a.b"], ["hist", "0"], ["top"],
     ["record"], ["export", "x"], ["report", "/dev/null"], ["report", "/nosuch/file"], ["on"], ["books"]],
)  # fmt: skip
def test_a_wrong_option_is_exit_2_in_one_sentence(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("lob-trace: ") and result.stderr.count("\n") == 1


def test_reading_verbs_write_nothing_and_hold_no_role(instance: str, tmp_path: Path) -> None:
    traces = [StageTrace(instance, stage) for stage in Stage]
    ring = OutputRing(ring_name(instance, "public"), Kind.BROADCAST, capacity_bytes=4096)
    ring.writer.write(record(b"x"))
    board = OutputRing(ring_name(instance, "board"), Kind.BOARD, board_slots=2, board_depth=5)
    board.close(RingState.PAUSED, remove=False)

    def content() -> dict[str, tuple[str, int]]:
        paths = SHM.glob(f"lob.{instance}*")
        return {p.name: (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in paths}

    before = content()
    with subprocess.Popen([*COMMAND, "1", "1", "--instance", instance], stdout=subprocess.PIPE) as trace:
        maps = Path(f"/proc/{trace.pid}/maps")
        eventually(lambda: "trace-publish" in maps.read_text(), "it reads the traces")
        mapped = [line for line in maps.read_text().splitlines() if instance in line]
        assert mapped and all(line.split()[1] == "r--s" for line in mapped)
        trace.communicate(timeout=10)
    for verb in (["rings"], ["hist", "50ms"], ["record", str(tmp_path / "x"), "--for", "100ms"]):
        assert run(*verb, "--instance", instance).returncode == 0
    assert run("books", instance).returncode == 0
    assert on_a_terminal("top", "100ms", "2", "--instance", instance)[0] == 0
    assert content() == before
    for one in traces:
        one.close()


# -- hist, books, top ---------------------------------------------------------------------------------------------


def test_hist_is_bars_at_a_terminal_and_bins_in_a_pipe(feed: Feed, instance: str) -> None:
    bins = lines(run("hist", "200ms", "--instance", instance, "--stage", "book"))
    assert sum(one["count"] for one in bins) > 100
    (full,) = (one for one in bins if one["count"])
    assert full["stage"] == "book" and full["low_us"] <= 7 < full["high_us"]
    code, shown = on_a_terminal("hist", "200ms", "--instance", instance)
    assert code == 0 and "█" in shown and "100.0%" in shown and "end to end, us" in shown
    assert max(map(len, shown.splitlines())) < 80


def test_books_of_no_board_is_exit_1(instance: str) -> None:
    result = run("books", instance)
    assert result.returncode == 1 and f"no ring named {ring_name(instance, 'board')}" in result.stderr


def test_top_shows_rings_stages_and_a_sparkline(feed: Feed, instance: str) -> None:
    ring = OutputRing(ring_name(instance, "raw"), Kind.SPSC, capacity_bytes=4096)
    code, shown = on_a_terminal("top", "150ms", "3", "--instance", instance)
    assert code == 0
    for word in (instance, "FILL_%", "raw", "P99.9_US", "connect", "end to end", "p50 end to end, us"):
        assert word in shown
    ring.close(RingState.PAUSED, remove=True)


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
    queue = ring.requests
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
