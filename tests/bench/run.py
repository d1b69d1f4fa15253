"""All benchmarks: prints a table, writes build/bench.json.

Usage: python tests/bench/run.py RING_BENCH CHAIN_BENCH TRACE_BENCH

Each checks the answer first, then times. Absolute figures move with the machine (a shared one by a factor of four):
quote the ratios, which come from one run.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def machine() -> str:
    """What this was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    load = os.getloadavg()[0]
    return f"{len(names)} x {names[0] if names else '?'}, Python {platform.python_version()}, load {load:.1f}"


def main() -> None:
    rows = []
    print(machine(), file=sys.stderr)
    for command in (
        [sys.argv[1]],
        [sys.executable, str(FOLDER / "python_ring_bench.py")],
        [sys.argv[3]],
        [sys.executable, str(FOLDER / "book_bench.py")],
        [sys.executable, str(FOLDER / "socket_bench.py")],
        [sys.executable, str(FOLDER / "pipeline_bench.py")],
        [sys.executable, str(FOLDER / "memory_bench.py")],
        [sys.executable, str(FOLDER / "latency_bench.py"), sys.argv[2], sys.argv[1]],
    ):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                entry = json.loads(line)
                rows.append(entry)
                ratio = f"{entry['ratio']:8.2f} x {entry['over']}" if entry.get("ratio") else ""
                also = "  ".join(f"{key} {figure:g}" for key, figure in entry.get("also", {}).items())
                figure = f"{entry['value']:>10.2f} {entry['unit']:<18}"
                goal = f"  (goal: {entry['goal']})" if entry.get("goal") else ""
                print(f"{entry['name']:<82} {figure} {ratio} {also}".rstrip() + goal, flush=True)
        if process.returncode:
            sys.exit(f"bench: {command[0]} ended with {process.returncode}")
    out = Path("build/bench.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    print(f"{len(rows)} rows in {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
