"""Trace points as JSON that ui.perfetto.dev and chrome://tracing open: a track a stage, a flow a message. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lob_trace.capture import Capture
from lob_trace.messages import Point

# Track, and the points between which a message is in that stage; a receipt is a moment.
TRACKS = (
    ("lob-connect", Point.WEBSOCKET_RECEIVE, None),
    ("lob-parse", Point.PARSE_START, Point.PARSE_END),
    ("lob-book", Point.BOOK_UPDATE_START, Point.BOOK_UPDATE_END),
    ("lob-publish", Point.PUBLISH_START, Point.PUBLISH_END),
)


def events(capture: Capture) -> Iterator[dict[str, Any]]:
    """In the trace event format: times in us since the recording began."""
    for process, (instance, pipeline) in enumerate(capture.pipelines.items(), 1):
        yield {"ph": "M", "name": "process_name", "pid": process, "args": {"name": instance}}
        for thread, (track, *_) in enumerate(TRACKS, 1):
            yield {"ph": "M", "name": "thread_name", "pid": process, "tid": thread, "args": {"name": track}}
            yield {"ph": "M", "name": "thread_sort_index", "pid": process, "tid": thread,
                   "args": {"sort_index": thread}}  # fmt: skip
        messages = pipeline.messages(capture.rate)
        for raw_seq, at_us in zip(messages.raw_seq.tolist(), messages.at_ns / 1000, strict=True):
            passed = []
            for thread, (track, start, end) in enumerate(TRACKS, 1):
                begin_us = at_us[start - 1]
                if np.isnan(begin_us):
                    continue
                end_us = begin_us if end is None else at_us[end - 1]
                if np.isnan(end_us):
                    continue
                passed.append((thread, track, round(float(begin_us), 3), round(float(end_us - begin_us), 3)))
            for step, (thread, track, begin_us, took_us) in enumerate(passed):
                place = {"pid": process, "tid": thread, "ts": begin_us}
                yield {"ph": "X", "name": track.removeprefix("lob-"), "cat": "stage", **place, "dur": took_us,
                       "args": {"raw_seq": raw_seq}}  # fmt: skip
                if len(passed) > 1:
                    # A flow is bound to the slice that contains its moment.
                    phase = "s" if step == 0 else "f" if step == len(passed) - 1 else "t"
                    flow = {"ph": phase, "name": "message", "cat": "message", "id": f"{process}.{raw_seq}", **place}
                    yield {**flow, "bp": "e"} if phase == "f" else flow
