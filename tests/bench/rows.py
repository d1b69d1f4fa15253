"""What a benchmark prints: one JSON object a row, after its answer was checked; `run.py` makes the table."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import orjson


def row(
    name: str,
    value: float,
    unit: str,
    ratio: float | None = None,
    over: str = "",
    also: Mapping[str, float] | None = None,
    goal: str = "",
) -> None:
    """A figure; `ratio`: how it compares with `over`, of the same run; `also`: what belongs to it in the same unit;
    `goal`: what it, or its ratio, should keep to ("at most 60", "ratio at least 50").
    """
    rounded = None if ratio is None else round(ratio, 3)
    entry = {"name": name, "value": round(float(value), 3), "unit": unit, "ratio": rounded, "over": over}
    if also:
        entry["also"] = {key: round(float(figure), 2) for key, figure in also.items()}
    if goal:
        entry["goal"] = goal
    entry["checked"] = True
    print(orjson.dumps(entry).decode(), flush=True)


def best(run: Callable[[], float], repeats: int) -> float:
    return min(run() for _ in range(repeats))


class Others:
    """How much of this host others use while we measure: CPU of all less that of our own processes, in cores."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = [os.getpid(), *pids]
        self._start_s, self._all_s, self._ours_s = time.monotonic(), _all_cpu_s(), self._ours()

    def cores(self, children_s: float = 0.0) -> float:
        """Since we were made; `children_s`: CPU of processes of ours that have ended since."""
        elapsed_s = max(time.monotonic() - self._start_s, 1e-3)
        others_s = (_all_cpu_s() - self._all_s) - (self._ours() - self._ours_s) - children_s
        return max(0.0, others_s / elapsed_s)

    def _ours(self) -> float:
        return sum(map(cpu_s, self._pids))


def cpu_s(pid: int) -> float:
    """Seconds of CPU that the threads of a process have used; those that have ended are not in it."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def _all_cpu_s() -> float:
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")  # all but idle and waiting for disks
