"""The queue of requests in a segment: in order, bounded, and whole again after any death."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lob import _native
from lob.names import ring_name
from lob.records import Reason, RequestKind
from lob.rings import InputRing, OutputRing
from lob.segments import Kind
from poke import QUEUE, Poke
from processes.peer import own_instance

CAPACITY = 4096


@pytest.fixture
def name() -> Iterator[str]:
    with own_instance() as instance:
        yield ring_name(instance, "raw")


def test_requests_travel_upstream_in_order_until_the_queue_is_full(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    reader = InputRing(name, "test")
    queue = _native.RequestQueue(ring.segment)
    assert queue.take() is None
    for round_ in range(2):
        for n in range(64):
            assert reader.request(RequestKind.RESYNC, f"SYM{round_}-{n}", Reason.GAP)
        assert not reader.request(RequestKind.RESYNC, "one-too-many", Reason.GAP)
        for n in range(64):
            taken = queue.take()
            assert taken is not None and taken[1:] == (RequestKind.RESYNC, Reason.GAP, f"SYM{round_}-{n}")
        assert queue.take() is None


def test_a_symbol_longer_than_a_request_is_refused(name: str) -> None:
    OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    with pytest.raises((ValueError, RuntimeError), match="too long"):
        InputRing(name, "test").request(RequestKind.SNAPSHOT, "x" * 64)


@pytest.mark.parametrize("phase", [1, 3])  # COPY_IN: a producer died there; COPY_OUT: a consumer
def test_a_slot_whose_holder_died_is_taken_back_after_a_second(name: str, phase: int) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    queue = _native.RequestQueue(ring.segment)
    segment = Poke(name)
    now = time.monotonic_ns()
    for age_ns, recovered in ((0, 0), (2_000_000_000, 64)):
        for slot in range(64):
            segment.put(QUEUE + 128 * slot, (now - age_ns) * 4 + phase)
            segment.put(QUEUE + 128 * slot + 8, now - age_ns)
        if phase == 3:
            assert queue.take() is None
        assert queue.post(1, 2, 0, "A") is bool(recovered)
    assert queue.recovered > 0
    taken = queue.take()
    assert taken is not None and taken[3] == "A"


def test_a_scribbled_request_is_thrown_away_and_counted(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    queue = _native.RequestQueue(ring.segment)
    queue.post(1, 2, 0, "A")
    queue.post(2, 2, 0, "B")
    Poke(name).bytes[QUEUE + 24] ^= 1
    taken = queue.take()
    assert taken is not None and taken[3] == "B" and queue.damaged == 1
    assert queue.take() is None
