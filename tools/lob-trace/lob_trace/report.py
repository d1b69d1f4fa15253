"""What a capture says: latency by stage, the steps between trace points, and both against a baseline. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from lob_trace.capture import Capture, Pipeline
from lob_trace.histogram import Histogram
from lob_trace.latency import row, rows
from lob_trace.messages import STEPS, Rate, histogram

REGRESSION = 1.1  # a p50 or p99 so many times that of the baseline is called one
FEWEST = 100  # ... if both rest on so many


def step_histograms(pipeline: Pipeline, rate: Rate) -> dict[str, Histogram]:
    """Of each step that a message was seen to pass, by name."""
    messages = pipeline.messages(rate)
    found = {name: histogram(messages.step_ns(start, end)) for name, start, end in STEPS}
    return {name: one for name, one in found.items() if one.count}


def report(capture: Capture, baseline: Capture | None = None) -> Iterator[dict[str, Any]]:
    """A row a stage and a step of each instance: `of` says which of the two, `instance`, `stage` and the figures.

    With a baseline: `p50_ratio` and `p99_ratio` to it and whether that is a `regression`; None where there is nothing
    to compare with. A capture of one instance is compared with a baseline of one, whatever their names.
    """
    for instance, pipeline in capture.pipelines.items():
        other = None if baseline is None else _counterpart(baseline, instance, len(capture.pipelines))
        theirs = {} if other is None or baseline is None else _figures(other, baseline.rate)
        for key, figures in _figures(pipeline, capture.rate).items():
            line = {"instance": instance, "of": key[0], "stage": key[1], **figures}
            if baseline is not None:
                line |= _compared(figures, theirs.get(key))
            yield line


def _counterpart(baseline: Capture, instance: str, count: int) -> Pipeline | None:
    if count == 1 and len(baseline.pipelines) == 1:
        return next(iter(baseline.pipelines.values()))
    return baseline.pipelines.get(instance)


def _figures(pipeline: Pipeline, rate: Rate) -> dict[tuple[str, str], dict[str, Any]]:
    stages = [("stamps", one) for one in rows(pipeline.stages)]
    steps = [("points", row(name, one)) for name, one in step_histograms(pipeline, rate).items()]
    return {(of, one.stage): {key: v for key, v in asdict(one).items() if key != "stage"} for of, one in stages + steps}


def _compared(ours: dict[str, Any], theirs: dict[str, Any] | None) -> dict[str, Any]:
    ratios: dict[str, float | None] = {}
    for key in ("p50_us", "p99_us"):
        before = None if theirs is None else theirs[key]
        ratios[key] = None if not before or ours[key] is None else round(ours[key] / before, 3)
    enough = theirs is not None and min(ours["count"], theirs["count"]) >= FEWEST
    worse = [ratio for ratio in ratios.values() if ratio is not None and ratio >= REGRESSION]
    return {"p50_ratio": ratios["p50_us"], "p99_ratio": ratios["p99_us"], "regression": enough and bool(worse)}
