"""What a venue should never send: counted, named once a kind on stderr, the book stale where it may be affected, and
live again by a fresh snapshot; never a crash, never a wrong book.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lob
from exchange.running import Running, running
from pipeline import STAGES, Pipeline, pipeline, wait_for

SYMBOL = "BTCUSDT"


def depth(bids: list[Any], asks: list[Any], **fields: Any) -> str:
    """A diff as Binance sends it, with any content."""
    data = {"e": "depthUpdate", "E": 1700000000000, "s": SYMBOL, "U": 1, "u": 2, "b": bids, "a": asks, **fields}
    return json.dumps({"stream": f"{SYMBOL.lower()}@depth@100ms", "data": data}, separators=(",", ":"))


def numbered(price: str, qty: str) -> str:
    """As `depth`, with one level whose texts stand without quotes."""
    return depth([["@p", "@q"]], []).replace('"@p"', price).replace('"@q"', qty)


# name -> (frame, word of the sentence on stderr); a level's trouble makes the book stale
BAD = {
    "no JSON": ("hello", "bad_json"),
    "cut JSON": (depth([["1.0", "2.0"]], [])[:-9], "bad_json"),
    "trailing garbage": (depth([["1.0", "2.0"]], []) + "]", "bad_json"),
    "deep nesting": ("[", "bad_json"),
    "ten megabytes": ("[1234567],", "bad_json"),
    "a huge number": (depth([["9" * 400, "1"]], []), ""),
    "a huge exponent": (numbered("1e999999999", "1"), ""),
    "more digits than int64 holds": (depth([["12345678901234567890.12345678", "1"]], []), "out_of_range"),
    "a negative quantity": (depth([["1.0", "-2.0"]], []), "bad_number"),
    "NaN": (numbered("1.0", "NaN"), "bad_json"),
    "NaN as text": (depth([["1.0", "NaN"]], []), "bad_number"),
    "an empty number": (depth([["", "1"]], []), "bad_number"),
    "a level without quantity": (depth([["1.0"]], []), "bad"),
    "levels that are no array": (depth([], []).replace('"b":[]', '"b":{"x":1}'), ""),
    "a binary frame": ("", "bad_json"),
}

TIMES = {"deep nesting": 100_000, "ten megabytes": 1_000_000}  # the frame is repeated so often within one message


@pytest.fixture(scope="module")
def venue() -> Iterator[Running]:
    with running("--seed", "5", "--rate", "100", "--symbols", SYMBOL) as started:
        yield started


@pytest.fixture
def stages(venue: Running, tmp_path: Path) -> Iterator[Pipeline]:
    options = {
        "connect": ["binance", SYMBOL, "--url", venue.ws, "--rest-url", venue.rest],
        "publish": ["--to", f"ndjson:{tmp_path / 'out.ndjson'}"],
    }
    with pipeline(options, tmp_path) as started:
        yield started


def statuses(tmp_path: Path) -> list[dict[str, Any]]:
    lines = (tmp_path / "out.ndjson").read_bytes().splitlines(keepends=True)
    records = (json.loads(line) for line in lines if line.endswith(b"\n"))
    return [record for record in records if record["type"] == "status"]


def live(instance: str) -> bool:
    try:
        return lob.Board(instance).top(SYMBOL, 1).live
    except (lob.RingError, lob.NoSuchSymbol):
        return False


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_every_bad_frame_is_counted_named_and_survived(venue: Running, stages: Pipeline, tmp_path: Path) -> None:
    wait_for(lambda: live(stages.instance), 15, "the first live book")
    for name, (frame, _) in BAD.items():
        before = len(statuses(tmp_path))
        query: dict[str, object] = {"text": frame} if frame else {"hex": "ff00fe7b"}
        venue.get("control/garbage", **query, times=TIMES.get(name, 1))

        def seen(before: int = before) -> bool:
            return any(status["state"] != "live" for status in statuses(tmp_path)[before:])

        wait_for(seen, 3, f"{name}: the book is stale")
        wait_for(lambda: live(stages.instance), 10, f"{name}: live again")
        ended = {stage: p.poll() for stage, p in stages.processes.items() if p.poll() is not None}
        assert not ended, (name, ended, [stages.stderr(stage) for stage in STAGES])
    top = lob.Board(stages.instance).top(SYMBOL, 10)
    truth = venue.get("truth/book", symbol=SYMBOL, id=top.last_seq, depth=10)
    assert [list(map(list, side)) for side in (top.bid_texts(), top.ask_texts())] == [truth["bids"], truth["asks"]]
    complaints = stages.stderr("parse").splitlines()
    for word in {word for _, word in BAD.values() if word}:
        said = [line for line in complaints if word in line]
        assert said, f"nobody named {word}: {complaints}"
    assert len(complaints) < 3 * len(BAD)


@pytest.mark.timeout(60)
def test_trades_of_an_unknown_symbol_are_ignored_and_the_book_stays_live(
    venue: Running, stages: Pipeline, tmp_path: Path
) -> None:
    wait_for(lambda: live(stages.instance), 15, "the first live book")
    before = len(statuses(tmp_path))
    trade = {"e": "trade", "E": 1, "s": "NOSUCH", "t": 1, "p": "1.0", "q": "2.0", "T": 1, "m": True, "M": True}
    venue.get("control/garbage", text=json.dumps({"stream": "nosuch@trade", "data": trade}))
    updates = lob.Board(stages.instance).top(SYMBOL, 1).updates
    wait_for(lambda: lob.Board(stages.instance).top(SYMBOL, 1).updates > updates + 2, 10, "the book goes on")
    assert all(status["state"] == "live" for status in statuses(tmp_path)[before:])
