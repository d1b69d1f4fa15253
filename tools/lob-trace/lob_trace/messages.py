"""Trace points of all stages -> the way of each message. Pure.

An event is (ticks, raw_seq << 8 | point); the points of one message have its raw_seq in common. A stage that handles a
message in several records has several STARTs and ENDs: the first START and the last END count.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from lob_trace.histogram import Histogram

Times = npt.NDArray[np.float64]


class Point(IntEnum):
    """As in `shared/native/trace.hpp`."""

    WEBSOCKET_RECEIVE = 1
    PARSE_START = 2
    PARSE_END = 3
    BOOK_UPDATE_START = 4
    BOOK_UPDATE_END = 5
    PUBLISH_START = 6
    PUBLISH_END = 7


POINTS = len(Point)
ENDS = (Point.PARSE_END, Point.BOOK_UPDATE_END, Point.PUBLISH_END)

# What lies between two points: name, from, to.
STEPS = (
    ("to parse", Point.WEBSOCKET_RECEIVE, Point.PARSE_START),
    ("parse", Point.PARSE_START, Point.PARSE_END),
    ("to book", Point.PARSE_END, Point.BOOK_UPDATE_START),
    ("book", Point.BOOK_UPDATE_START, Point.BOOK_UPDATE_END),
    ("to publish", Point.BOOK_UPDATE_END, Point.PUBLISH_START),
    ("publish", Point.PUBLISH_START, Point.PUBLISH_END),
    ("receive to publish", Point.WEBSOCKET_RECEIVE, Point.PUBLISH_END),
)


@dataclass(frozen=True)
class Rate:
    """Ticks to ns, from two moments at which both were read."""

    ticks_0: int
    ns_0: int
    ns_per_tick: float

    @staticmethod
    def of(before: tuple[int, int], after: tuple[int, int]) -> Rate:
        """Of two pairs (ticks, ns)."""
        ticks = after[0] - before[0]
        return Rate(before[0], before[1], (after[1] - before[1]) / ticks if ticks > 0 else 1.0)

    def ns_since_start(self, ticks: npt.NDArray[np.uint64]) -> Times:
        """ns after the first moment."""
        since: Times = (ticks - np.uint64(self.ticks_0)).astype(np.int64) * np.float64(self.ns_per_tick)
        return since


@dataclass(frozen=True, eq=False)
class Messages:
    """`at_ns[i, point - 1]`: when message `raw_seq[i]` passed a point; NaN: not seen there. In order of raw_seq."""

    raw_seq: npt.NDArray[np.uint64]
    at_ns: Times

    def step_ns(self, start: Point, end: Point) -> Times:
        """The time between two points, of the messages that were seen at both."""
        between = self.at_ns[:, end - 1] - self.at_ns[:, start - 1]
        seen: Times = between[~np.isnan(between)]
        return seen


def join(ticks: npt.NDArray[np.uint64], seq_point: npt.NDArray[np.uint64], rate: Rate) -> Messages:
    """The messages of one pipeline. Those whose points contradict each other (a ring made anew) are left out."""
    point = (seq_point & np.uint64(0xFF)).astype(np.int64)
    known = (point >= 1) & (point <= POINTS)
    at_ns = rate.ns_since_start(ticks[known])
    point = point[known]
    raw_seq, message = np.unique(seq_point[known] >> np.uint64(8), return_inverse=True)
    times = np.full((len(raw_seq), POINTS), np.nan)
    for one in Point:
        which = point == one
        (np.fmax if one in ENDS else np.fmin).at(times[:, one - 1], message[which], at_ns[which])
    filled = np.fmax.accumulate(np.where(np.isnan(times), -np.inf, times), axis=1)
    right = ~(times < filled).any(axis=1)
    return Messages(raw_seq[right], times[right])


def histogram(durations_ns: Times) -> Histogram:
    """As the stages count."""
    values = np.clip(np.rint(durations_ns), 0, 0xFFFFFFFF).astype(np.int64)
    bits = np.frexp(values.astype(np.float64))[1].astype(np.int64)
    shift = np.maximum(bits - 8, 0)
    empty = Histogram.empty()
    counts = np.bincount(128 * shift + (values >> shift), minlength=len(empty.counts))
    return Histogram(counts.astype(np.int64), int(values.max(initial=0)))
