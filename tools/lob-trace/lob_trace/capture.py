"""A recording of what the stages measured, in a file: histograms, and the trace points if they were on."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from lob_trace.histogram import BUCKETS, Histogram
from lob_trace.latency import STAGES, Measured
from lob_trace.messages import Messages, Rate, join

FORMAT = 1
Words = npt.NDArray[np.uint64]


class NotACapture(Exception):
    """A file that `lob-trace record` has not written, in one sentence."""


@dataclass(frozen=True, eq=False)
class Pipeline:
    """One instance. `events`: uint64[n, 2], ticks and raw_seq << 8 | point, of all stages."""

    stages: dict[str, Measured]
    events: Words
    lost: int  # events overwritten before they were read

    def messages(self, rate: Rate) -> Messages:
        return join(self.events[:, 0], self.events[:, 1], rate)


@dataclass(frozen=True, eq=False)
class Capture:
    began_unix_ns: int
    seconds: float
    rate: Rate
    pipelines: dict[str, Pipeline] = field(default_factory=dict)


def save(capture: Capture, path: Path) -> None:
    """Raises OSError."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    facts: dict[str, Any] = {
        "format": FORMAT,
        "began_unix_ns": capture.began_unix_ns,
        "seconds": capture.seconds,
        "rate": [capture.rate.ticks_0, capture.rate.ns_0, capture.rate.ns_per_tick],
        "pipelines": {},
    }
    for instance, pipeline in capture.pipelines.items():
        arrays[f"{instance}/events"] = pipeline.events
        maxima = {}
        for stage, measured in pipeline.stages.items():
            arrays[f"{instance}/{stage}"] = np.stack([measured.share.counts, measured.here.counts])
            maxima[stage] = [measured.share.max_ns, measured.here.max_ns]
        facts["pipelines"][instance] = {"lost": pipeline.lost, "max_ns": maxima}
    arrays["facts"] = np.frombuffer(orjson.dumps(facts), np.uint8)
    with path.open("wb") as file:  # not by its name: numpy would add an ending to it
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load(path: Path) -> Capture:
    """Raises NotACapture; OSError."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            facts = orjson.loads(arrays["facts"].tobytes())
            if facts["format"] != FORMAT:
                raise NotACapture(f"{path} is a recording of format {facts['format']}, this build reads {FORMAT}")
            pipelines = {
                instance: Pipeline(
                    {stage: _measured(arrays[f"{instance}/{stage}"], said["max_ns"][stage])
                     for stage in STAGES if stage in said["max_ns"]},
                    _events(arrays[f"{instance}/events"]),
                    int(said["lost"]),
                )
                for instance, said in facts["pipelines"].items()
            }  # fmt: skip
            rate = Rate(int(facts["rate"][0]), int(facts["rate"][1]), float(facts["rate"][2]))
            return Capture(int(facts["began_unix_ns"]), float(facts["seconds"]), rate, pipelines)
    except (ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile):
        raise NotACapture(f"{path} is no recording of lob-trace record") from None


def _measured(counts: npt.NDArray[np.int64], max_ns: list[int]) -> Measured:
    if counts.shape != (2, BUCKETS):
        raise ValueError("another shape")
    return Measured(Histogram(counts[0], int(max_ns[0])), Histogram(counts[1], int(max_ns[1])))


def _events(events: Words) -> Words:
    if events.ndim != 2 or events.shape[1] != 2 or events.dtype != np.uint64:
        raise ValueError("another shape")
    return events
