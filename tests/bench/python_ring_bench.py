"""Rings from Python: ns a call, ns a row of a batch, round trips between two processes beside multiprocessing.Pipe.

A call's figure has the loop around it in it (`loop`: its part), best of many runs. The smallest record that says
something is a status of 96 bytes; the raw record is of 152 bytes, 64 of them payload. Both ends of the call rows are
one process with its ring in cache: what another core's cache costs is in the round trip. All answers are checked.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from multiprocessing import Pipe
from pathlib import Path
from typing import TypeAlias

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import lob
from bench.rows import best, row
from book_stream import made_ring, unique_instance
from lob import _native
from lob.records import HEADER, ROWS, RecordType, build, parse
from lob.rings import Kind, Policy

CAPACITY = 1 << 20
CALLS = 2000
RUNS = 60
Writer: TypeAlias = _native.SpscWriter | _native.BroadcastWriter
Reader: TypeAlias = _native.SpscReader | _native.BroadcastReader
PAYLOAD = bytes(range(64))
STATUS = build(RecordType.STATUS, {"last_seq": 7})
RAW = build(RecordType.RAW_FRAME, text=PAYLOAD)
BBO = build(RecordType.BBO, {"bid_price": 61_600_12, "bid_qty": 1, "ask_price": 61_600_13, "ask_qty": 2})
assert (len(STATUS), len(RAW), len(BBO)) == (96, 152, 120)


def ring(kind: Kind, policy: Policy) -> _native.Segment:
    """In memory that has no name."""
    fd = os.memfd_create("python-ring-bench")
    os.ftruncate(fd, _native.segment_bytes(CAPACITY))
    _native.format_segment(fd, int(kind), ("wait", "drop").index(policy), CAPACITY, 1)
    segment = _native.Segment(fd, True)
    os.close(fd)
    return segment


def pair(kind: Kind) -> tuple[Writer, Reader]:
    segment = ring(kind, "wait" if kind is Kind.SPSC else "drop")
    if kind is Kind.SPSC:
        writer, reader = _native.SpscWriter(segment), _native.SpscReader(segment)
    else:
        writer, reader = _native.BroadcastWriter(segment), _native.BroadcastReader(segment, "oldest")
    writer.take_over(os.getpid())
    return writer, reader


# -- calls --------------------------------------------------------------------------------------------------------


def loop_ns() -> float:
    def run() -> float:
        start = time.perf_counter_ns()
        for _ in repeat(None, CALLS):
            pass
        return (time.perf_counter_ns() - start) / CALLS

    return best(run, RUNS)


def call_ns(call: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    for _ in repeat(None, CALLS):
        call()
    return (time.perf_counter_ns() - start) / CALLS


def write_ns(write: Callable[[object], object], record: object) -> float:
    start = time.perf_counter_ns()
    for _ in repeat(None, CALLS):
        write(record)
    return (time.perf_counter_ns() - start) / CALLS


def calls() -> None:
    loop = {"loop": loop_ns()}
    for kind in (Kind.SPSC, Kind.BROADCAST):
        name = kind.name.lower()
        for what, record in (("status, 96 B", STATUS), ("raw, 64 B payload, 152 B", RAW)):
            writer, reader = pair(kind)
            assert writer.write(record)
            copy = reader.read() or b""
            assert (copy[:8], copy[24:60], copy[64:]) == (record[:8], record[24:60], record[64:])
            writes, reads = [], []
            for _ in range(RUNS):
                writes.append(write_ns(writer.write, record))
                reads.append(call_ns(reader.read))
                assert reader.read() is None
            row(f"Python: {name} write, {what}", min(writes), "ns/call", also=loop, goal="at most 60")
            row(f"Python: {name} read to bytes, {what}", min(reads), "ns/call", also=loop, goal="at most 60")
    writer, reader = pair(Kind.SPSC)
    assert isinstance(writer, _native.SpscWriter)
    for what, source in (
        ("a bytearray", bytearray(RAW)),
        ("a memoryview", memoryview(RAW)),
        ("a row of a numpy array", np.frombuffer(RAW, np.uint8)),
    ):
        figures = []
        for _ in range(RUNS):
            figures.append(write_ns(writer.write, source))
            for _ in range(CALLS):
                last = reader.read()
            assert last is not None and parse(last).text == PAYLOAD and reader.read() is None
        row(f"Python: spsc write from {what}, 152 B", min(figures), "ns/call", also=loop)

    def in_place() -> None:
        view = writer.claim(152)
        assert view is not None
        view[:] = RAW
        writer.commit()

    def look() -> None:
        view = reader.peek()
        assert view is not None and view[151] == 63
        reader.release()

    claims, looks = [], []
    for _ in range(RUNS):
        claims.append(call_ns(in_place))
        looks.append(call_ns(look))
        assert reader.peek() is None
    row("Python: claim, fill by slice, commit, 152 B (a Python function a record)", min(claims), "ns/record", also=loop)
    row("Python: peek, one byte, release, 152 B (a Python function a record)", min(looks), "ns/record", also=loop)


# -- batches ------------------------------------------------------------------------------------------------------


def batches() -> None:
    rows = np.empty(4096, ROWS[RecordType.BBO])
    headers = np.empty(4096, HEADER)
    for kind in (Kind.SPSC, Kind.BROADCAST):
        writer, reader = pair(kind)

        def drain(types: tuple[object, ...], mixed: bool, writer=writer, reader=reader) -> float:
            for n in range(4096):
                writer.write(STATUS if mixed and n % 2 else BBO)
            start = time.perf_counter_ns()
            passed, _, count, *_ = reader.drain(*types)
            took_ns = time.perf_counter_ns() - start
            assert (passed, count) == (4096, 2048 if mixed else 4096)
            return took_ns / 4096

        name = kind.name.lower()
        figure = best(lambda drain=drain: drain((int(RecordType.BBO), rows), False), 30)
        assert (rows["bid_price"] == 61_600_12).all() and (np.diff(rows["ring_seq"].astype(np.int64)) == 1).all()
        row(f"Python: {name} drain into an array, BBOs, 120 B", figure, "ns/record", goal="at most 10")
        figure = best(lambda drain=drain: drain((int(RecordType.BBO), rows), True), 30)
        row(f"Python: {name} drain, every other record passed over", figure, "ns/record", goal="at most 10")
    figure = best(lambda: drain((_native.ANY_TYPE, headers), False), 30)
    row("Python: broadcast drain, headers of all records", figure, "ns/record", goal="at most 10")

    with (
        made_ring(unique_instance(), "public", capacity_bytes=CAPACITY) as public,
        lob.subscribe(f"shm:{public.name}") as batched,
        lob.subscribe(f"shm:{public.name}") as single,
    ):

        def both() -> tuple[float, float]:
            for _ in range(2000):
                public.writer.write(BBO)
            start = time.perf_counter_ns()
            (part,) = batched.drain(rows)
            between = time.perf_counter_ns()
            prices = [int(record.body["bid_price"]) for record in iter(single.poll, None)]
            end = time.perf_counter_ns()
            assert prices == part["bid_price"].tolist()
            return (between - start) / 2000, (end - between) / 2000

        figures = [both() for _ in range(20)]
    drained, polled = (min(column) for column in zip(*figures, strict=True))
    name = "Python: subscription.drain, BBOs, batches of 2,000"
    row(name, drained, "ns/record", polled / drained, "poll, record by record")


# -- round trips --------------------------------------------------------------------------------------------------


@contextmanager
def forked(core: int, body: Callable[[], None]) -> Iterator[None]:
    """`body` in another process on a core of its own; its end is awaited."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.sched_setaffinity(0, {core})
            body()
            code = 0
        finally:
            os._exit(code)
    try:
        yield
    except BaseException:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        raise
    assert os.waitpid(pid, 0)[1] == 0, "the other process found a wrong record"


def await_record(reader: _native.SpscReader, parent: int) -> bytes:
    read = reader.read
    while True:
        for _ in repeat(None, 1_000_000):
            if (record := read()) is not None:
                return record
        assert os.getppid() == parent or os.getpid() == parent, "the other process is gone"


def ring_round_trips(count: int, core: int) -> np.ndarray:
    there, back = ring(Kind.SPSC, "wait"), ring(Kind.SPSC, "wait")
    us = os.getpid()

    def echo() -> None:
        reader, writer = _native.SpscReader(there), _native.SpscWriter(back)
        writer.take_over(os.getpid())
        for _ in range(count):
            writer.write(await_record(reader, us))

    with forked(core, echo):
        writer, reader = _native.SpscWriter(there), _native.SpscReader(back)
        writer.take_over(us)
        taken = np.empty(count, np.int64)
        for n in range(count):
            start = time.perf_counter_ns()
            writer.write(RAW)
            record = await_record(reader, us)
            taken[n] = time.perf_counter_ns() - start
            assert record[-64:] == PAYLOAD
    return taken


def pipe_round_trips(count: int, core: int) -> np.ndarray:
    ours, theirs = Pipe()

    def echo() -> None:
        for _ in range(count):
            theirs.send_bytes(theirs.recv_bytes())

    with forked(core, echo):
        taken = np.empty(count, np.int64)
        for n in range(count):
            start = time.perf_counter_ns()
            ours.send_bytes(PAYLOAD)
            answer = ours.recv_bytes()
            taken[n] = time.perf_counter_ns() - start
            assert answer == PAYLOAD
    ours.close()
    theirs.close()
    return taken


def round_trips(cores: list[int]) -> None:
    """In turn, so that both see the same host; the middle one of five by the rings' median."""
    turns = []
    for _ in range(5):
        rings, pipes = ring_round_trips(10_000, cores[1]), pipe_round_trips(1_000, cores[1])
        turns.append([*np.percentile(rings, [50, 99]) / 1e3, *np.percentile(pipes, [50, 99]) / 1e3])
    ring_p50, ring_p99, pipe_p50, pipe_p99 = map(float, sorted(turns)[2])
    row(
        "Python: round trip between two processes, 64 B payload, p50",
        ring_p50,
        "us",
        pipe_p50 / ring_p50,
        "multiprocessing.Pipe",
        also={"p99": ring_p99},
        goal="at most 1",
    )
    row("Python: the same through multiprocessing.Pipe, p50", pipe_p50, "us", also={"p99": pipe_p99})


def main() -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    calls()
    batches()
    if len(cores) > 1:
        round_trips(cores)


if __name__ == "__main__":
    main()
