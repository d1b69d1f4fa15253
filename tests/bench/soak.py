"""Constant load for minutes: does anything grow? `make soak MINUTES=10`

Usage: python tests/bench/soak.py [MINUTES]

A venue on the loopback sends 5,000 messages/s of 20 levels for ten symbols on schedule, over a WebSocket through all
four stages as a user starts them. Every few seconds: memory and descriptors of each stage, latency from the moment a
message was due. Every message is counted at the public ring; at the end all books are live and nothing is left in
shared memory. Exit status: 0 nothing grew; 1 something did (it is named), or an answer was wrong.
"""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.rows import Others
from bench.scheduled import STAGES, Flow, Running, connected
from bench.scheduled_venue import ScheduledVenue
from lob.board import Board

SYMBOLS = 10
RATE = 5_000
CHUNK = RATE // 2  # messages between two looks at the public ring
SAMPLES = 20
WARM_UP_S = 5.0
RSS_SLACK_KIB = 1024  # what an allocator may take back and forth
LATENCY_SLACK = 1.5  # of the medians; the host's other work moves them
OTHERS_CORES = 0.3  # with so much else going on, latency is not judged


@dataclass(frozen=True)
class Sample:
    at_s: float
    rss_kib: dict[str, int]
    fds: dict[str, int]
    p50_us: float
    p99_us: float
    others: float


def rss_kib(pid: int) -> int:
    """Resident memory but for the shared rings, which are mapped in full from the start."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0])


def fd_count(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def sample(running: Running, venue: ScheduledVenue, seconds: float, start_s: float) -> Sample:
    """Load for so long, then a look."""
    others = Others(running.pids.values())
    delays = []
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        due_ns = venue.send(RATE, CHUNK)
        headers = running.headers(CHUNK)
        delays.append((headers["origin_ns"] + headers["stage_ns"][:, 3] - due_ns) / 1e3)
    p50, p99 = np.percentile(np.concatenate(delays), [50, 99])
    return Sample(
        time.monotonic() - start_s,
        {stage: rss_kib(pid) for stage, pid in running.pids.items()},
        {stage: fd_count(pid) for stage, pid in running.pids.items()},
        float(p50),
        float(p99),
        others.cores(),
    )


def growth(samples: list[Sample]) -> list[str]:
    """What is worse at the end than at the start, one sentence each."""
    quarter = max(1, len(samples) // 4)
    first, last = samples[:quarter], samples[-quarter:]
    found = []
    for stage in last[-1].rss_kib:
        before, after = max(s.rss_kib[stage] for s in first), max(s.rss_kib[stage] for s in last)
        if after > before + RSS_SLACK_KIB:
            found.append(f"memory of lob-{stage}: {before} -> {after} KiB")
        if last[-1].fds[stage] != first[0].fds[stage]:
            found.append(f"descriptors of lob-{stage}: {first[0].fds[stage]} -> {last[-1].fds[stage]}")
    before_us, after_us = (float(np.median([s.p50_us for s in part])) for part in (first, last))
    if after_us > before_us * LATENCY_SLACK and not disturbed(samples):
        found.append(f"latency, p50: {before_us:.1f} -> {after_us:.1f} us")
    return found


def disturbed(samples: list[Sample]) -> bool:
    """Whether so much else ran on this host that latencies tell nothing of us."""
    return max(s.others for s in samples) > OTHERS_CORES


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):  # the stages end with us
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    each_s = max(minutes * 60 / SAMPLES, 1.0)
    flows = [Flow(f"SYM{number}USDT", 20, seed=number) for number in range(SYMBOLS)]
    venue = ScheduledVenue(flows)
    stages = ("connect", *STAGES)
    with connected({"connect": venue.options}) as running:
        running.attach()
        for flow in flows:
            running.await_live(flow.symbol)
        sample(running, venue, min(WARM_UP_S, each_s), 0.0)
        sizes = " ".join(f"{stage.upper() + '_KIB':>11}" for stage in stages)
        print(f"{'AT_S':>6} {sizes}   FDS  P50_US  P99_US  OTHERS")
        start_s = time.monotonic()
        samples = []
        while time.monotonic() - start_s < minutes * 60:
            now = sample(running, venue, each_s, start_s)
            samples.append(now)
            sizes = " ".join(f"{now.rss_kib[stage]:>11}" for stage in stages)
            figures = f"{sum(now.fds.values()):>5} {now.p50_us:>7.1f} {now.p99_us:>7.0f} {now.others:>7.2f}"
            print(f"{now.at_s:>6.0f} {sizes} {figures}", flush=True)
        for flow in flows:
            top = Board(running.instance).top(flow.symbol, 1)
            assert top.live, (top, running.errors())
        venue.close()
    found = growth(samples)
    for sentence in found:
        print(f"soak: grew: {sentence}")
    if not found:
        latency = ", latency not judged (others used the cores)" if disturbed(samples) else " and latency"
        print(f"soak: ok: {venue.sent_count} messages; memory, descriptors{latency} at the end as at the start")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
