"""The records of `layout.hpp` for Python: numpy dtypes, enums, and the making and reading of single records.

A record is bytes: a header (`HEADER`), one body, then an array of levels or text. Prices and quantities are int64
mantissas; `units.decimal_text(mantissa, scale)` turns one into text. Pure: no I/O, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
import numpy.typing as npt


class RecordType(IntEnum):
    PAD = 0
    RAW_FRAME = 1
    RAW_HTTP = 2
    RAW_SENT = 3
    LINK = 4
    LOST = 5
    ANSWER = 6
    SNAPSHOT = 16
    DIFF = 17
    TRADE = 18
    BBO = 19
    SEQUENCE = 20
    INSTRUMENT = 21
    STATUS = 22


class Flag(IntFlag):
    CONTINUED = 1
    ASKED = 2
    REFRESH = 4


class SequenceRule(IntEnum):
    NONE = 0
    RANGE = 1
    CHAIN = 2
    STEP = 3


class Scope(IntEnum):
    INSTRUMENT = 0
    CONNECTION = 1
    ALL = 2


class BookState(IntEnum):
    BUILDING = 0
    LIVE = 1
    STALE = 2
    RESYNCING = 3
    CLOSED = 4


class Reason(IntEnum):
    NONE = 0
    RESTARTED = 1
    GAP = 2
    CHECKSUM = 3
    CROSSED = 4
    LINK_DOWN = 5
    LOST = 6
    UPSTREAM_SILENT = 7
    BAD_MESSAGE = 8
    OUT_OF_RANGE = 9
    OVERSIZE = 10
    BUFFER_FULL = 11
    SESSION = 12
    SNAPSHOT_OLD = 13
    UPSTREAM_CLOSED = 14


class Outcome(IntEnum):
    DONE = 0
    REFUSED = 1
    FAILED = 2


class RequestKind(IntEnum):
    SNAPSHOT = 1
    RESYNC = 2
    RECONNECT = 3
    SUBSCRIBE = 4
    UNSUBSCRIBE = 5


class ChecksumRule(IntEnum):
    NONE = 0
    KRAKEN_CRC32 = 1


class TakerSide(IntEnum):
    BUY = 0
    SELL = 1
    UNKNOWN = 2


class Stage(IntEnum):
    """Index of `stage_ns`."""

    CONNECT = 0
    PARSE = 1
    BOOK = 2
    PUBLISH = 3


NO_INSTRUMENT = 0xFFFFFFFF
NO_CONNECTION = 0xFFFF
SYMBOL_MAX_BYTES = 63

HEADER = np.dtype(
    [
        ("size_bytes", "<u4"),
        ("type", "<u2"),
        ("flags", "<u2"),
        ("ring_seq", "<u8"),
        ("raw_seq", "<u8"),
        ("exch_ns", "<i8"),
        ("recv_ns", "<i8"),
        ("origin_ns", "<i8"),
        ("instrument", "<u4"),
        ("version", "<u2"),
        ("connection", "<u2"),
        ("session", "<u4"),
        ("epoch", "<u4"),
        ("stage_ns", "<u4", (4,)),
    ]
)
LEVEL = np.dtype([("price", "<i8"), ("qty", "<i8")])
RAW_BODY = np.dtype([("url_bytes", "<u4"), ("payload_bytes", "<u4")])
LINK_BODY = np.dtype([("up", "<u4"), ("url_bytes", "<u4")])
LOST_BODY = np.dtype([("count", "<u8"), ("scope", "u1"), ("reason", "u1"), ("pad", "V6")])
ANSWER_BODY = np.dtype(
    [("request_id", "<u8"), ("kind", "<u2"), ("outcome", "u1"), ("pad", "V5"), ("symbol", "S64"), ("detail", "S64")]
)
BOOK_BODY = np.dtype(
    [
        ("first_seq", "<u8"),
        ("last_seq", "<u8"),
        ("prev_seq", "<u8"),
        ("checksum", "<u4"),
        ("rule", "u1"),
        ("scope", "u1"),
        ("has_checksum", "u1"),
        ("pad", "V1"),
        ("bid_count", "<u4"),
        ("ask_count", "<u4"),
    ]
)
TRADE_BODY = np.dtype(
    [("trade_id", "<u8"), ("price", "<i8"), ("qty", "<i8"), ("taker_side", "u1"), ("pad", "V7")]
)
BBO_BODY = np.dtype(
    [("last_seq", "<u8"), ("bid_price", "<i8"), ("bid_qty", "<i8"), ("ask_price", "<i8"), ("ask_qty", "<i8")]
)
SEQUENCE_BODY = np.dtype([("seq", "<u8"), ("rule", "u1"), ("scope", "u1"), ("pad", "V6")])
INSTRUMENT_BODY = np.dtype(
    [
        ("symbol", "S64"),
        ("depth", "<u4"),
        ("price_scale", "u1"),
        ("qty_scale", "u1"),
        ("rule", "u1"),
        ("scope", "u1"),
        ("checksum_rule", "u1"),
        ("truncates", "u1"),
        ("joins", "u1"),
        ("pad", "V5"),
    ]
)
STATUS_BODY = np.dtype([("last_seq", "<u8"), ("state", "u1"), ("reason", "u1"), ("pad", "V6")])
BOARD_ENTRY = np.dtype(
    [
        ("updates", "<u8"),
        ("last_seq", "<u8"),
        ("ring_seq", "<u8"),
        ("exch_ns", "<i8"),
        ("recv_ns", "<i8"),
        ("origin_ns", "<i8"),
        ("updated_ns", "<i8"),
        ("instrument", "<u4"),
        ("version", "<u2"),
        ("state", "u1"),
        ("reason", "u1"),
        ("session", "<u4"),
        ("connection", "<u2"),
        ("price_scale", "u1"),
        ("qty_scale", "u1"),
        ("bid_count", "<u4"),
        ("ask_count", "<u4"),
        ("symbol", "S64"),
    ]
)

# The body that follows the header, by record type.
BODIES: dict[RecordType, np.dtype[np.void]] = {
    RecordType.RAW_FRAME: RAW_BODY,
    RecordType.RAW_HTTP: RAW_BODY,
    RecordType.RAW_SENT: RAW_BODY,
    RecordType.LINK: LINK_BODY,
    RecordType.LOST: LOST_BODY,
    RecordType.ANSWER: ANSWER_BODY,
    RecordType.SNAPSHOT: BOOK_BODY,
    RecordType.DIFF: BOOK_BODY,
    RecordType.TRADE: TRADE_BODY,
    RecordType.BBO: BBO_BODY,
    RecordType.SEQUENCE: SEQUENCE_BODY,
    RecordType.INSTRUMENT: INSTRUMENT_BODY,
    RecordType.STATUS: STATUS_BODY,
}

# Records as rows of an array, what `drain` copies into: the header's fields, then the body's; no levels.
ROWS: dict[RecordType, np.dtype[np.void]] = {
    kind: np.dtype(HEADER.descr + BODIES[kind].descr)
    for kind in (
        RecordType.LOST,
        RecordType.ANSWER,
        RecordType.SNAPSHOT,
        RecordType.TRADE,
        RecordType.BBO,
        RecordType.SEQUENCE,
        RecordType.INSTRUMENT,
        RecordType.STATUS,
    )
}

# The C++ name of each dtype, for the test that compares them with layout.hpp.
MIRRORS: dict[str, np.dtype[np.void]] = {
    "RecordHeader": HEADER,
    "Level": LEVEL,
    "RawBody": RAW_BODY,
    "LinkBody": LINK_BODY,
    "LostBody": LOST_BODY,
    "AnswerBody": ANSWER_BODY,
    "BookBody": BOOK_BODY,
    "TradeBody": TRADE_BODY,
    "BboBody": BBO_BODY,
    "SequenceBody": SEQUENCE_BODY,
    "InstrumentBody": INSTRUMENT_BODY,
    "StatusBody": STATUS_BODY,
    "BoardEntry": BOARD_ENTRY,
}


@dataclass(frozen=True, slots=True)
class Record:
    """One record, its parts as numpy scalars and arrays (views of the bytes; keep the record while you use them).

    `body` has the fields of the type's dtype. `bids` and `asks` are LEVEL arrays (empty unless snapshot or diff);
    `url` and `text` are the bytes of raw and link records.
    """

    type: RecordType
    header: np.void
    body: np.void
    bids: npt.NDArray[np.void]
    asks: npt.NDArray[np.void]
    url: bytes = b""
    text: bytes = b""

    @property
    def symbol(self) -> str:
        """Of instrument and answer records."""
        return bytes(self.body["symbol"]).decode("utf-8", "replace")


_NO_LEVELS: npt.NDArray[np.void] = np.empty(0, LEVEL)


def parse(record: bytes) -> Record:
    """Read a record. Raises ValueError if its length or counts do not fit its type."""
    if len(record) < HEADER.itemsize:
        raise ValueError(f"a record of {len(record)} bytes has no header")
    header: np.void = np.frombuffer(record, HEADER, 1)[0]
    try:
        kind = RecordType(int(header["type"]))
        dtype = BODIES[kind]
    except (ValueError, KeyError):
        raise ValueError(f"no record type {int(header['type'])}") from None
    start = HEADER.itemsize + dtype.itemsize
    if len(record) < start:
        raise ValueError(f"a {kind.name} record of {len(record)} bytes is cut short")
    body: np.void = np.frombuffer(record, dtype, 1, HEADER.itemsize)[0]
    if kind in (RecordType.SNAPSHOT, RecordType.DIFF):
        bid_count, ask_count = int(body["bid_count"]), int(body["ask_count"])
        if start + (bid_count + ask_count) * LEVEL.itemsize > len(record):
            raise ValueError(f"a {kind.name} record says {bid_count}+{ask_count} levels and is cut short")
        levels = np.frombuffer(record, LEVEL, bid_count + ask_count, start)
        return Record(kind, header, body, levels[:bid_count], levels[bid_count:])
    if dtype is RAW_BODY:
        url_end = start + int(body["url_bytes"])
        end = url_end + int(body["payload_bytes"])
        if end > len(record):
            raise ValueError(f"a {kind.name} record says {end} bytes and has {len(record)}")
        return Record(kind, header, body, _NO_LEVELS, _NO_LEVELS, record[start:url_end], record[url_end:end])
    if dtype is LINK_BODY:
        return Record(kind, header, body, _NO_LEVELS, _NO_LEVELS, record[start : start + int(body["url_bytes"])])
    return Record(kind, header, body, _NO_LEVELS, _NO_LEVELS)


def build(
    kind: RecordType,
    body: dict[str, Any] | None = None,
    *,
    bids: list[tuple[int, int]] | npt.NDArray[np.void] | None = None,
    asks: list[tuple[int, int]] | npt.NDArray[np.void] | None = None,
    url: bytes = b"",
    text: bytes = b"",
    **header: Any,
) -> bytes:
    """Make a record for a writer's `write`; size, ring_seq and epoch are filled in there.

    Counts and lengths in the body are set from `bids`, `asks`, `url`, `text`. The slow way, for the rare records
    that Python makes itself (links, answers, losses) and for tests.
    """
    head = np.zeros(1, HEADER)
    head["type"] = int(kind)
    head["instrument"] = NO_INSTRUMENT
    head["connection"] = NO_CONNECTION
    for name, value in header.items():
        head[name] = value
    dtype = BODIES[kind]
    content = np.zeros(1, dtype)
    for name, value in (body or {}).items():
        content[name] = value
    tail = b""
    if dtype is BOOK_BODY:
        bid_levels = np.array(bids if bids is not None else [], LEVEL)
        ask_levels = np.array(asks if asks is not None else [], LEVEL)
        content["bid_count"], content["ask_count"] = len(bid_levels), len(ask_levels)
        tail = bid_levels.tobytes() + ask_levels.tobytes()
    elif dtype is RAW_BODY:
        content["url_bytes"], content["payload_bytes"] = len(url), len(text)
        tail = url + text
    elif dtype is LINK_BODY:
        content["url_bytes"] = len(url)
        tail = url
    record = head.tobytes() + content.tobytes() + tail
    record += b"\0" * (-len(record) % 8)
    return len(record).to_bytes(4, "little") + record[4:]
