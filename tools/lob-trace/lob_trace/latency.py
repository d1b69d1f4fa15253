"""Stamps of records -> latency by stage. Pure: arrays in, rows out.

A record carries the ns from its origin (the read that completed the frame) to the commit of each stage it has
passed, cumulative; 0: not passed. A stage's own time is the difference to the stage before. Counting is by a histogram
of 4224 buckets, each at most 1/128 wide of its value, so an interval of any length takes the same memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lob.records import HEADER, Flag, Stage

QUANTILES = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p99_9_us": 0.999}
STAGES = tuple(stage.name.lower() for stage in Stage)
END_TO_END = "end to end"
ROWS = (*STAGES, END_TO_END)

_SUB = 128  # buckets a power of two
_BUCKETS = 33 * _SUB


@dataclass(frozen=True)
class Row:
    """Latency of one stage, in us; None where nothing was counted."""

    stage: str
    count: int
    p50_us: float | None
    p90_us: float | None
    p99_us: float | None
    p99_9_us: float | None
    max_us: float | None


class Histogram:
    """Counts of durations from 1 ns to 4.29 s."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, np.int64)
        self.count = 0
        self.max_ns = 0

    def add(self, durations_ns: npt.NDArray[np.int64]) -> None:
        """Count durations; below 1 ns counts as 1."""
        if not len(durations_ns):
            return
        at_least_1 = np.maximum(durations_ns, 1)
        # value = fraction * 2^exponent, fraction in [0.5, 1)
        fraction, exponent = np.frexp(at_least_1.astype(np.float64))
        bucket = exponent.astype(np.int64) * _SUB + (fraction * 2 * _SUB).astype(np.int64) - _SUB
        self._counts += np.bincount(bucket, minlength=_BUCKETS)
        self.count += len(durations_ns)
        self.max_ns = max(self.max_ns, int(at_least_1.max()))

    def quantile_ns(self, quantile: float) -> int | None:
        """The largest duration in the bucket that holds the quantile (nearest rank), at most the maximum."""
        if not self.count:
            return None
        rank = max(1, int(np.ceil(quantile * self.count)))
        bucket = int(np.searchsorted(np.cumsum(self._counts), rank))
        exponent, sub = divmod(bucket, _SUB)
        upper = np.ldexp((_SUB + sub + 1) / (2 * _SUB), exponent)
        return min(self.max_ns, int(np.ceil(upper)) - 1)


class Latency:
    """What the records of one ring say about the stages before it."""

    def __init__(self) -> None:
        self._histograms = {name: Histogram() for name in ROWS}
        self.records = 0

    def add(self, headers: npt.NDArray[np.void]) -> None:
        """Count the stamps of these headers (dtype HEADER).

        Left out: records that come from no message, and snapshots repeated for late readers, whose origin is long ago.
        """
        self.records += len(headers)
        fresh = (headers["origin_ns"] != 0) & (headers["flags"] & int(Flag.REFRESH) == 0)
        stamps = headers["stage_ns"][fresh].astype(np.int64)
        passed = stamps != 0
        for index, name in enumerate(STAGES):
            both = passed[:, index] & (passed[:, index - 1] if index else True)
            before = stamps[both, index - 1] if index else 0
            self._histograms[name].add(stamps[both, index] - before)
        self._histograms[END_TO_END].add(stamps.max(axis=1, initial=0)[passed.any(axis=1)])

    def rows(self) -> list[Row]:
        """One a stage that a record has passed, in order, then end to end."""
        rows = []
        for name, histogram in self._histograms.items():
            if histogram.count or name == END_TO_END:
                quantiles = {field: _us(histogram.quantile_ns(q)) for field, q in QUANTILES.items()}
                max_us = _us(histogram.max_ns if histogram.count else None)
                rows.append(Row(stage=name, count=histogram.count, max_us=max_us, **quantiles))
        return rows


def headers_of(data: bytes) -> npt.NDArray[np.void]:
    """The array behind `BroadcastReader.drain_headers`."""
    headers: npt.NDArray[np.void] = np.frombuffer(data, HEADER)
    return headers


def _us(ns: int | None) -> float | None:
    return None if ns is None else ns / 1000
