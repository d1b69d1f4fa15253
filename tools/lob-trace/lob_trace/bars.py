"""A histogram as lines of text, with bins that fit what is in it. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lob_trace.histogram import LOWER_NS, UPPER_NS, Histogram

ROWS_MAX = 18
SPREAD = 8  # a p99.9 so many times the smallest: bins that grow with the value
# Edges within a power of ten, from coarse to fine.
SERIES = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8))


@dataclass(frozen=True)
class Bin:
    """Durations from `low_ns` on and below `high_ns` (None: all above)."""

    low_ns: float
    high_ns: float | None
    count: int


def bins(histogram: Histogram) -> list[Bin]:
    """At most ROWS_MAX and two for the tails; round edges, equal where the durations lie close, else growing."""
    low, high = histogram.quantile_ns(0.001), histogram.quantile_ns(0.999)
    if low is None or high is None:
        return []
    lowest, highest = np.searchsorted(UPPER_NS, [low, high])
    low, high = int(LOWER_NS[lowest]), int(UPPER_NS[highest])
    edges = _growing(max(low, 1), high) if high > SPREAD * max(low, 1) else _equal(low, high)
    inside = np.searchsorted(edges, UPPER_NS, side="right")
    counts = np.bincount(inside, weights=histogram.counts, minlength=len(edges) + 1).astype(np.int64).tolist()
    found = [Bin(a, b, n) for a, b, n in zip(edges, edges[1:], counts[1:], strict=False)]
    if counts[0]:
        found.insert(0, Bin(0.0, edges[0], counts[0]))
    if counts[-1]:
        found.append(Bin(edges[-1], None, counts[-1]))
    return found


def _growing(low: int, high: int) -> list[float]:
    best: list[float] = []
    for series in SERIES:
        first, last = math.floor(math.log10(low)), math.floor(math.log10(high)) + 1
        edges = [step * 10.0**exponent for exponent in range(first, last + 1) for step in series]
        start = max(i for i, edge in enumerate(edges) if edge <= low)
        end = next((i for i, edge in enumerate(edges) if edge > high), len(edges) - 1)
        if best and end - start > ROWS_MAX:
            break
        best = edges[start : end + 1]
    return best


def _equal(low: int, high: int) -> list[float]:
    # No finer than what was counted.
    width = int(high - LOWER_NS[np.searchsorted(UPPER_NS, high)] + 1)
    wanted = max((high - low) / (ROWS_MAX - 2), width)
    magnitude = 10.0 ** math.floor(math.log10(wanted))
    step = max(1.0, next(magnitude * factor for factor in (1, 2, 5, 10) if magnitude * factor >= wanted))
    start = math.floor(low / step)
    end = math.floor(high / step) + 1
    return [edge * step for edge in range(start, end + 1)]


def lines(found: list[Bin], width: int = 40) -> list[str]:
    """A line a bin: its edges in us, count, share, and a bar."""
    most = max((one.count for one in found), default=0)
    total = sum(one.count for one in found)
    edges = [(_us(one.low_ns), "" if one.high_ns is None else _us(one.high_ns)) for one in found]
    left = max((len(low) for low, _ in edges), default=0)
    right = max((len(high) for _, high in edges), default=0)
    text = []
    for (low, high), one in zip(edges, found, strict=True):
        bar = _bar(one.count / most * width) if most else ""
        text.append(f"{low:>{left}} - {high:>{right}} {one.count:>9} {100 * one.count / total:5.1f}% {bar}".rstrip())
    return text


def _bar(length: float) -> str:
    eighths = round(length * 8)
    return "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8] if eighths % 8 else "")


def _us(ns: float) -> str:
    us = ns / 1000
    return f"{us:.0f}" if us >= 100 and us == round(us) else f"{us:g}" if us < 1e4 else f"{us:.0f}"
