"""lob-publish --workers: every record by exactly one of several processes, whichever of them is killed."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from test_publish import Collector, attached, ended, piped, publishing, released, tell_instruments, until, write_all

from book_stream import BookStream, made_ring, unique_instance
from lob.names import list_rings
from lob.records import BookState, RecordType, build
from lob.segments import RingState, unlink
from lob.trace import list_traces


@pytest.fixture
def instance() -> Iterator[str]:
    name = unique_instance()
    yield name
    for ring in [*list_rings(name), *list_traces(name)]:
        unlink(ring)


GONE = (FileNotFoundError, ProcessLookupError)  # before we open its file in /proc, or while we read it


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Pids of its workers; those that are at work: they have their name then."""
    try:
        pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    except GONE:
        return []
    found = []
    for pid in map(int, pids):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except GONE:
            continue
        if status.startswith("Name:\tlob-worker-") and "State:\tZ" not in status:
            found.append(pid)
    return found


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except GONE:
        return True


def lines_in(folder: Path) -> list[bytes]:
    """Of all workers' files, whole lines only."""
    texts = [path.read_bytes() for path in sorted(folder.glob("out.*.ndjson"))]
    assert all(text.endswith(b"\n") for text in texts if text)
    return [line for text in texts for line in text.splitlines()]


def seqs(lines: list[bytes]) -> list[int]:
    return [seq for line in lines if (seq := orjson.loads(line).get("seq"))]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_lines_of_all_workers_are_those_of_one_process(instance, tmp_path, count):
    """Among them new versions of instruments, announced to one worker and needed by another."""
    arguments = ["--to", f"ndjson:{tmp_path}/out.ndjson", "--to", "ndjson:-", "--workers", str(count)]
    with made_ring(instance, policy="wait", capacity_bytes=1 << 15) as ring, piped(ring, *arguments) as process:
        out = Collector(process)
        expected = write_all(ring, BookStream(lambda _: None, seed=1), 4000)
        ring.writer.set_state(int(RingState.CLOSED))
        until(lambda: process.poll() is not None, "the end", ring)
        err = process.stderr.read().decode() if process.stderr else ""
        assert process.returncode == 0, err
        assert len(list(tmp_path.glob("out.*.ndjson"))) == count and not (tmp_path / "out.ndjson").exists()
        assert sorted(lines_in(tmp_path)) == sorted(expected)
        assert sorted(out.lines()) == sorted(expected)
        assert f"ndjson:- {len(expected)} messages" in err and "lost 0" in err
    for path in tmp_path.glob("out.*.ndjson"):  # each worker's own lines are in the ring's order
        own = seqs(path.read_bytes().splitlines())
        assert own == sorted(own)


def test_workers_killed_at_random_leave_every_line_once(instance, tmp_path):
    """24 SIGKILLs under `wait`, in the middle of bursts: no line is missing, none is twice, none is torn."""
    chance = random.Random(99)
    arguments = ["--to", f"ndjson:{tmp_path}/out.ndjson", "--workers", "2"]
    burst: list[bytes] = []
    made = BookStream(burst.append, seed=2)
    made.begin()
    while len(burst) < 3000:
        made.step()
    with made_ring(instance, policy="wait", capacity_bytes=1 << 18) as ring, piped(ring, *arguments) as process:
        for _ in range(24):
            until(lambda: len(workers_of(process)) == 2, "both workers", ring)
            pids, kill_at = workers_of(process), chance.randrange(1000, len(burst))
            for number, record in enumerate(burst):
                while not ring.writer.write(record):
                    ring.writer.wait_free(1000, "yield", 20)
                    ring.writer.beat()
                if number == kill_at:
                    os.kill(killed := chance.choice(pids), signal.SIGKILL)
            until(lambda killed=killed: gone(killed), "its end", ring)
        ring.writer.set_state(int(RingState.CLOSED))
        until(lambda: process.poll() is not None, "the end", ring, seconds=30)
        err = process.stderr.read().decode() if process.stderr else ""
        assert process.returncode == 0, err
    assert err.count("was killed by SIGKILL") >= 23  # the last may fall behind the last batch
    found = [orjson.loads(line) for line in lines_in(tmp_path)]
    assert sorted(line["seq"] for line in found) == list(range(1, 24 * len(burst) + 1))
    assert not any(line["type"] in ("unknown_version", "lost") for line in found)
    assert f"{24 * len(burst)} messages" in err and "lost 0" in err


def test_workers_killed_while_they_write_to_a_pipe_mix_and_tear_no_line(instance):
    """What was written between a write and its note may be there twice, not more than a pipe takes at once."""
    arguments = ["--to", "ndjson:-", "--workers", "2"]
    with made_ring(instance, policy="wait", capacity_bytes=1 << 18) as ring, piped(ring, *arguments) as process:
        out = Collector(process)
        made, kills = BookStream(lambda _: None, seed=3), 0
        written: list[int] = []

        def put(record: bytes) -> None:
            until(lambda: bool(ring.writer.write(record)), "room", ring)
            written.append(ring.writer.next_seq - 1)

        made.put = put
        made.begin()
        while kills < 8:
            until(lambda: len(workers_of(process)) == 2, "both workers", ring)
            pids = workers_of(process)
            for _ in range(400):
                made.step()
            os.kill(pids[kills % 2], signal.SIGKILL)
            kills += 1
            until(lambda pids=pids: len(workers_of(process)) == 2 and workers_of(process) != pids, "a successor", ring)
        ring.writer.set_state(int(RingState.CLOSED))
        until(lambda: process.poll() is not None, "the end", ring)
        lines = out.lines()
        assert out.data.endswith(b"\n") and set(seqs(lines)) == set(written)  # each is JSON, none is missing
        assert sum(map(len, lines)) - sum(map(len, set(lines))) <= kills * 4096


def test_lapped_workers_tell_what_they_lost(instance, tmp_path):
    """Under `drop`: stopped while the ring goes round, and killed; what is not there as a line is there as a number."""
    arguments = ["--to", f"ndjson:{tmp_path}/out.ndjson", "--to", "shm:", "--workers", "2"]
    with made_ring(instance, policy="drop", capacity_bytes=1 << 16) as ring, piped(ring, *arguments) as process:
        until(lambda: attached(ring) and len(workers_of(process)) == 2, "the workers", ring)
        made = BookStream(ring.writer.write, seed=4)
        made.begin()
        stopped = workers_of(process)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        for step in range(1500):  # slowly enough for the parent, which goes on
            made.step()
            if step % 20 == 0:
                ring.writer.beat()
                time.sleep(0.002)
        os.kill(stopped[0], signal.SIGKILL)
        os.kill(stopped[1], signal.SIGCONT)
        until(lambda: "workers were lapped" in errors(process), "the word about the loss", ring)
        made.status(made.instruments[0], BookState.LIVE)
        ring.writer.set_state(int(RingState.CLOSED))
        until(lambda: process.poll() is not None, "the end", ring)
        assert process.returncode == 0
        total, err = ring.writer.next_seq - 1, errors(process)
    lines = [orjson.loads(line) for line in lines_in(tmp_path)]
    told = sum(line["count"] for line in lines if line["type"] == "lost")
    have = [line["seq"] for line in lines if line.get("seq")]
    assert len(have) == len(set(have)) and told > 500
    lost = int(err.rsplit("lost ", 1)[1].split()[0].rstrip(";"))
    assert len(have) + lost == total  # of the workers, and perhaps of the parent itself
    assert told <= lost


_errors: dict[int, bytes] = {}


def errors(process: subprocess.Popen[bytes]) -> str:
    """stderr so far."""
    assert process.stderr is not None
    os.set_blocking(process.stderr.fileno(), False)
    _errors[process.pid] = _errors.get(process.pid, b"") + (process.stderr.read() or b"")
    return _errors[process.pid].decode()


def test_worker_that_dies_again_and_again_ends_the_stage_with_1(instance, tmp_path):
    arguments = ["--to", f"ndjson:{tmp_path}/out.ndjson", "--workers", "1"]
    with made_ring(instance, policy="wait") as ring, piped(ring, *arguments) as process:
        for _ in range(3):
            until(lambda: bool(workers_of(process)), "a worker", ring)
            (pid,) = workers_of(process)
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: pid not in workers_of(process), "its end", ring)
        _, err = ended(process, ring)
        assert process.returncode == 1
        assert "was killed by SIGKILL, as 2 before it" in err


def test_workers_end_with_their_parent(instance, tmp_path):
    arguments = ["--to", f"ndjson:{tmp_path}/out.ndjson", "--workers", "2"]
    with made_ring(instance, policy="wait") as ring, piped(ring, *arguments) as process:
        until(lambda: len(workers_of(process)) == 2, "the workers", ring)
        pids = workers_of(process)
        process.kill()
        process.wait()
        until(lambda: all(map(gone, pids)), "the end of the workers", ring, seconds=5)


@pytest.mark.parametrize("stop", ["sigterm", "for"])
def test_a_stop_writes_all_that_was_read(instance, tmp_path, stop):
    arguments = ["--to", f"ndjson:{tmp_path}/out.ndjson", "--workers", "2"]
    if stop == "for":
        arguments += ["--for", "2s"]
    with made_ring(instance, policy="wait") as ring, piped(ring, *arguments) as process:
        until(lambda: attached(ring), "the reader", ring)
        expected = write_all(ring, BookStream(lambda _: None, seed=5), 300)
        until(lambda: released(ring), "all done", ring)  # released is what is written
        assert sorted(lines_in(tmp_path)) == sorted(expected)
        if stop == "sigterm":
            process.send_signal(signal.SIGTERM)
        _, err = ended(process, ring)
        assert process.returncode == 0 and "lost 0" in err
        assert sorted(lines_in(tmp_path)) == sorted(expected)


def test_named_files_are_appended_to_and_torn_lines_cut(instance, tmp_path):
    (tmp_path / "out.1.ndjson").write_bytes(b'{"type":"old"}\n{"type":"to')
    arguments = ["--in", f"/lob.{instance}.book", "--to", f"ndjson:{tmp_path}/out.ndjson", "--workers", "2"]
    with made_ring(instance, policy="wait") as ring:
        made = BookStream(lambda _: None, seed=6)
        made.put = lambda record: until(lambda: bool(ring.writer.write(record)), "room", ring)
        made.begin()
        tell_instruments(ring, made)
        for _ in range(3):  # the second and third begin in the middle: names come from the manifest
            with publishing(*arguments) as process:
                pid = process.pid
                until(lambda pid=pid: ring.segment.facts()["readers"][0]["pid"] == pid, "the reader", ring)
                time.sleep(0.1)  # it reads the manifest as it is now
                for _ in range(200):
                    made.step()
                tell_instruments(ring, made)
                until(lambda: released(ring), "all done", ring)
                process.send_signal(signal.SIGTERM)
                _, err = ended(process, ring)
                assert process.returncode == 0, err
        lines = lines_in(tmp_path)
        assert lines[0] == b'{"type":"old"}' and sorted(seqs(lines)) == list(range(1, ring.writer.next_seq))
        assert [line for line in lines if b"unknown_version" in line] == []


def test_ring_made_anew_is_read_by_workers_too(instance, tmp_path):
    arguments = ["--in", f"/lob.{instance}.book", "--to", f"ndjson:{tmp_path}/out.ndjson", "--workers", "2"]
    total = 0
    with publishing(*arguments) as process:
        for seed in (7, 8):
            with made_ring(instance, policy="drop") as ring:
                made = BookStream(ring.writer.write, seed=seed)
                made.begin()
                for _ in range(100):
                    made.step()
                until(lambda ring=ring: released(ring), "all done", ring)
                total += ring.writer.next_seq - 1
                ring.close(RingState.PAUSED, remove=True)
        process.send_signal(signal.SIGTERM)
        until(lambda: process.poll() is not None, "the end")
        assert process.returncode == 0
    lines = lines_in(tmp_path)
    assert len(seqs(lines)) == total and b"unknown_version" not in b"".join(lines)


def test_sink_of_workers_that_fails_is_named_and_the_others_go_on(instance, tmp_path):
    """A file that may not grow further: the lines written until then stay whole."""
    status = build(RecordType.STATUS, {"state": 1}, instrument=0, version=1)
    arguments = ["--to", f"ndjson:{tmp_path}/out.ndjson", "--to", "ndjson:-", "--workers", "2"]
    with made_ring(instance, policy="drop", capacity_bytes=1 << 22) as ring, piped(ring, *arguments) as process:
        out = Collector(process)
        until(lambda: attached(ring), "the reader", ring)
        until(lambda: len(workers_of(process)) == 2, "the workers", ring)
        for pid in workers_of(process):  # they have made their shared memory
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
        BookStream(ring.writer.write, seed=9, instruments=1).begin()
        for _ in range(3000):
            ring.writer.write(status)
        until(lambda: out.data.count(b"\n") == ring.writer.next_seq - 1, "all on stdout", ring)
        until(lambda: "File too large" in errors(process), "the word about the file", ring)
        ring.writer.set_state(int(RingState.CLOSED))
        until(lambda: process.poll() is not None, "the end", ring)
        assert process.returncode == 0
    found = seqs(lines_in(tmp_path))
    assert 100 < len(found) == len(set(found))


@pytest.mark.parametrize("to", [["--to", "shm:"], ["--to", "shm:", "--to", "shm:/lob.other.public"]])
def test_workers_without_text_end_with_2(to):
    with publishing("--workers", "2", *to) as process:
        _, err = ended(process)
        assert process.returncode == 2 and "--workers write NDJSON" in err


def test_workers_are_0_to_32():
    with publishing("--workers", "33") as process:
        _, err = ended(process)
        assert process.returncode == 2 and "--workers" in err


def test_a_path_that_is_no_file_is_refused(instance):
    with made_ring(instance) as ring, piped(ring, "--to", "ndjson:/dev/full", "--workers", "2") as process:
        _, err = ended(process, ring)
        assert process.returncode == 1 and "no file; with --workers each writes a file of its own" in err

