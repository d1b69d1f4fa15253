"""lob-publish as a process of its own, on a synthetic book ring that the test owns."""

from __future__ import annotations

import contextlib
import itertools
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

import lob
from book_stream import BookStream, made_ring, unique_instance
from lob import _native
from lob.descriptor import Descriptor
from lob.instruments import entry
from lob.names import list_rings
from lob.records import BookState, Flag, Reason, RecordType, build, parse
from lob.rings import OutputRing
from lob.segments import Kind, RingState, open_segment, unlink
from lob.trace import list_traces

COMMAND = [sys.executable, "-m", "lob_publish"]


@pytest.fixture
def instance() -> Iterator[str]:
    name = unique_instance()
    yield name
    left = list_rings(name)
    for ring in [*left, *list_traces(name)]:
        unlink(ring)


@contextlib.contextmanager
def publishing(*arguments: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """lob-publish, ended by its pid whatever happens."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    process = subprocess.Popen([*COMMAND, *arguments], **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@contextlib.contextmanager
def piped(ring: OutputRing, *arguments: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """... that has read on stdin which ring to read."""
    with publishing(*arguments, stdin=subprocess.PIPE, **options) as process:
        assert process.stdin is not None
        process.stdin.write(Descriptor(ring.name, "broadcast", "test", ring.policy, os.getpid()).line())
        process.stdin.flush()
        yield process


def until(condition: Callable[[], bool], what: str, *rings: OutputRing, seconds: float = 20) -> None:
    """Wait, giving the rings' signs of life."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        for ring in rings:
            ring.writer.beat()
        time.sleep(0.01)


def ended(process: subprocess.Popen[bytes], *rings: OutputRing) -> tuple[bytes, str]:
    """(stdout, stderr) of a process that ends by itself."""
    until(lambda: process.poll() is not None, "the end of lob-publish", *rings)
    out, err = process.communicate()
    return out or b"", (err or b"").decode()


def attached(ring: OutputRing) -> bool:
    return any(reader["pid"] for reader in ring.segment.facts()["readers"])


def released(ring: OutputRing) -> bool:
    """All that was written has been read."""
    facts = ring.segment.facts()
    return any(reader["pid"] and reader["position"] == facts["tail"] for reader in facts["readers"])


def write_all(ring: OutputRing, made: BookStream, steps: int) -> list[bytes]:
    """Begin and `steps` steps, waiting for readers; what the ring then holds, as NDJSON lines."""
    written: list[bytes] = []

    def put(record: bytes) -> None:
        until(lambda: bool(ring.writer.write(record)), "room in the ring", ring)
        numbered = bytearray(record)
        numbered[8:16] = (ring.writer.next_seq - 1).to_bytes(8, "little")
        written.append(bytes(numbered))

    made.put = put
    made.begin()
    for _ in range(steps):
        made.step()
    return _native.Ndjson().format_many(written).splitlines()


def test_every_record_is_a_line_and_closing_the_ring_ends_with_0(instance):
    with made_ring(instance, policy="wait", capacity_bytes=1 << 15) as ring, piped(ring) as process:
        reader = Collector(process)
        expected = write_all(ring, BookStream(lambda _: None, seed=1), 3000)
        ring.writer.set_state(int(RingState.CLOSED))
        until(lambda: process.poll() is not None, "the end", ring)
        assert reader.lines() == expected
        assert process.returncode == 0
        assert f"{len(expected)} records" in (process.stderr.read().decode() if process.stderr else "")


class Collector:
    """Reads the stdout of a process as it comes, so that it never stands still."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._stream = process.stdout
        self._data = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while chunk := os.read(self._stream.fileno(), 1 << 16):
            self._data += chunk

    @property
    def data(self) -> bytes:
        return self._data

    def lines(self) -> list[bytes]:
        self._thread.join(10)
        return self._data.splitlines()


def test_same_ring_twice_gives_the_same_bytes(instance, tmp_path):
    texts = []
    for run in ("a", "b"):
        path = tmp_path / run
        with (
            made_ring(f"{instance}-{run}", policy="wait", capacity_bytes=1 << 14) as ring,
            piped(ring, "--to", f"ndjson:{path}") as process,
        ):
            write_all(ring, BookStream(lambda _: None, seed=2), 500)
            ring.writer.set_state(int(RingState.CLOSED))
            ended(process, ring)
            assert process.returncode == 0
        texts.append(path.read_bytes())
    assert texts[0] == texts[1] != b""


def test_head_1_gets_its_line_and_we_leave_with_0(instance):
    with (
        made_ring(instance, policy="drop") as ring,
        piped(ring, "--to", "ndjson:-") as process,
        subprocess.Popen(["head", "-1"], stdin=process.stdout, stdout=subprocess.PIPE) as head,
    ):
        assert process.stdout is not None
        process.stdout.close()
        until(lambda: attached(ring), "the reader", ring)
        made = BookStream(ring.writer.write, seed=3)
        made.begin()
        line = head.communicate(timeout=20)[0]
        assert orjson.loads(line)["type"] == "instrument"
        until(lambda: process.poll() is not None, "the end", ring)
        assert process.returncode == 0


def long_and_short(levels: int, count: int) -> Iterator[bytes]:
    """Snapshots of `levels` levels a side, each with a short diff behind it."""
    side = [(10**6 + n, 10**9 + n) for n in range(levels)]
    for n in range(count):
        yield build(RecordType.SNAPSHOT, {"last_seq": n}, bids=side[::-1], asks=side, instrument=0, version=1)
        yield build(RecordType.DIFF, {"last_seq": n}, bids=side[:1], instrument=0, version=1)


def test_reader_that_stands_still_is_told_how_many_lines_it_missed_and_where(instance, tmp_path):
    """A live feed: 16 MiB wait for it, then lines are dropped, whole ones; also lines longer than a buffer.

    A file beside it gets them all.
    """
    arguments = ["--to", "ndjson:-", "--to", f"ndjson:{tmp_path}/all.ndjson"]
    with made_ring(instance, policy="drop", capacity_bytes=1 << 26) as ring, piped(ring, *arguments) as process:
        until(lambda: attached(ring), "the reader", ring)
        made = BookStream(ring.writer.write, seed=20, instruments=1)
        made.begin()
        for record in long_and_short(1500, 400):  # a long line has 90 KB
            ring.writer.write(record)
        until(lambda: released(ring), "all read", ring)
        out = Collector(process)  # now it reads
        until(lambda: len(out.data) >= 16 << 20, "the backlog", ring)
        made.status(made.instruments[0], BookState.LIVE)
        ring.writer.set_state(int(RingState.CLOSED))
        until(lambda: process.poll() is not None, "the end", ring)
        lines = [orjson.loads(line) for line in out.lines()]
        expected, dropped = 1, 0
        for line in lines:
            if line["type"] == "lost":
                assert line["count"] > 0 and line["reason"] == "lost"
                dropped += line["count"]
                expected += line["count"]
            else:
                assert line["seq"] == expected
                expected += 1
        assert expected == ring.writer.next_seq and lines[-1]["type"] == "status"
        every = (tmp_path / "all.ndjson").read_bytes().splitlines()
        assert [orjson.loads(line)["seq"] for line in every] == list(range(1, expected))
        assert dropped > 100
        assert process.returncode == 0
        assert f"({dropped} dropped)" in (process.stderr.read().decode() if process.stderr else "")


def test_reader_that_stands_still_is_waited_for_in_a_replay(instance, tmp_path):
    """Also the other sinks stand still then, and none has lost a line."""
    path = tmp_path / "all.ndjson"
    arguments = ["--to", "ndjson:-", "--to", f"ndjson:{path}"]
    with made_ring(instance, policy="wait", capacity_bytes=1 << 22) as ring, piped(ring, *arguments) as process:
        until(lambda: attached(ring), "the reader", ring)
        BookStream(ring.writer.write, seed=21, instruments=1).begin()
        records = long_and_short(1500, 400)
        left, end = 800, time.monotonic() + 1.5
        while time.monotonic() < end:  # until nobody reads any more
            record = next(records)
            while not (written := ring.writer.write(record)) and time.monotonic() < end:
                ring.writer.beat()
                time.sleep(0.001)
            left -= written
        assert left > 100, "it was held up"
        out = Collector(process)
        for late in itertools.chain([] if written else [record], records):
            until(lambda late=late: bool(ring.writer.write(late)), "room in the ring", ring)
        ring.writer.set_state(int(RingState.CLOSED))
        until(lambda: process.poll() is not None, "the end", ring)
        assert [orjson.loads(line)["seq"] for line in out.lines()] == list(range(1, ring.writer.next_seq))
        assert path.read_bytes() == out.data


def test_pipe_that_somebody_made_non_blocking_is_waited_for_too(instance):
    """O_NONBLOCK belongs to the open file: whoever shares it may have set it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(reading, "rb") as out, made_ring(instance, policy="wait", capacity_bytes=1 << 24) as ring:
        with piped(ring, stdout=writing) as process:
            os.close(writing)
            until(lambda: attached(ring), "the reader", ring)
            BookStream(ring.writer.write, seed=23, instruments=1).begin()
            for record in long_and_short(1500, 10):
                assert ring.writer.write(record)
            until(lambda: released(ring), "all read", ring)
            ring.writer.set_state(int(RingState.CLOSED))
            lines = out.read().splitlines()
            until(lambda: process.poll() is not None, "the end", ring)
            assert process.returncode == 0
        assert [orjson.loads(line)["seq"] for line in lines] == list(range(1, ring.writer.next_seq))


def test_lines_are_out_while_a_public_ring_holds_everything_up(instance, tmp_path):
    """Who reads lines may be who must read the ring: they would wait for each other."""
    path, public = tmp_path / "lines", f"/lob.{instance}.public"
    arguments = ["--to", f"ndjson:{path}", "--to", f"shm:{public}?policy=wait", "--ring-bytes", "65536"]
    with made_ring(instance, policy="wait", capacity_bytes=1 << 22) as ring, piped(ring, *arguments) as process:
        until(lambda: attached(ring), "the reader", ring)
        made = BookStream(ring.writer.write, seed=24, instruments=1)
        made.begin()
        for _ in range(500):
            made.step()
        facts = open_segment(public, writable=False).facts
        until(lambda: facts()["full_waits"] > 3, "the public ring is full", ring)
        copied = facts()["records"]
        assert 100 < copied < ring.writer.next_seq - 1
        until(lambda: len(path.read_bytes().splitlines()) > copied, "the lines of what is in the ring", ring, seconds=2)
        process.kill()


def test_public_ring_has_every_record_with_its_raw_seq_and_goes_with_the_pipe(instance):
    public = f"/lob.{instance}.public"
    with made_ring(instance, policy="wait", capacity_bytes=1 << 15) as ring, piped(ring, "--to", "shm:") as process:
        until(lambda: attached(ring), "the reader", ring)
        with lob.subscribe(f"shm:{public}", start="oldest", timeout_s=10) as subscription:
            made = BookStream(lambda _: None, seed=4)
            expected = write_all(ring, made, 300)
            until(lambda: released(ring), "all read", ring)
            ring.writer.set_state(int(RingState.CLOSED))
            book = lob.SortedBook()
            count = 0
            for record in subscription:
                book.apply(record)
                book.check()
                count += int(record.header["ring_seq"]) != 0
            assert count == len(expected)
            assert book.holes == 0
            for instrument in made.instruments:
                assert (book[instrument.symbol].bids(), book[instrument.symbol].asks()) == instrument.levels()
        _, err = ended(process, ring)
        assert process.returncode == 0, err
        assert list_rings(instance) == [ring.name]


def test_record_too_large_for_the_public_ring_is_said_at_once_and_at_the_end(instance):
    arguments = ["--to", "shm:", "--ring-bytes", "16K"]
    with made_ring(instance, policy="wait", capacity_bytes=1 << 20) as ring, piped(ring, *arguments) as process:
        until(lambda: attached(ring), "the reader", ring)
        made = BookStream(ring.writer.write, seed=21, instruments=1)
        made.begin()
        for record in long_and_short(200, 3):  # a snapshot has 6 KiB
            ring.writer.write(record)
        until(lambda: select.select([process.stderr], [], [], 0)[0] != [], "a sentence on stderr", ring)
        first = process.stderr.readline().decode()
        assert f"shm:/lob.{instance}.public: " in first and "records are larger than a quarter of the ring" in first
        assert "give a larger --ring-bytes\n" in first  # a ring of a pipe is made anew anyhow
        ring.writer.set_state(int(RingState.CLOSED))
        _, err = ended(process, ring)
        assert process.returncode == 0
        said = [int(line.split()[2]) for line in (first + err).splitlines() if "larger than a quarter" in line]
        assert sum(said) == 3 and "(3 dropped)" in err


def test_public_ring_that_waits_loses_nothing_to_a_slow_registered_reader(instance):
    public = f"/lob.{instance}.public"
    arguments = ["--to", f"shm:{public}?policy=wait", "--ring-bytes", "16K"]
    with made_ring(instance, policy="wait", capacity_bytes=1 << 15) as ring, piped(ring, *arguments) as process:
        until(lambda: attached(ring), "the reader", ring)
        with lob.subscribe(f"shm:{public}", start="oldest", timeout_s=10, register=True) as subscription:
            made = BookStream(lambda _: None, seed=5)
            numbers: list[int] = []

            def read_some() -> None:
                for _ in range(7):
                    if (record := subscription.poll()) is not None and int(record.header["ring_seq"]):
                        numbers.append(int(record.header["ring_seq"]))

            def put(record: bytes) -> None:
                while not ring.writer.write(record):
                    read_some()

            made.put = put
            made.begin()
            for _ in range(300):
                made.step()
            ring.writer.set_state(int(RingState.CLOSED))
            numbers += [int(record.header["ring_seq"]) for record in subscription if int(record.header["ring_seq"])]
            assert subscription.lost == 0
            assert numbers == list(range(1, ring.writer.next_seq))
        ended(process, ring)
        assert process.returncode == 0


def test_sink_that_fails_is_named_and_the_others_go_on(instance, tmp_path):
    path = tmp_path / "good.ndjson"
    arguments = ["--to", "ndjson:/dev/full", "--to", f"ndjson:{path}"]
    with made_ring(instance, policy="wait") as ring, piped(ring, *arguments) as process:
        until(lambda: attached(ring), "the reader", ring)
        expected = write_all(ring, BookStream(lambda _: None, seed=6), 50)
        until(lambda: path.exists() and path.read_bytes().count(b"\n") == len(expected), "the good file", ring)
        ring.writer.set_state(int(RingState.CLOSED))
        _, err = ended(process, ring)
        assert process.returncode == 0
        assert "ndjson:/dev/full: No space left on device; free some space" in err


def test_when_no_sink_is_left_the_exit_status_is_1(instance):
    with made_ring(instance, policy="wait") as ring, piped(ring, "--to", "ndjson:/dev/full") as process:
        until(lambda: attached(ring), "the reader", ring)
        write_all(ring, BookStream(lambda _: None, seed=7), 5)
        _, err = ended(process, ring)
        assert process.returncode == 1
        assert "no sink is left" in err


def test_file_that_cannot_be_made_ends_with_1_and_says_so(instance):
    with made_ring(instance) as ring, piped(ring, "--to", "ndjson:/nonexistent/file") as process:
        _, err = ended(process, ring)
        assert process.returncode == 1
        assert "ndjson:/nonexistent/file: No such file or directory" in err


@pytest.mark.parametrize(
    ("uris", "sentence"),
    [
        (["nosuch:x"], "no such sink"),
        (["ndjson:"], "ndjson:FILE"),
        (["shm:/x"], "no ring name"),
        (["shm:?policy=maybe"], "policy=drop"),
        (["ndjson:-", "table:"], "only one sink can have stdout"),
    ],
)
def test_uri_that_is_none_ends_with_2(uris, sentence):
    arguments = [part for uri in uris for part in ("--to", uri)]
    with publishing(*arguments) as process:
        _, err = ended(process)
        assert process.returncode == 2
        assert sentence in err


def test_sigterm_writes_what_was_read_and_leaves_with_0(instance, tmp_path):
    path = tmp_path / "out.ndjson"
    with made_ring(instance, policy="wait") as ring, piped(ring, "--to", f"ndjson:{path}", "--to", "shm:") as process:
        until(lambda: attached(ring), "the reader", ring)
        expected = write_all(ring, BookStream(lambda _: None, seed=8), 200)
        until(lambda: released(ring), "all read", ring)
        process.send_signal(signal.SIGTERM)
        _, err = ended(process, ring)
        assert process.returncode == 0
        assert path.read_bytes().splitlines() == expected
        assert "lost 0" in err
        assert list_rings(instance) == [ring.name]


def test_named_public_ring_is_left_paused(instance):
    with made_ring(instance, policy="drop") as ring, publishing("--in", ring.name, "--to", "shm:") as process:
        until(lambda: attached(ring), "the reader", ring)
        BookStream(ring.writer.write, seed=9).begin()
        until(lambda: released(ring), "all read", ring)
        process.send_signal(signal.SIGTERM)
        ended(process, ring)
        assert process.returncode == 0
        with lob.subscribe(f"shm:/lob.{instance}.public", start="oldest") as subscription:
            assert len(list_rings(instance)) == 2
            assert not subscription.closed and subscription.silent


def tell_instruments(ring: OutputRing, made: BookStream) -> None:
    """In the manifest, as lob-book does: a successor begins behind their records."""
    announced: list[bytes] = []
    made.put, put = announced.append, made.put
    for instrument in made.instruments:
        made.announce(instrument)
    made.put = put
    ring.manifest["instruments"] = [entry(parse(record)) for record in announced]
    ring.write_manifest()


def numbering(ring: OutputRing) -> Callable[[bytes], None]:
    """Writes records whose raw_seq is their number in the ring."""

    def put(record: bytes) -> None:
        numbered = bytearray(record)
        numbered[16:24] = ring.writer.next_seq.to_bytes(8, "little")
        until(lambda: bool(ring.writer.write(bytes(numbered))), "room", ring)

    return put


def public_raw_seqs(name: str) -> list[int]:
    """`raw_seq` of every record in the ring that came from upstream: the test numbers them there."""
    with lob.subscribe(f"shm:{name}", start="oldest") as subscription:
        numbers = []
        while (record := subscription.poll()) is not None:
            if int(record.header["raw_seq"]):
                numbers.append(int(record.header["raw_seq"]))
        return numbers


@pytest.mark.parametrize("policy", ["wait", "drop"])
def test_killed_and_started_again_nothing_is_missing_or_twice_in_the_public_ring(instance, policy):
    public = f"/lob.{instance}.public"
    arguments = ["--in", f"/lob.{instance}.book", "--to", "shm:"]
    with made_ring(instance, policy=policy, capacity_bytes=1 << 22) as ring:
        made = BookStream(numbering(ring), seed=10)
        made.begin()
        tell_instruments(ring, made)
        for round_ in range(6):
            with publishing(*arguments) as process:
                until(lambda: public in list_rings(instance), "the public ring", ring)
                # Written while it works, so the kill falls somewhere in the middle.
                for _ in range(400):
                    made.step()
                tell_instruments(ring, made)
                time.sleep(0.003 * round_)
                process.kill()
                process.wait()
        with publishing(*arguments) as process:
            until(lambda: released(ring), "all read", ring)
            until(lambda: len(public_raw_seqs(public)) >= ring.writer.next_seq - 1, "all published", ring)
            assert public_raw_seqs(public) == list(range(1, ring.writer.next_seq))
            # Every reader is whole again after a refresh, in the new owner's epoch.
            with lob.subscribe(f"shm:{public}") as late:
                for instrument in made.instruments:
                    made.snapshot(instrument, Flag.REFRESH)
                    made.diff(instrument)
                book = lob.SortedBook()
                until(lambda: feed(book, late) and whole(book, made), "the books", ring)
            process.send_signal(signal.SIGTERM)
            ended(process, ring)
            assert process.returncode == 0


def feed(book: lob.SortedBook, subscription: lob.Subscription) -> bool:
    while (record := subscription.poll()) is not None:
        book.apply(record)
        book.check()
    return True


def whole(book: lob.SortedBook, made: BookStream) -> bool:
    return all(
        instrument.symbol in book
        and book[instrument.symbol].state is BookState.LIVE
        and (book[instrument.symbol].bids(), book[instrument.symbol].asks()) == instrument.levels()
        for instrument in made.instruments
    )


def statuses(data: bytes) -> list[tuple[str, str, str]]:
    lines = [orjson.loads(line) for line in data.splitlines(keepends=True) if line.endswith(b"\n")]
    return [(line["symbol"], line["state"], line["reason"]) for line in lines if line["type"] == "status"]


def last_word(data: bytes) -> tuple[str, str]:
    """State and reason of the newest status; empty if there is none yet."""
    return (("", "", ""), *statuses(data))[-1][1:]


def test_silent_book_makes_every_live_book_stale_and_live_again_with_its_next_sign(instance):
    with made_ring(instance, policy="drop") as ring, piped(ring, "--to", "ndjson:-", "--to", "shm:") as process:
        out = Collector(process)
        until(lambda: attached(ring), "the reader", ring)
        made = BookStream(ring.writer.write, seed=11)
        made.begin()
        symbols = {instrument.symbol for instrument in made.instruments}
        with lob.subscribe(f"shm:/lob.{instance}.public", start="oldest", timeout_s=10) as subscription:
            book = lob.SortedBook()
            until(lambda: feed(book, subscription) and whole(book, made), "the books", ring)
            silent = {(symbol, "stale", "upstream_silent") for symbol in symbols}
            until(lambda: silent <= set(statuses(out.data)), "the word that it is silent")
            until(lambda: feed(book, subscription) and book["COIN0USDT"].state is BookState.STALE, "a stale book")
            assert book["COIN0USDT"].reason is Reason.UPSTREAM_SILENT
            until(lambda: last_word(out.data) == ("live", "none"), "the word that it lives", ring)
            until(lambda: feed(book, subscription) and whole(book, made), "the books live", ring)
        # Once each time: on a busy machine this test may itself be silent more often than it means to.
        told = [status for status in statuses(out.data) if status[0] == "COIN0USDT"]
        assert all(before != after for before, after in itertools.pairwise(told))
        ring.writer.set_state(int(RingState.CLOSED))
        until(lambda: process.poll() is not None, "the end", ring)
        assert process.returncode == 0


def test_lapped_publisher_says_so_and_every_book_is_stale_until_its_refresh(instance):
    with made_ring(instance, policy="drop", capacity_bytes=1 << 14) as ring:
        made = BookStream(ring.writer.write, seed=12)
        with piped(ring, "--to", "ndjson:-", "--to", "shm:") as process:
            out = Collector(process)
            until(lambda: attached(ring), "the reader", ring)
            made.begin()
            with lob.subscribe(f"shm:/lob.{instance}.public", start="oldest", timeout_s=10) as subscription:
                book = lob.SortedBook()
                until(lambda: feed(book, subscription) and whole(book, made), "the books", ring)
                process.send_signal(signal.SIGSTOP)
                for _ in range(500):
                    for instrument in made.instruments:
                        made.diff(instrument)
                process.send_signal(signal.SIGCONT)
                made.diff(made.instruments[0])
                until(lambda: ("COIN1USDT", "stale", "lost") in statuses(out.data), "the word about the loss", ring)
                until(lambda: feed(book, subscription) and not book["COIN0USDT"].whole, "a book in doubt", ring)
                assert book.holes == 1
                for instrument in made.instruments:
                    made.snapshot(instrument, Flag.REFRESH)
                    made.diff(instrument)
                until(lambda: feed(book, subscription) and whole(book, made), "the books whole again", ring)
                until(lambda: last_word(out.data) == ("live", "none"), "the word that they live", ring)
            ring.writer.set_state(int(RingState.CLOSED))
            until(lambda: process.poll() is not None, "the end", ring)
            assert process.returncode == 0
            assert "records lost" in (process.stderr.read().decode() if process.stderr else "")


def test_ring_with_one_reader_is_refused(instance):
    name = f"/lob.{instance}.events"
    ring = OutputRing(name, Kind.SPSC)
    try:
        with publishing("--in", name, "--to", "ndjson:-") as process:
            _, err = ended(process, ring)
            assert process.returncode == 2
            assert "is not lob-book's ring" in err
    finally:
        ring.close(RingState.CLOSED, remove=True)


def test_second_public_ring_of_the_name_is_refused_with_3(instance):
    with made_ring(instance) as ring, made_ring(instance, "public"), piped(ring, "--to", "shm:") as process:
        _, err = ended(process, ring)
        assert process.returncode == 3
        assert f"pid {os.getpid()}" in err


def test_torn_line_at_the_end_of_a_file_is_cut_when_it_is_appended_to(instance, tmp_path: Path):
    path = tmp_path / "out.ndjson"
    path.write_bytes(b'{"type":"old"}\n{"type":"to')
    with (
        made_ring(instance, policy="drop") as ring,
        publishing("--in", ring.name, "--to", f"ndjson:{path}") as process,
    ):
        until(lambda: attached(ring), "the reader", ring)
        BookStream(ring.writer.write, seed=13).begin()
        until(lambda: path.read_bytes().count(b"\n") == 9, "the lines", ring)
        process.send_signal(signal.SIGTERM)
        ended(process, ring)
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert lines[0] == {"type": "old"} and lines[1]["type"] == "instrument"


def test_stamp_of_this_stage_is_in_the_public_ring(instance):
    with made_ring(instance, policy="drop") as ring, piped(ring, "--to", "shm:") as process:
        until(lambda: attached(ring), "the reader", ring)
        made = BookStream(lambda _: None, seed=14, instruments=1)

        def put(record: bytes) -> None:
            stamped = bytearray(record)
            stamped[40:48] = _native.mono_ns().to_bytes(8, "little")  # origin_ns
            ring.writer.write(bytes(stamped))

        made.put = put
        made.begin()
        with lob.subscribe(f"shm:/lob.{instance}.public", start="oldest", timeout_s=10) as subscription:
            until(lambda: released(ring), "all read", ring)
            records = [record for _ in range(20) if (record := subscription.poll()) is not None]
            assert [r.type for r in records].count(RecordType.SNAPSHOT) == 1
            assert all(0 < int(record.header["stage_ns"][3]) < 5 * 10**9 for record in records)
        process.send_signal(signal.SIGTERM)
        ended(process, ring)


def test_ring_made_anew_is_read_from_its_beginning(instance):
    public = f"/lob.{instance}.public"
    with publishing("--in", f"/lob.{instance}.book", "--to", "shm:", "--to", "ndjson:-") as process:
        out = Collector(process)
        for seed in (15, 16):  # the second ring begins its numbers anew, below those of the first
            with made_ring(instance, policy="drop") as ring:
                made = BookStream(ring.writer.write, seed=seed)
                made.begin()
                for _ in range(50 if seed == 15 else 3):
                    made.step()
                until(lambda ring=ring: released(ring), "all read", ring)
                with lob.subscribe(f"shm:{public}", start="oldest") as subscription:
                    book = lob.SortedBook()
                    until(lambda s=subscription, b=book, m=made: feed(b, s) and whole(b, m), "the books", ring)
                    assert book.holes == (seed == 16)
                ring.close(RingState.PAUSED, remove=True)
        assert ("COIN0USDT", "stale", "restarted") in statuses(out.data) or (
            "COIN0USDT",
            "stale",
            "upstream_silent",
        ) in statuses(out.data)
        process.send_signal(signal.SIGTERM)
        until(lambda: process.poll() is not None, "the end")
        assert process.returncode == 0


def test_new_owner_of_the_ring_is_met_with_stale_books(instance):
    with publishing("--in", f"/lob.{instance}.book", "--to", "ndjson:-") as process:
        out = Collector(process)
        with made_ring(instance, policy="drop", keep=True) as ring:
            made = BookStream(ring.writer.write, seed=17)
            made.begin()
            until(lambda: released(ring), "all read", ring)
            ring.close(RingState.PAUSED, remove=False)
            until(lambda: last_word(out.data) == ("stale", "upstream_silent"), "the word that it is silent")
            with made_ring(instance, policy="drop", keep=True) as again:
                before = len(statuses(out.data))
                made.put = again.writer.write
                made.announce(made.instruments[0])
                made.snapshot(made.instruments[0])
                until(lambda: released(again), "all read", again)
                made.status(made.instruments[0], BookState.LIVE)
                until(lambda: len(statuses(out.data)) > before, "a status", again)
                # Nobody but the new owner calls a book live.
                assert statuses(out.data)[before:] == [("COIN0USDT", "live", "none")]
                assert b"unknown_version" not in out.data
        process.send_signal(signal.SIGTERM)
        until(lambda: process.poll() is not None, "the end")
        assert process.returncode == 0


def test_blocked_public_ring_and_a_stop_lose_nothing(instance):
    """The record that found no room was read but not released: the successor publishes it."""
    public = f"/lob.{instance}.public"
    arguments = ["--in", f"/lob.{instance}.book", "--to", f"shm:{public}?policy=wait", "--ring-bytes", "4K"]
    with made_ring(instance, policy="drop") as ring:
        made = BookStream(numbering(ring), seed=18)
        made.begin()
        for _ in range(100):
            made.step()
        with publishing(*arguments) as process:
            until(lambda: public in list_rings(instance), "the public ring", ring)
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            ended(process, ring)
        with publishing(*arguments) as process:
            numbers: list[int] = []
            with lob.subscribe(f"shm:{public}", start="oldest", register=True, timeout_s=10) as subscription:

                def all_read() -> bool:
                    while (record := subscription.poll()) is not None:
                        if int(record.header["raw_seq"]):
                            numbers.append(int(record.header["raw_seq"]))
                    return len(numbers) >= ring.writer.next_seq - 1

                until(all_read, "all records", ring)
                assert numbers == list(range(1, ring.writer.next_seq))


def test_terminal_shows_a_table(instance):
    leader, follower = pty.openpty()
    try:
        with made_ring(instance, policy="drop") as ring, piped(ring, stdout=follower) as process:
            os.close(follower)
            follower = -1
            until(lambda: attached(ring), "the reader", ring)
            made = BookStream(ring.writer.write, seed=19)
            made.begin()
            shown = b""

            def read() -> bytes:
                nonlocal shown
                with contextlib.suppress(OSError):  # nobody has the other side open any more
                    if select.select([leader], [], [], 0)[0]:
                        shown += os.read(leader, 1 << 16)
                return shown

            until(lambda: b"COIN0USDT" in read() and b"live" in shown and b"SPREAD" in shown, "the table", ring)
            process.send_signal(signal.SIGTERM)
            until(lambda: read() is not None and process.poll() is not None, "the end", ring)
            assert process.returncode == 0
    finally:
        os.close(leader)
        if follower >= 0:
            os.close(follower)
