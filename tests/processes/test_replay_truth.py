"""Every real recording of our venues, through the four real processes, against an independent rebuild of its books."""

from __future__ import annotations

import bisect
import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipeline import data_folder, replay

DATA = data_folder()
pytestmark = pytest.mark.skipif(DATA is None, reason="no real recordings here (set LOB_DATA to their folder)")

# A continuation is replayed after the recording that it continues.
CASES = [
    ("binance", ["binance-spot-1"]),
    ("binance", ["binance-spot-2"]),
    ("binance", ["binance-spot-4"]),
    ("binance", ["binance-spot-6"]),
    ("binance", ["binance-spot-6", "binance-spot-7"]),
    ("binance", ["binance-spot-10"]),
    ("binance", ["binanceus-spot-1"]),
    ("binance", ["binanceus-spot-2"]),
    ("binance", ["binanceus-spot-4"]),
    ("binance-usdm", ["binance-usdm-1"]),
    ("binance-usdm", ["binance-usdm-2"]),
    ("binance-usdm", ["binance-usdm-4"]),
    ("coinbase", ["coinbase-advanced-1-head"]),
    ("kraken", ["kraken-v2-2"]),
    ("kraken", ["kraken-v2-3"]),
]


def recording(name: str) -> Path:
    assert DATA is not None
    return DATA / "recordings" / f"{name}.jsonl.gz"


def truth_of(name: str) -> dict[str, Any]:
    assert DATA is not None
    for entry in json.loads((DATA / "truth.json").read_bytes()):
        if entry["recording"].split(".jsonl")[0] == name:
            return {symbol["symbol"]: symbol for symbol in entry["symbols"]}
    raise AssertionError(f"no truth of {name}")


@pytest.mark.parametrize(("venue", "names"), CASES, ids=lambda v: v if isinstance(v, str) else "+".join(v))
def test_four_processes_give_the_books_of_the_independent_rebuild(venue: str, names: list[str], tmp_path: Path) -> None:
    replay(venue, [recording(name) for name in names], tmp_path, to=f"ndjson:{tmp_path / 'out.ndjson'}")
    summary = json.loads((tmp_path / "summary.json").read_bytes())
    assert summary["venue"] == venue
    truths = [truth_of(name) for name in names]
    expected = truths[-1]
    assert set(summary["instruments"]) == set(expected)
    for symbol, truth in expected.items():
        ours = summary["instruments"][symbol]
        told = {
            "state": ours["state"],
            "snapshots": ours["snapshots"],
            "updates": ours["updates"],
            "stale_dropped": ours["stale_dropped"],
            "gaps": ours["gaps"],
            "checksums_ok": ours["checksums_ok"],
            "checksums_failed": ours["checksums_failed"],
            "level_updates": ours["level_updates"],
            "crossed": ours["crossed"],
            "levels": [ours["bid_levels"], ours["ask_levels"]],
            "bids": ours["bids"],
            "asks": ours["asks"],
        }

        def total(key: str, symbol: str = symbol) -> int:
            return sum(t[symbol][key] for t in truths if symbol in t)

        assert told == {
            "state": "live" if truth["in_sync_at_end"] else "stale",
            "snapshots": total("snapshots"),
            "updates": total("updates_applied"),
            "stale_dropped": total("updates_stale_skipped"),
            "gaps": total("gaps"),
            "checksums_ok": total("checksum_ok"),
            "checksums_failed": total("checksum_fail"),
            "level_updates": total("levels_in_updates"),
            "crossed": total("crossed_after"),
            "levels": truth["final_levels"],
            "bids": truth["bids_top10"],
            "asks": truth["asks_top10"],
        }, symbol


def test_a_continuation_alone_never_goes_live(tmp_path: Path) -> None:
    replay("binance", [recording("binance-spot-7")], tmp_path, to=f"ndjson:{tmp_path / 'out.ndjson'}")
    summary = json.loads((tmp_path / "summary.json").read_bytes())
    assert summary["instruments"]["BTCUSDT"]["state"] != "live"
    assert summary["instruments"]["BTCUSDT"]["updates"] == 0
    states = [json.loads(line) for line in (tmp_path / "out.ndjson").open() if '"status"' in line]
    assert states and all(status["state"] != "live" for status in states)


def book_tickers(name: str) -> dict[str, list[tuple[int, tuple[Decimal, ...]]]]:
    """symbol -> (update id, (bid, qty, ask, qty)), by id, from the recording's own bookTicker messages."""
    found: dict[str, list[tuple[int, tuple[Decimal, ...]]]] = {}
    with gzip.open(recording(name), "rt") as lines:
        for line in lines:
            if "bookTicker" not in line:
                continue
            raw = json.loads(line)["raw"]
            if not raw.startswith("{"):
                continue
            message = json.loads(raw)
            if "bookTicker" not in message.get("stream", ""):
                continue
            data = message["data"]
            found.setdefault(data["s"], []).append((data["u"], tuple(Decimal(data[key]) for key in "bBaA")))
    for tickers in found.values():
        tickers.sort(key=lambda ticker: ticker[0])
    return found


@pytest.mark.parametrize(
    ("venue", "name"),
    [
        ("binance", "binance-spot-2"),
        ("binance", "binance-spot-4"),
        ("binance", "binance-spot-6"),
        ("binance-usdm", "binance-usdm-2"),
    ],
)
def test_bbo_equals_book_ticker_at_equal_update_ids(venue: str, name: str, tmp_path: Path) -> None:
    replay(venue, [recording(name)], tmp_path, to=f"ndjson:{tmp_path / 'out.ndjson'}")
    tickers = book_tickers(name)
    truth = truth_of(name)
    bbo: dict[str, tuple[Decimal, ...]] = {}
    at: dict[str, dict[int, tuple[Decimal, ...]]] = {}
    with (tmp_path / "out.ndjson").open() as lines:
        for line in lines:
            record = json.loads(line)
            if record["type"] == "snapshot" and record["bids"] and record["asks"]:
                best = (*record["bids"][0], *record["asks"][0])
                bbo[record["symbol"]] = tuple(map(Decimal, best))
            elif record["type"] == "bbo":
                bid, ask = record["bid"] or ("0", "0"), record["ask"] or ("0", "0")
                bbo[record["symbol"]] = tuple(map(Decimal, (*bid, *ask)))
            if record["type"] in ("diff", "bbo"):
                at.setdefault(record["symbol"], {})[record["last_seq"]] = bbo[record["symbol"]]
    compared = different = 0
    for symbol, states in at.items():
        ids = [ticker[0] for ticker in tickers.get(symbol, [])]
        for seq, best_levels in states.items():
            place = bisect.bisect_right(ids, seq) - 1
            if place < 0:
                continue
            compared += 1
            different += tickers[symbol][place][1] != best_levels
    compares = (symbol.get("cross_check", {}).get("bookTicker_compare", {}) for symbol in truth.values())
    allowed = sum(compare.get("depth_events_different", 0) for compare in compares)
    assert compared > 100
    assert different <= allowed
