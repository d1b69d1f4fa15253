"""Reads along with the traces for a while: read-only, and often enough that the rings of events do not overflow."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from lob import _native
from lob_trace.capture import Capture, Pipeline
from lob_trace.latency import Measured
from lob_trace.messages import Rate
from lob_trace.traces import Traces

APART_S = 0.05


def record(traces: Traces, seconds: float | None, going_on: Callable[[], bool]) -> Capture:
    """For so long (None: until `going_on` says no)."""
    began_unix_ns = time.time_ns()
    tsc, *before = _native.clock_pair()
    events: dict[str, list[bytes]] = {}
    lost: dict[str, int] = {}
    stages: dict[str, dict[str, Measured]] = {}
    started = time.monotonic()
    last = False
    while not last:
        now = time.monotonic()
        last = not going_on() or (seconds is not None and now - started >= seconds)
        if not last:
            left = APART_S if seconds is None else min(APART_S, started + seconds - now)
            time.sleep(max(0.0, left))
        traces.look()
        for instance, _, data, overwritten in traces.take_events():
            events.setdefault(instance, []).append(data)
            lost[instance] = lost.get(instance, 0) + overwritten
        for instance, new in traces.take().items():
            known = stages.setdefault(instance, {})
            for stage, measured in new.items():
                known[stage] = known[stage] + measured if stage in known else measured
    _, *after = _native.clock_pair()
    # Over ticks that are ns already there is nothing to convert.
    rate = Rate.of((before[0], before[1]), (after[0], after[1])) if tsc else Rate(before[1], before[1], 1.0)
    pipelines = {
        instance: Pipeline(
            measured,
            np.frombuffer(b"".join(events.get(instance, [])), np.uint64).reshape(-1, 2),
            lost.get(instance, 0),
        )
        for instance, measured in stages.items()
    }
    return Capture(began_unix_ns, time.monotonic() - started, rate, pipelines)
