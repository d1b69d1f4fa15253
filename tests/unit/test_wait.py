"""Waiting: who may spin, what `auto` becomes by its place, and that it sleeps when nothing comes."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from lob import _native, waiting
from lob.records import RecordType, build
from lob.rings import InputRing, OutputRing
from lob.segments import Kind, RingState
from lob.waiting import stages_of
from pipeline import BIN, unique_instance

TRADE = {"price": 1, "qty": 1}


def test_spin_is_refused_with_both_numbers_when_stages_outnumber_cores():
    reason = waiting.spin_refusal({0, 1})
    assert reason is not None
    assert "4 stages" in reason and "there are 2" in reason and "auto" in reason


def test_spin_is_taken_with_a_core_for_each_stage():
    assert waiting.spin_refusal({0, 1, 2, 3}) is None


def test_a_single_core_given_from_outside_is_judged_by_those_of_the_host():
    assert waiting.spin_refusal({5}, online=8) is None
    assert waiting.spin_refusal({1}, online=2) is not None


def test_every_stage_refuses_spin_with_exit_2_where_it_would_harm():
    if waiting.spin_refusal(os.sched_getaffinity(0)) is None:
        pytest.skip("this host has a core for each stage")
    for stage in ("parse", "book", "publish"):
        command = [str(BIN / f"lob-{stage}"), "--wait", "spin", "--in", f"/lob.{unique_instance()}.x"]
        result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)
        assert result.returncode == 2, result
        assert result.stdout == "" and "spin needs a core for each of the 4 stages" in result.stderr


class Affinity:
    """os.sched_getaffinity as it would be on another host."""

    def __init__(self, ours: set[int], others: dict[int, set[int]]) -> None:
        self.of = {0: ours, **others}

    def __call__(self, pid: int) -> set[int]:
        if pid not in self.of:
            raise ProcessLookupError(pid)
        return self.of[pid]


@pytest.mark.parametrize(
    ("ours", "others", "way"),
    [
        ({0, 1}, {10: {0, 1}}, "auto"),
        ({2}, {10: {3}, 11: {4}}, "auto-alone"),
        ({2}, {10: {3}, 11: {2}}, "auto"),
        ({2}, {10: {0, 1, 2, 3}}, "auto"),
        ({2}, {}, "auto"),
    ],
)
def test_auto_spins_only_on_a_core_that_no_other_stage_may_use(monkeypatch, ours, others, way):
    monkeypatch.setattr(os, "sched_getaffinity", Affinity(ours, others))
    monkeypatch.setattr(os, "sched_getscheduler", lambda pid: os.SCHED_OTHER)
    assert waiting.way_of_waiting(set(others)) == way


def test_a_stage_that_has_died_since_does_not_count(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", Affinity({2}, {10: {3}}))
    monkeypatch.setattr(os, "sched_getscheduler", lambda pid: os.SCHED_OTHER)
    assert waiting.way_of_waiting({10, 11}) == "auto-alone"


def test_a_real_time_process_yields_briefly_wherever_it_runs(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", Affinity({2}, {10: {3}}))
    monkeypatch.setattr(os, "sched_getscheduler", lambda pid: os.SCHED_FIFO)
    assert waiting.way_of_waiting({10}) == "auto-brief"


@pytest.fixture
def ring() -> Iterator[OutputRing]:
    out = OutputRing(f"/lob.{unique_instance()}.raw", Kind.SPSC, policy="wait", capacity_bytes=1 << 16)
    yield out
    out.close(RingState.CLOSED, remove=True)


def wait_cpu_s(reader: _native.SpscReader | _native.BroadcastReader, mode: str, timeout_ms: int) -> float:
    """CPU that this thread spent in a wait that was in vain."""
    start = time.thread_time()
    assert not reader.wait(mode, timeout_ms)
    return time.thread_time() - start


@pytest.mark.parametrize("mode", ["auto", "auto-brief", "block"])
def test_a_reader_that_expects_nothing_sleeps(ring, mode):
    reader = InputRing(ring.name, "test").reader
    wait_cpu_s(reader, mode, 50)
    assert wait_cpu_s(reader, mode, 200) < 0.02


def test_auto_yields_through_the_gaps_of_steady_traffic_and_sleeps_in_the_silence_after_it(ring):
    reader = InputRing(ring.name, "test").reader
    ring_writer = ring.writer
    stop = threading.Event()

    def write_often() -> None:
        while not stop.wait(0.0005):
            ring_writer.write(build(RecordType.TRADE, TRADE))

    thread = threading.Thread(target=write_often)
    thread.start()
    deadline = time.monotonic() + 20
    share = 0.0
    while share < 0.3 and time.monotonic() < deadline:  # a busy host: until it has had its chance
        cpu, start = time.thread_time(), time.monotonic()
        for _ in range(200):
            assert reader.wait("auto", 1000)
            while reader.read() is not None:
                pass
        share = (time.thread_time() - cpu) / (time.monotonic() - start)
    stop.set()
    thread.join()
    while reader.read() is not None:
        pass
    if share < 0.3 and os.getloadavg()[0] > (os.cpu_count() or 1):
        pytest.skip("others hold the cores: yielding does not pay, and auto has found out")
    assert share >= 0.3, "slept between records that came every half millisecond"
    reader.wait("auto", 50)
    reader.wait("auto", 50)
    assert wait_cpu_s(reader, "auto", 200) < 0.02, "still awake after a tenth of a second of silence"


def test_alone_on_its_core_it_spins_for_half_a_second_and_no_longer(ring):
    reader = InputRing(ring.name, "test").reader
    assert wait_cpu_s(reader, "auto-alone", 100) > 0.01
    for _ in range(5):
        reader.wait("auto-alone", 100)
    assert wait_cpu_s(reader, "auto-alone", 200) < 0.02


@pytest.mark.parametrize("mode", ["auto", "auto-alone", "auto-brief", "yield", "block"])
def test_a_sleeper_is_woken_by_a_record_long_before_its_time_out(ring, mode):
    reader = InputRing(ring.name, "test").reader
    timer = threading.Timer(0.1, lambda: ring.writer.write(build(RecordType.TRADE, TRADE)))
    timer.start()
    start = time.monotonic()
    assert reader.wait(mode, 10_000)
    assert time.monotonic() - start < 5
    timer.join()


def test_a_way_of_waiting_that_is_none_is_named(ring):
    reader = InputRing(ring.name, "test").reader
    with pytest.raises(ValueError, match="no wait mode 'often': spin, yield, block or auto"):
        reader.wait("often", 1)


def test_stages_of_an_instance_are_those_of_its_rings_but_not_we(ring):
    instance = ring.name.split(".")[1]
    assert stages_of(instance) == set()
    command = [str(BIN / "python"), "-c", HOLD, ring.name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"attached\n"
        assert stages_of(instance) == {other.pid}
        other.communicate()


HOLD = """
import sys
from lob.rings import InputRing
ring = InputRing(sys.argv[1], "other")
print("attached", flush=True)
sys.stdin.read()
"""
