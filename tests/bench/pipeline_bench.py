"""Four real processes from a replay at full speed: level updates a second through all of them.

Usage: python tests/bench/pipeline_bench.py        (prints one JSON object a row; `make bench` makes the table)

The clock runs from the moment when all four are ready (until then the replay is held up by its first file, a named
pipe) to the end: the book ring is closed and read to its end by lob-publish, which copies all into the public ring. The
time of four interpreters to start is not in the figure. Files are plain: to decompress one costs more than all the
rest. The books are checked.
"""

from __future__ import annotations

import contextlib
import json
import os
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
from lob import _native
from lob.errors import RingError
from lob.recording import blocks_of_text
from lob.segments import RingState, open_segment
from lob.units import decimal_text
from pipeline import Pipeline, data_folder, pipeline, wait_for

RUNS = 5


def write_recording(path: Path, frames: list[bytes]) -> None:
    """Generated frames in the format that lob-connect replays."""
    stamp = 1_700_000_000_000_000_000
    with path.open("wb") as file:

        def line(**entry: Any) -> None:
            file.write(orjson.dumps({"ts_ns": stamp, "conn": "ws", **entry}) + b"\n")

        line(dir="in", raw=frames[0].decode())
        line(dir="http", url=SNAPSHOT_URL.decode(), raw=SNAPSHOT.decode())
        for frame in frames[1:]:
            line(dir="in", raw=frame.decode())


def replay(venue: str, path: Path) -> tuple[float, dict[str, Any]]:
    """(seconds from the release of the replay to its end, lob-book's summary)."""
    with tempfile.TemporaryDirectory() as folder:
        logs, gate = Path(folder), Path(folder) / "gate.jsonl"
        os.mkfifo(gate)
        options = {
            "connect": [venue, "--replay", str(gate), str(path), "--speed", "max"],
            "book": ["--summary", str(logs / "summary.json")],
            "publish": ["--to", "shm:"],
        }
        with pipeline(options, logs) as running:
            book, public = (_segment(running, what) for what in ("book", "public"))
            wait_for(lambda: bool(public.facts()["writer_pid"]), 10, "the public ring's owner")
            time.sleep(0.2)  # until the last of them sleeps
            begin = time.monotonic()
            gate.open("wb").close()
            while not _read_to_its_end(book):
                time.sleep(0.001)
            end = time.monotonic()
            assert set(running.wait(30).values()) == {0}
        return end - begin, json.loads((logs / "summary.json").read_bytes())


def _segment(running: Pipeline, what: str) -> _native.Segment:
    found: list[_native.Segment] = []

    def there() -> bool:
        with contextlib.suppress(RingError):
            found.append(open_segment(f"/lob.{running.instance}.{what}", writable=False))
        return bool(found)

    wait_for(there, 20, f"the {what} ring; {running.stderr('publish')}")
    return found[0]


def _read_to_its_end(ring: _native.Segment) -> bool:
    facts = ring.facts()
    closed = facts["state"] == int(RingState.CLOSED)
    return closed and all(reader["position"] == facts["tail"] for reader in facts["readers"])


def measure(name: str, venue: str, path: Path) -> None:
    lines = recorded(path)
    frames = [text for way, _, text in lines if way == "in"]
    levels = sum(map(levels_of, frames))
    best_s = float("inf")
    for _ in range(RUNS):
        seconds, summary = replay(venue, path)
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
    with tempfile.TemporaryDirectory() as folder:
        if data is not None:
            for name, venue in (("binance-spot-6", "binance"), ("binance-usdm-4", "binance-usdm")):
                plain = Path(folder) / f"{name}.jsonl"
                plain.write_bytes(b"".join(blocks_of_text(data / "recordings" / f"{name}.jsonl.gz")))
                measure(f"recording {name}, all messages", venue, plain)
        path = Path(folder) / "generated.jsonl"
        write_recording(path, depth_updates(20, 300_000))
        measure("generated, 20 levels a message", "binance", path)


if __name__ == "__main__":
    main()
