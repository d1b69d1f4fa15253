"""What the stages' histograms say: differences, sums, quantiles. Pure: arrays in, numbers out.

The rule of the buckets is that of `shared/native/histogram.hpp`; a test holds the two together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SUB = 128  # buckets a power of two
BUCKETS = 26 * SUB

Counts = npt.NDArray[np.int64]


def _bounds() -> tuple[Counts, Counts]:
    bucket = np.arange(BUCKETS, dtype=np.int64)
    shift = np.maximum(bucket // SUB - 1, 0)
    lower = (bucket - shift * SUB) << shift
    return lower, lower + (np.int64(1) << shift) - 1


LOWER_NS, UPPER_NS = _bounds()  # the smallest and the largest duration of each bucket


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of durations. `max_ns` is exact for all that the stage has counted, else the top of the last bucket."""

    counts: Counts  # int64[BUCKETS]
    max_ns: int

    @staticmethod
    def of(counts: bytes, max_ns: int) -> Histogram:
        """From what `_native.Trace.share` and `here` give."""
        return Histogram(np.frombuffer(counts, np.uint64).astype(np.int64), max_ns)

    @staticmethod
    def empty() -> Histogram:
        return Histogram(np.zeros(BUCKETS, np.int64), 0)

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.counts + other.counts, max(self.max_ns, other.max_ns))

    def since(self, before: Histogram) -> Histogram:
        """What came after `before` was read."""
        counts = self.counts - before.counts
        used = np.flatnonzero(counts)
        return Histogram(counts, min(self.max_ns, int(UPPER_NS[used[-1]])) if len(used) else 0)

    @property
    def count(self) -> int:
        return int(self.counts.sum())

    def quantile_ns(self, quantile: float) -> int | None:
        """The largest duration in the bucket that holds the quantile (nearest rank), at most the maximum."""
        count = self.count
        if not count:
            return None
        rank = min(count, max(1, math.ceil(quantile * count)))
        bucket = int(np.searchsorted(np.cumsum(self.counts), rank))
        return min(self.max_ns, int(UPPER_NS[bucket]))
