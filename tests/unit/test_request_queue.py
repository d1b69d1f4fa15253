"""The queue of requests in a segment: in order, bounded, and whole again after any death."""

from __future__ import annotations

import time

import pytest

from lob.records import Reason, RequestKind
from lob.rings import InputRing, OutputRing
from lob.segments import Kind, RingState
from poke import QUEUE, Poke

CAPACITY = 4096


def test_requests_travel_upstream_in_order_until_the_queue_is_full(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    reader = InputRing(name, "test")
    queue = ring.requests
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


def test_a_slot_is_taken_back_from_the_dead_and_never_from_the_living(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    queue = ring.requests
    reader = InputRing(name, "test")
    assert reader.request(RequestKind.RESYNC, "X") and queue.take() is not None  # it has a number now: 2
    segment = Poke(name)
    hours_ago = (time.monotonic_ns() >> 10) - (1 << 32)
    for owner, dead in ((2, False), (77, True)):
        for slot in range(64):
            segment.put(QUEUE + 128 * slot, hours_ago << 16 | owner << 9 | owner << 2 | 1)  # COPY_IN
        assert queue.take() is None
        assert queue.post(1, 2, 0, "A") is dead
        assert bool(queue.recovered) is dead
    taken = queue.take()
    assert taken is not None and taken[3] == "A"
    assert ring.segment.facts()["queue_recovered"] == queue.recovered == 64


def test_what_a_dead_consumer_was_taking_is_there_again(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    queue = ring.requests
    assert queue.post(1, 2, 0, "A") and queue.post(2, 2, 0, "B")
    segment = Poke(name)
    filled = int.from_bytes(segment.bytes[QUEUE : QUEUE + 8], "little")
    assert filled & 3 == 2  # CONSTRUCTED
    segment.put(QUEUE, filled >> 9 << 9 | 77 << 2 | 3)  # COPY_OUT of somebody who holds no lock
    time.sleep(0.002)
    assert [queue.take()[3] for _ in range(2)] == ["A", "B"]  # type: ignore[index]
    assert queue.take() is None and queue.recovered == 1 and queue.damaged == 0


def test_whoever_gets_the_number_of_a_dead_one_frees_what_that_one_held(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    Poke(name).put(QUEUE + 128 * 5, (time.monotonic_ns() >> 10) << 16 | 1 << 9 | 1 << 2 | 1)
    assert ring.requests.recovered == 1  # number 1 is free, so it becomes ours
    assert sum(ring.requests.post(n, 2, 0, "A") for n in range(65)) == 64


def test_a_request_to_a_ring_made_anew_keeps_the_readers_role_in_the_old_one(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    reader = InputRing(name, "test")
    ring.close(RingState.PAUSED, remove=False)
    again = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    assert reader.request(RequestKind.RESYNC, "A") and again.requests.take() is None
    reader.reattach()
    assert reader.request(RequestKind.RESYNC, "B") and again.requests.take() is not None


def test_a_scribbled_request_is_thrown_away_and_counted(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    queue = ring.requests
    queue.post(1, 2, 0, "A")
    queue.post(2, 2, 0, "B")
    Poke(name).bytes[QUEUE + 16] ^= 1
    taken = queue.take()
    assert taken is not None and taken[3] == "B" and queue.damaged == 1
    assert ring.segment.facts()["queue_damaged"] == 1
    assert queue.take() is None
