"""Trace points and histograms in the real stages: switched while they run, recorded, and left by none of them."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lob import _native
from lob.errors import ForeignOwner, WrongLayout
from lob.names import SHM, list_rings
from lob.records import Stage
from lob.trace import StageTrace, list_traces, open_trace
from pipeline import REPOSITORY, Pipeline, pipeline
from processes.peer import eventually, own_instance, remove_all

pytestmark = pytest.mark.skipif(_native.LITE, reason="a LITE build has no traces")

RECORDING = REPOSITORY / "tests" / "recordings" / "binance-seed7.jsonl.gz"
STAGES = ("connect", "parse", "book", "publish")


@pytest.fixture
def instance() -> Iterator[str]:
    with own_instance() as name:
        yield name


def trace(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lob_trace", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)


def lines(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def replaying(tmp_path: Path) -> Iterator[Pipeline]:
    """The four stages at a replay that goes on for as long as the test does."""
    once = gzip.decompress(RECORDING.read_bytes())
    (tmp_path / "long.jsonl").write_bytes(once * 20)
    connect = ["binance", "--replay", str(tmp_path / "long.jsonl"), "--speed", "4"]
    options = {"connect": connect, "publish": ["--to", "shm:"]}
    with pipeline(options, tmp_path) as running:
        try:
            eventually(lambda: len(list_traces(running.instance)) == 4, "the traces of four stages")
            yield running
        finally:
            running.stop()
            remove_all(running.instance)


def test_each_stage_counts_and_its_points_are_recorded_once_they_are_on(replaying: Pipeline, tmp_path: Path) -> None:
    name = replaying.instance
    eventually(lambda: all(row["count"] for row in lines(trace("300ms", "1", "--instance", name))), "counts of all")
    file, page, perfetto = (str(tmp_path / what) for what in ("x.trace", "x.html", "x.json"))

    result = trace("record", file, "--for", "300ms", "--instance", name)
    assert result.returncode == 0 and "trace points are off" in result.stderr and "0 trace points" in result.stderr
    assert {row["of"] for row in lines(trace("report", file))} == {"stamps"}

    result = trace("on", name)
    switched = [line.split()[2].rpartition("-")[2] for line in result.stderr.splitlines()]
    assert result.returncode == 0 and switched == [*STAGES]
    result = trace("record", file, "--for", "1500ms", "--instance", name)
    assert result.returncode == 0 and ", 0 lost" in result.stderr
    rows = {(row["of"], row["stage"]): row for row in lines(trace("report", file))}
    assert {stage for of, stage in rows if of == "stamps"} == {*STAGES, "end to end"}
    for step in ("to parse", "parse", "to book", "book", "to publish", "publish", "receive to publish"):
        row = rows["points", step]
        assert row["count"] > 0 and 0 <= row["p50_us"] <= row["p99_us"] <= row["max_us"], step
    # The way of the points and the way of the stamps are one: from the receipt to the last commit.
    whole, stamped = rows["points", "receive to publish"], rows["stamps", "end to end"]
    assert 0.5 * stamped["p50_us"] < whole["p50_us"] < 2 * stamped["p50_us"]

    assert trace("report", file, "--html", page).returncode == 0 and Path(page).read_text().count("<svg") == 3
    assert trace("export", file, "--perfetto", perfetto).returncode == 0
    events = json.loads(Path(perfetto).read_text())["traceEvents"]
    assert {event["name"] for event in events if event["ph"] == "X"} == set(STAGES)
    starts, ends = ({event["id"] for event in events if event["ph"] == phase} for phase in "sf")
    assert starts == ends and starts
    compared = lines(trace("report", file, "--baseline", file))
    assert all(row["p50_ratio"] in (1.0, None) and not row["regression"] for row in compared)

    assert trace("off", name).returncode == 0
    assert "0 trace points" in trace("record", file, "--for", "300ms", "--instance", name).stderr


def test_books_are_shown_from_the_board(replaying: Pipeline) -> None:
    def books() -> list[dict[str, Any]]:
        return lines(trace("books", replaying.instance))

    row = eventually(lambda: next((one for one in books() if one["bid"]), None), "a book with a bid")
    assert row["instance"] == replaying.instance and row["state"] in ("live", "stale") and row["age_ms"] >= 0
    assert float(row["ask"]) - float(row["bid"]) == pytest.approx(float(row["spread"]))


def test_stages_that_end_leave_no_trace_and_one_that_was_killed_leaves_it_to_clean(tmp_path: Path) -> None:
    with pipeline({"connect": ["binance", "--replay", str(RECORDING), "--speed", "max"]}, tmp_path) as running:
        assert set(running.wait().values()) == {0}
        assert list_traces(running.instance) == [] and not list(SHM.glob(f"*{running.instance}*"))


def test_the_trace_of_a_killed_owner_is_cleaned_and_that_of_a_live_one_kept(instance: str) -> None:
    code = f"import signal; from lob.trace import *; t = StageTrace({instance!r}, Stage.BOOK); print(1, flush=True)"
    code += "; signal.pause()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None and owner.stdout.readline()
        (name,) = list_traces(instance)
        assert list_rings(instance) == []
        assert f"{name} is held by a live process; kept" in trace("clean", "--yes", instance).stderr
        trace("on", instance)
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    assert trace("1", "1", "--instance", instance).returncode == 1  # nobody counts there any more
    # Who comes after it is traced as it was.
    successor = StageTrace(instance, Stage.BOOK)
    assert successor.name == name and successor.trace.facts()["on"]
    os.link(SHM / name[1:], SHM / f"{name[1:]}-1")  # as a killed second process of the stage leaves it
    assert lines(trace("clean", "--yes", instance)) == [{"removed": f"{name}-1", "what": "trace"}]
    successor.close()
    assert list(SHM.glob(f"*{instance}*")) == []


def test_a_second_process_of_a_stage_has_a_trace_of_its_own_and_both_are_counted_together(instance: str) -> None:
    first, second = StageTrace(instance, Stage.PUBLISH), StageTrace(instance, Stage.PUBLISH)
    assert [first.name, second.name] == list_traces(instance) and second.name == f"{first.name}-1"
    assert second.trace.facts()["thread"] == 1
    with subprocess.Popen(
        [sys.executable, "-m", "lob_trace", "1", "1", "--instance", instance], stdout=subprocess.PIPE, text=True
    ) as process:
        eventually(lambda: f"{second.name}" in Path(f"/proc/{process.pid}/maps").read_text(), "it reads both")
        first.trace.record(1, 2)
        second.trace.record(1, 2)
        out, _ = process.communicate(timeout=10)
    assert [json.loads(line)["count"] for line in out.splitlines()] == [2, 2]
    first.close()
    second.close()


def test_events_that_were_overwritten_are_counted_and_the_rest_is_whole(instance: str) -> None:
    stage = StageTrace(instance, Stage.PARSE)
    reader = open_trace(stage.name, writable=False)
    total = _native.TRACE_EVENTS + 1000
    for n in range(total):
        stage.trace.write(2, n, n)
    following, lost, events = reader.events(0)
    words = memoryview(events).cast("Q")
    assert following == total and lost == 1001  # the slot that is written next is never trusted
    assert list(words[:2]) == [1001, 1001 << 8 | 2] and len(words) == 2 * (total - lost)
    assert reader.events(following) == (total, 0, b"")
    assert reader.events(total - 5)[1:] == (0, bytes(words[-10:]))
    stage.close()


def test_a_reader_gets_only_whole_events_while_the_writer_overtakes_it(instance: str) -> None:
    stage = StageTrace(instance, Stage.PARSE)
    code = (
        f"from lob.trace import *; t = open_trace({stage.name!r}, writable=True)\nwhile True:\n"
        "    for n in range(1 << 40):\n        t.write(1, n, n * 7)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as writer:
        reader = open_trace(stage.name, writable=False)
        following = seen = 0
        try:
            eventually(lambda: reader.facts()["events"] > 100_000, "the ring to be full")
            while seen < 300_000:
                following, _, events = reader.events(following)
                words = memoryview(events).cast("Q")
                ticks, seqs = words[::2].tolist(), [word >> 8 for word in words[1::2]]
                assert all(tick == 7 * seq for tick, seq in zip(ticks, seqs, strict=True))
                assert seqs == list(range(seqs[0], seqs[0] + len(seqs))) if seqs else True
                seen += len(seqs)
        finally:
            writer.kill()
    stage.close()


@pytest.mark.parametrize("damage", [b"", b"garbage" * 1000, b"\0" * 1_110_016])
def test_what_is_no_trace_is_refused_and_named(instance: str, damage: bytes) -> None:
    name = f"/lob.{instance}.trace-book"
    (SHM / name[1:]).write_bytes(damage)
    with pytest.raises(WrongLayout, match=f"{name} is .*; remove it with lob-trace clean"):
        open_trace(name, writable=False)
    assert StageTrace(instance, Stage.BOOK).name == name  # a stage makes its own in its place


def test_a_trace_of_another_user_is_not_ours_to_take(instance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ForeignOwner):
        StageTrace(instance, Stage.BOOK)
