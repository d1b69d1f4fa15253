"""A replay is lossless and the same every time, through all four processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import REPOSITORY, replay

RECORDINGS = sorted((REPOSITORY / "tests" / "recordings").glob("*.jsonl.gz"))


def venue_of(path: Path) -> str:
    return next(v for v in ("binance-usdm", "binance", "coinbase", "kraken") if path.name.startswith(v))


@pytest.mark.parametrize("path", [p for p in RECORDINGS if "mutated" not in p.name], ids=lambda p: p.name)
def test_two_replays_at_full_speed_print_the_same_bytes(path: Path, tmp_path: Path) -> None:
    outputs = []
    for run in ("first", "second"):
        folder = tmp_path / run
        folder.mkdir()
        outputs.append(replay(venue_of(path), [path], folder).stdout.read_bytes())
    assert len(outputs[0]) > 1000
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda p: p.name)
def test_replay_of_a_shipped_recording_gives_its_truth(path: Path, tmp_path: Path) -> None:
    truth = json.loads(path.with_name(path.name.replace(".jsonl.gz", ".truth.json")).read_bytes())
    replay(venue_of(path), [path], tmp_path, to=f"ndjson:{tmp_path / 'out.ndjson'}")
    summary = json.loads((tmp_path / "summary.json").read_bytes())
    assert set(summary["instruments"]) == set(truth["symbols"])
    counted = ("snapshots", "updates", "stale_dropped", "gaps", "checksums_ok", "checksums_failed")
    for symbol, expected in truth["symbols"].items():
        ours = summary["instruments"][symbol]
        assert (ours["state"] == "live") == expected["in_sync_at_end"], (symbol, ours["state"])
        if expected["in_sync_at_end"]:
            assert (ours["bids"], ours["asks"]) == (expected["bids_top10"], expected["asks_top10"]), symbol
            assert [ours["bid_levels"], ours["ask_levels"]] == expected["levels"], symbol
        if "mutated" not in path.name:  # how a fault is counted is the venue's rule; that it is seen is asserted below
            assert {key: ours[key] for key in counted} == {key: expected[key] for key in counted}, symbol
    if "mutated-drop" in path.name:
        states = [json.loads(line) for line in (tmp_path / "out.ndjson").open() if '"type":"status"' in line]
        reasons = {status["reason"] for status in states if status["state"] in ("stale", "resyncing")}
        assert reasons & {"gap", "checksum"}, f"a lost message went unnoticed: {reasons}"
