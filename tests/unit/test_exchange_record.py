"""Recordings of simulated sessions: the same bytes for a seed, the real venues' shapes, a truth that holds."""

from __future__ import annotations

import gzip
import json

import pytest

from exchange.rebuild import truth
from exchange.record import SHAPES, main, record, truth_path

VENUES = sorted(SHAPES)


@pytest.mark.parametrize("venue", VENUES)
def test_one_seed_gives_the_same_bytes_and_another_seed_others(venue, tmp_path):
    files = [tmp_path / f"{name}.jsonl.gz" for name in ("one", "two", "other")]
    for file, seed in zip(files, "334", strict=True):
        assert main(f"--venue {venue} --seed {seed} --events 400 --levels 60 --out {file}".split()) == 0
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()
    assert truth_path(files[0]).read_bytes() == truth_path(files[1]).read_bytes()
    assert truth_path(files[0]).name == "one.truth.json"
    lines = [json.loads(line) for line in gzip.decompress(files[0].read_bytes()).splitlines()]
    said = json.loads(truth_path(files[0]).read_text())
    assert truth(lines) == said["symbols"] and said["lines"] == len(lines)


@pytest.mark.parametrize("venue", VENUES)
def test_times_grow_and_every_line_has_the_keys_of_the_format(venue):
    lines, _ = record(venue, 5, 400, levels=60)
    times = [line["ts_ns"] for line in lines]
    assert times == sorted(set(times))
    for line in lines:
        assert {"ts_ns", "conn", "dir", "raw"} <= set(line) <= {"ts_ns", "conn", "dir", "raw", "url", "event"}
        assert line["dir"] in ("in", "out", "http") and ("url" in line) == (line["dir"] != "in")
        if line["raw"]:
            json.loads(line["raw"])
    connect = next(line for line in lines if line.get("event"))
    assert connect["event"] == "connect" and connect["raw"] == "" and connect["url"] == SHAPES[venue].url


def test_binance_snapshots_come_after_the_first_diffs():
    lines, said = record("binance", 5, 1000, levels=60)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        diffs = [i for i, line in enumerate(lines) if '"depthUpdate"' in line["raw"] and symbol in line["raw"]]
        (snapshot,) = [i for i, line in enumerate(lines) if line.get("url", "").endswith(f"symbol={symbol}&limit=1000")]
        assert diffs[0] < snapshot < diffs[-1]
        assert said["symbols"][symbol]["stale_dropped"] > 0 and said["symbols"][symbol]["snapshots"] == 1
    kinds = {json.loads(line["raw"]).get("stream", "").partition("@")[2] for line in lines if line["dir"] == "in"}
    assert {"depth@100ms", "bookTicker", "trade"} <= kinds


@pytest.mark.parametrize(
    ("venue", "mutate", "gaps", "failed", "snapshots"),
    [
        ("binance", "drop", 1, 0, 2),
        ("binance", "dup", 0, 0, 1),
        ("binance", "swap", 1, 0, 2),
        ("binance", "cut", 0, 0, 2),
        ("binance-usdm", "drop", 1, 0, 2),
        ("binance-usdm", "swap", 1, 0, 2),
        ("kraken", "drop", 0, 1, 2),
        ("kraken", "dup", 0, 0, 1),
        ("kraken", "cut", 0, 0, 2),
        ("coinbase", "drop", 1, 0, 2),
        ("coinbase", "cut", 0, 0, 2),
    ],
)
def test_fault_is_noticed_and_healed_by_a_right_book(venue, mutate, gaps, failed, snapshots):
    lines, said = record(venue, 7, 2000, levels=60, mutate=mutate)
    book = next(iter(said["symbols"].values()))
    assert (book["gaps"], book["checksums_failed"], book["snapshots"]) == (gaps, failed, snapshots)
    assert all(book["in_sync_at_end"] for book in said["symbols"].values())
    assert len(lines) // 4 < said["fault_line"] < len(lines)
