"""records.py mirrors layout.hpp, and what is built is read back."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from lob import _native, records
from lob.records import BODIES, MIRRORS, RecordType, build, parse

LAYOUT = Path(__file__).parents[2] / "shared" / "native" / "layout.hpp"


@pytest.mark.parametrize("name", sorted(MIRRORS))
def test_dtype_has_the_size_of_the_struct(name):
    assert MIRRORS[name].itemsize == _native.SIZES[name]


@pytest.mark.parametrize("name", sorted(MIRRORS))
def test_dtype_has_every_field_where_the_struct_has_it(name):
    ours = {field: MIRRORS[name].fields[field][1] for field in MIRRORS[name].names if field != "pad"}
    theirs = {key.split(".")[1]: at for key, at in _native.OFFSETS.items() if key.split(".")[0] == name}
    assert ours == theirs


def test_every_struct_has_a_mirror():
    assert set(MIRRORS) == set(_native.SIZES)


ENUMS = {
    "RecordType": records.RecordType,
    "SequenceRule": records.SequenceRule,
    "Scope": records.Scope,
    "BookState": records.BookState,
    "Reason": records.Reason,
    "Outcome": records.Outcome,
    "RequestKind": records.RequestKind,
    "TakerSide": records.TakerSide,
    "ChecksumRule": records.ChecksumRule,
    "Stage": records.Stage,
}


@pytest.mark.parametrize("name", sorted(ENUMS))
def test_enum_has_the_values_of_the_header(name):
    text = re.sub(r"//.*", "", LAYOUT.read_text())
    body = re.search(rf"enum class {name} : [\w:]+ {{(.*?)}};", text, re.DOTALL)
    assert body is not None
    theirs = {word.upper(): int(number) for word, number in re.findall(r"(\w+) = (\d+)", body[1])}
    assert {member.name: member.value for member in ENUMS[name]} == theirs


def test_flags_have_the_values_of_the_header():
    theirs = dict(re.findall(r"FLAG_(\w+) = (\d+);", LAYOUT.read_text()))
    assert {flag.name: str(flag.value) for flag in records.Flag} == theirs


@pytest.mark.parametrize("kind", list(BODIES))
def test_record_that_was_built_is_read_back(kind):
    record = build(kind, instrument=3, version=2, exch_ns=-5, url=b"wss://x", text=b"hello")
    parsed = parse(record)
    assert len(record) % 8 == 0
    assert parsed.type is kind
    assert int(parsed.header["size_bytes"]) == len(record)
    assert (int(parsed.header["instrument"]), int(parsed.header["version"])) == (3, 2)
    assert int(parsed.header["exch_ns"]) == -5


def test_levels_are_read_back_in_order():
    bids, asks = [(10, 1), (9, 2)], [(11, 3)]
    parsed = parse(build(RecordType.DIFF, bids=bids, asks=asks))
    assert parsed.bids.tolist() == bids
    assert parsed.asks.tolist() == asks


def test_record_that_says_more_levels_than_it_has_is_refused():
    record = bytearray(build(RecordType.DIFF, bids=[(1, 1)]))
    at = records.HEADER.itemsize + records.BOOK_BODY.fields["bid_count"][1]
    record[at : at + 4] = np.uint32(2).tobytes()
    with pytest.raises(ValueError, match="cut short"):
        parse(bytes(record))


@pytest.mark.parametrize("size", [0, 8, 79, 80, 95])
def test_record_that_is_cut_short_is_refused(size):
    with pytest.raises(ValueError):
        parse(build(RecordType.STATUS)[:size])


def test_type_that_does_not_exist_is_refused():
    record = bytearray(build(RecordType.STATUS))
    record[4:6] = (99).to_bytes(2, "little")
    with pytest.raises(ValueError, match="no record type 99"):
        parse(bytes(record))
