"""A capture as one HTML page that needs nothing else: tables, distribution, percentiles, timeline. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from lob_trace import plots
from lob_trace.capture import Capture, Pipeline
from lob_trace.histogram import LOWER_NS, UPPER_NS, Histogram
from lob_trace.latency import STAGES, end_to_end
from lob_trace.messages import Point, Rate
from lob_trace.report import report

STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --faint: #8884; }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #191b1f; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 900px;
       margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.2em; margin-top: 2em; } h3 { font-size: 1em; margin-bottom: 0.2em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15em 0.8em; text-align: right; border-bottom: 1px solid var(--faint); }
th:first-child, td:first-child { text-align: left; }
td.worse { color: #c8553d; font-weight: 600; }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: var(--ink); }
.grid { stroke: var(--faint); } .axis { stroke: var(--ink); fill: none; } .line { fill: none; stroke-width: 1.6; }
"""
SPECTRUM = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999)
SLICES = 120  # of the timeline
DOTS = 3000


def page(capture: Capture, baseline: Capture | None = None) -> str:
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(capture.began_unix_ns / 1e9))
    rows = list(report(capture, baseline))
    parts = [f"<p>{capture.seconds:.1f} s from {began} UTC.</p>"]
    for instance, pipeline in capture.pipelines.items():
        parts += _pipeline(instance, pipeline, capture, [row for row in rows if row["instance"] == instance])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>lob-trace report</title>'
        f"<style>{STYLE}</style></head><body><h1>lob-trace report</h1>{''.join(parts)}</body></html>\n"
    )


def _pipeline(instance: str, pipeline: Pipeline, capture: Capture, rows: list[dict[str, Any]]) -> list[str]:
    parts = [f"<h2>{escape(instance)}</h2>"]
    parts += ["<h3>Latency by stage, from the stamps in the records</h3>", _table(rows, "stamps")]
    whole = end_to_end(pipeline.stages)
    if whole.count:
        parts += ["<h3>Distribution, receipt to last commit</h3>", _distribution(whole)]
        shares = {stage: pipeline.stages[stage].share for stage in STAGES if stage in pipeline.stages}
        parts += ["<h3>Percentiles by stage</h3>", _spectrum({**shares, "end to end": whole})]
    if len(pipeline.events):
        parts += ["<h3>Steps between trace points</h3>", _table(rows, "points")]
        if pipeline.lost:
            parts.append(f"<p>{pipeline.lost} trace points were overwritten before they were read.</p>")
        parts += ["<h3>Timeline, WEBSOCKET_RECEIVE to PUBLISH_END</h3>", _timeline(pipeline, capture.rate)]
    else:
        parts.append("<p>Trace points were off: no steps and no timeline (<code>lob-trace on</code>).</p>")
    return parts


def _table(rows: list[dict[str, Any]], of: str) -> str:
    rows = [row for row in rows if row["of"] == of]
    keys = ["count", "p50_us", "p90_us", "p99_us", "p99_9_us", "max_us"]
    keys += [key for key in ("p50_ratio", "p99_ratio") if rows and key in rows[0]]
    head = "".join(f"<th>{escape(key.replace('_us', ' µs').replace('_', '.', 1))}</th>" for key in keys)
    lines = [f"<tr><th>stage</th>{head}</tr>"]
    for row in rows:
        cells = [f"<td>{escape(row['stage'])}</td>"]
        for key in keys:
            value = row[key]
            worse = ' class="worse"' if key.endswith("_ratio") and row.get("regression") else ""
            text = "–" if value is None else str(value) if key == "count" else f"{value:.2f}"
            cells.append(f"<td{worse}>{text}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _distribution(histogram: Histogram) -> str:
    """Bars of one thirty-second of a power of two: four buckets of the histogram each."""
    used = np.flatnonzero(histogram.counts)
    first, last = int(used[0]) // 4 * 4, int(used[-1]) // 4 * 4 + 4
    counts = histogram.counts[first:last].reshape(-1, 4).sum(axis=1)
    low_us, high_us = LOWER_NS[first:last:4] / 1000, (UPPER_NS[first + 3 : last : 4] + 1) / 1000
    x = plots.Axis("µs", max(float(low_us[0]), 0.01), float(high_us[-1]), log=True)
    y = plots.Axis("messages", 0, float(counts.max()) * 1.05)
    found = [
        (max(float(low), 0.01), float(high), float(count), f"{low:g} to {high:g} µs: {count}")
        for low, high, count in zip(low_us, high_us, counts.tolist(), strict=True)
        if count
    ]
    return plots.frame(x, y, [plots.bars(x, y, found, 0)])


def _spectrum(histograms: Mapping[str, Histogram]) -> str:
    """Latency over how rare it is: each factor of ten in 1 - quantile takes the same width."""
    quantiles = {
        name: [(1 / (1 - q), (one.quantile_ns(q) or 1) / 1000) for q in SPECTRUM if one.count * (1 - q) >= 1]
        for name, one in histograms.items()
    }
    all_us = [us for points in quantiles.values() for _, us in points]
    ticks = [(1 / (1 - q), f"{100 * q:g} %") for q in (0.5, 0.9, 0.99, 0.999, 0.9999)]
    x = plots.Axis("quantile", 1 / 0.99, 10_000, log=True, ticks=ticks)
    y = plots.Axis("µs", max(min(all_us, default=1), 0.01) * 0.8, max(all_us, default=1) * 1.3, log=True)
    return plots.frame(x, y, [plots.line(x, y, p, i) for i, p in enumerate(quantiles.values())], list(quantiles))


def _timeline(pipeline: Pipeline, rate: Rate) -> str:
    messages = pipeline.messages(rate)
    received = messages.at_ns[:, Point.WEBSOCKET_RECEIVE - 1]
    took_us = (messages.at_ns[:, Point.PUBLISH_END - 1] - received) / 1000
    whole = ~np.isnan(took_us)
    if not whole.any():
        return "<p>No message was seen from the first to the last point.</p>"
    at_s, took_us = received[whole] / 1e9, np.maximum(took_us[whole], 0.01)
    x = plots.Axis("s", float(at_s.min()), float(at_s.max()))
    y = plots.Axis("µs", float(took_us.min()) * 0.8, float(took_us.max()) * 1.3, log=True)
    index = np.minimum(((at_s - x.low) / ((x.high - x.low) or 1) * SLICES).astype(int), SLICES - 1)
    curves: dict[str, list[tuple[float, float]]] = {"p50": [], "p99": []}
    for one in np.unique(index):
        inside = index == one
        middle = float(x.low + (one + 0.5) * (x.high - x.low) / SLICES)
        for name, q in (("p50", 50), ("p99", 99)):
            curves[name].append((middle, float(np.percentile(took_us[inside], q, method="inverted_cdf"))))
    # Every message if they are few, else the slowest and an even choice of the others.
    chosen: Sequence[int] = range(len(at_s))
    if len(at_s) > DOTS:
        order = np.argsort(took_us)
        chosen = [*order[-DOTS // 3 :].tolist(), *range(0, len(at_s), len(at_s) * 3 // (2 * DOTS) + 1)]
    points = [(float(at_s[i]), float(took_us[i])) for i in chosen]
    inside_plot = [plots.dots(x, y, points, 6), *(plots.line(x, y, c, i) for i, c in enumerate(curves.values()))]
    return plots.frame(x, y, inside_plot, list(curves))
