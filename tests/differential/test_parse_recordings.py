"""Native decoder == plain oracle, message by message, over the real recordings of our venues."""

from __future__ import annotations

import gzip
import re
from functools import cache
from pathlib import Path

import orjson
import pytest

import lob._native  # noqa: F401
from differential import oracle
from lob import venues
from lob.records import SequenceRule
from lob_parse._native import Decoder
from pipeline import data_folder

RECORDINGS = {
    "binance": ["binance-shapes-1", *(f"binance-spot-{n}" for n in (1, 2, 4, 6, 7, 10))]
    + [f"binanceus-spot-{n}" for n in (1, 2, 4)],
    "binance-usdm": ["binance-shapes-1", *(f"binance-usdm-{n}" for n in (1, 2, 4))],
    "coinbase": ["coinbase-advanced-1-head"],
    "kraken": ["kraken-shapes-1", "kraken-v2-2", "kraken-v2-3"],
}
CASES = [(venue, name) for venue, names in RECORDINGS.items() for name in names]


@cache
def lines(name: str) -> list[dict[str, str]]:
    folder = data_folder()
    if folder is None:
        pytest.skip("no recordings: set LOB_DATA to their folder")
    path = Path(folder, "recordings", f"{name}.jsonl.gz")
    if not path.exists():
        pytest.skip(f"no recording {name}")
    with gzip.open(path) as file:
        return [orjson.loads(line) for line in file]


def decoders(name: str):
    venue = venues.load(name)
    rule = int(SequenceRule[venue.rule.upper()])
    rest = None if venue.snapshot_shape is None else Decoder(venue.snapshot_shape, rule)
    return venue, Decoder(venue.shape, rule), rest


@pytest.mark.slow
@pytest.mark.parametrize(("venue_name", "name"), CASES)
def test_native_events_equal_the_oracles_message_by_message(venue_name: str, name: str) -> None:
    venue, stream, rest = decoders(venue_name)
    events = 0
    for number, line in enumerate(lines(name)):
        raw = line["raw"].encode()
        if line["dir"] == "in":
            native, plain = stream.decode(raw), oracle.decode(venue.shape, raw, venue.rule)
        elif line["dir"] == "http" and rest is not None and (answer := venue.http_answer(line["url"])) is not None:
            if answer.kind != "snapshot":
                continue
            native = rest.decode(raw, answer.symbol)
            plain = oracle.decode(venue.snapshot_shape, raw, venue.rule, answer.symbol)
        else:
            continue
        assert oracle.same(native, plain), f"{name}:{number + 1}: {native[0]} against {plain[0]}: {raw[:300]!r}"
        events += len(plain[1])
    assert events > 0 or name.endswith("shapes-1")


@pytest.mark.parametrize(("venue_name", "name"), [case for case in CASES if "shapes" not in case[1]])
def test_no_frame_of_a_real_recording_is_bad_and_only_acks_are_unknown(venue_name: str, name: str) -> None:
    venue, stream, _ = decoders(venue_name)
    for line in lines(name):
        if line["dir"] == "in":
            raw = line["raw"].encode()
            status, _ = stream.decode(raw)
            assert status == "ok" or (status == "unknown_frame" and venue.control(raw) is not None), raw[:300]


@pytest.mark.parametrize("name", ["binance-spot-1", "kraken-v2-2", "coinbase-advanced-1-head"])
def test_blanks_and_the_order_of_keys_do_not_matter(name: str) -> None:
    venue_name = next(venue for venue, names in RECORDINGS.items() if name in names)
    _, stream, _ = decoders(venue_name)
    for line in lines(name)[:400]:
        if line["dir"] != "in" or len(line["raw"]) > 100_000:
            continue
        raw = line["raw"].encode()
        want = stream.decode(raw)
        for other in (turned(raw), spaced(raw)):
            got = stream.decode(other)
            # Levels and trades stand in arrays, so only keys changed places.
            assert got == want, f"{other[:300]!r}"


def turned(raw: bytes) -> bytes:
    """The same message with the keys of every object in reverse order; number texts are kept."""

    def text(value: object) -> str:
        if isinstance(value, oracle.Bare):
            return str(value)
        if isinstance(value, oracle.Pairs):
            return "{" + ",".join(f"{text(k)}:{text(v)}" for k, v in reversed(value)) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(text, value)) + "]"
        return orjson.dumps(value).decode()

    return text(oracle.parse(raw)).encode()


def spaced(raw: bytes) -> bytes:
    """The same message with blanks wherever JSON allows them."""
    parts = re.split(rb'("(?:[^"\\]|\\.)*")', raw)
    return b"".join(p if i % 2 else re.sub(rb"([\[\]{},:])", rb" \t\1\r\n ", p) for i, p in enumerate(parts))
