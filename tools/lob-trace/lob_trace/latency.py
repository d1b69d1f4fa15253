"""Histograms of the stages -> rows of latency. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lob.records import Stage
from lob_trace.histogram import Histogram

QUANTILES = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p99_9_us": 0.999}
STAGES = tuple(stage.name.lower() for stage in Stage)
END_TO_END = "end to end"


@dataclass(frozen=True, eq=False)
class Measured:
    """What one stage has counted."""

    share: Histogram  # from the commit of the stage before to its own
    here: Histogram  # from the receipt of the message to its commit

    def __add__(self, other: Measured) -> Measured:
        return Measured(self.share + other.share, self.here + other.here)

    def since(self, before: Measured) -> Measured:
        return Measured(self.share.since(before.share), self.here.since(before.here))


ByStage = Mapping[str, Measured]


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


def row(stage: str, histogram: Histogram) -> Row:
    quantiles = {field: _us(histogram.quantile_ns(q)) for field, q in QUANTILES.items()}
    count = histogram.count
    return Row(stage=stage, count=count, max_us=_us(histogram.max_ns) if count else None, **quantiles)


def end_to_end(stages: ByStage) -> Histogram:
    """From the receipt to the commit of the last stage that has counted anything."""
    for stage in reversed(STAGES):
        if stage in stages and stages[stage].here.count:
            return stages[stage].here
    return Histogram.empty()


def rows(stages: ByStage) -> list[Row]:
    """One a stage in order, then end to end."""
    shares = [row(stage, stages[stage].share) for stage in STAGES if stage in stages]
    return [*shares, row(END_TO_END, end_to_end(stages))]


def _us(ns: int | None) -> float | None:
    return None if ns is None else ns / 1000
