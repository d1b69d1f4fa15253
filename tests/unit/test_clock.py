"""The clocks: ticks of trace points against CLOCK_MONOTONIC."""

from __future__ import annotations

import time

from lob import _native
from lob_trace.messages import Rate


def test_ns_is_clock_monotonic_as_python_reads_it() -> None:
    before = time.monotonic_ns()
    now = _native.mono_ns()
    assert before <= now <= time.monotonic_ns()


def test_ticks_between_two_pairs_are_the_same_ns_everywhere_between_them() -> None:
    tsc, *first = _native.clock_pair()
    middle = []
    for _ in range(10):
        time.sleep(0.01)
        middle.append(_native.clock_pair()[1:])
    rate = Rate.of((first[0], first[1]), middle[-1])
    assert tsc or rate.ns_per_tick == 1.0
    # A pair is read within one preemption-free moment, the best of 16: they agree to less than a microsecond.
    for ticks, ns in middle:
        assert abs((ticks - first[0]) * rate.ns_per_tick - (ns - first[1])) < 1000
