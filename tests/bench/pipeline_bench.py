"""Four real processes from a replay at full speed: level updates a second, from first raw record to the closed ring.

Usage: python tests/bench/pipeline_bench.py        (prints one JSON object a row; `make bench` makes the table)

The processes' start and end are not in the figure: the clock runs from the first record in the raw ring to lob-book's
ring being closed and read to its end by lob-publish, which copies all into the public ring. The books are checked.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.flow import SNAPSHOT, SNAPSHOT_URL, PlainBook, depth_updates, levels_of, recorded
from bench.rows import row
from lob.rings import RingError, open_segment
from lob.units import decimal_text
from pipeline import data_folder, pipeline

RUNS = 3


def write_recording(path: Path, frames: list[bytes]) -> None:
    """Generated frames in the format that lob-connect replays, plain: the gzip of it would be the bottleneck."""
    stamp = 1_700_000_000_000_000_000
    with path.open("wb") as file:

        def line(**entry: Any) -> None:
            file.write(orjson.dumps({"ts_ns": stamp, "conn": "ws", **entry}) + b"\n")

        line(dir="in", raw=frames[0].decode())
        line(dir="http", url=SNAPSHOT_URL.decode(), raw=SNAPSHOT.decode())
        for frame in frames[1:]:
            line(dir="in", raw=frame.decode())


def replay_s(venue: str, path: Path) -> tuple[float, dict[str, Any]]:
    """(seconds of a replay, lob-book's summary)."""
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        options = {
            "connect": [venue, "--replay", str(path), "--speed", "max"],
            "book": ["--summary", str(logs / "summary.json")],
            "publish": ["--to", "shm:"],
        }
        with pipeline(options, logs) as running:
            segments: dict[str, Any] = {}
            begin = end = 0.0
            while not end:
                for what in ("raw", "book"):
                    if what not in segments:
                        try:
                            segments[what] = open_segment(f"/lob.{running.instance}.{what}", writable=False)
                        except RingError:
                            continue
                if not begin and "raw" in segments and segments["raw"].facts()["records"]:
                    begin = time.monotonic()
                if "book" in segments:
                    facts = segments["book"].facts()
                    drained = all(reader["position"] == facts["tail"] for reader in facts["readers"])
                    if facts["state"] == 2 and drained:
                        end = time.monotonic()
                assert running.processes["publish"].poll() in (None, 0), running.stderr("publish")
                time.sleep(0.001)
            assert set(running.wait(30).values()) == {0}
        return end - begin, json.loads((logs / "summary.json").read_bytes())


def measure(name: str, venue: str, path: Path) -> None:
    lines = recorded(path)
    frames = [text for way, _, text in lines if way == "in"]
    levels = sum(map(levels_of, frames))
    best_s = float("inf")
    for _ in range(RUNS):
        seconds, summary = replay_s(venue, path)
        best_s = min(best_s, seconds)
    (book,) = summary["instruments"].values()
    plain = PlainBook()
    last = 0
    for way, url, text in lines:
        if way == "http" and b"/depth?" in url:
            plain.snapshot(text)
            last = orjson.loads(text)["lastUpdateId"]
            for _, _, held in lines:
                if b'"depthUpdate"' in held[:120]:
                    message = orjson.loads(held)
                    if message.get("data", message)["u"] > last:
                        plain.apply(held)
            break

    def text(value: Decimal) -> str:
        return decimal_text(int(value.scaleb(8)), 8)

    scaled = [[[text(price), text(qty)] for price, qty in side] for side in plain.top(10)]
    assert [book["bids"], book["asks"]] == scaled, f"{name}: the books differ"
    row(f"four processes, {name}", levels / best_s / 1e6, "M level updates/s")
    row(f"four processes, {name}, messages", len(lines) / best_s / 1e3, "k messages/s")


def main() -> None:
    data = data_folder()
    if data is not None:
        for name, venue in (("binance-spot-6", "binance"), ("binance-usdm-4", "binance-usdm")):
            measure(f"recording {name}, all messages", venue, data / "recordings" / f"{name}.jsonl.gz")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generated.jsonl"
        write_recording(path, depth_updates(20, 150_000))
        measure("generated, 20 levels a message", "binance", path)


if __name__ == "__main__":
    main()
