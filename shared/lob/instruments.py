"""Instruments in a ring's manifest, for readers that begin in the middle: entries <-> instrument records. Pure.

An instrument's record stands in the ring before its first use and not again; whoever attaches later learns names and
scales from the manifest's list `instruments`, one object each: `id`, `version` and the fields of the record's body.
"""

from __future__ import annotations

from typing import Any

from lob.records import INSTRUMENT_BODY, NO_CONNECTION, Record, RecordType, build

FIELDS = tuple(name for name in INSTRUMENT_BODY.names or () if name not in ("symbol", "pad"))


def entry(record: Record) -> dict[str, Any]:
    """What the manifest says of the instrument of an instrument record."""
    fields = {name: int(record.body[name]) for name in FIELDS}
    return {
        "id": int(record.header["instrument"]),
        "version": int(record.header["version"]),
        "symbol": record.symbol,
        "connection": int(record.header["connection"]),
        **fields,
    }


def instrument_records(manifest: dict[str, Any], epoch: int) -> list[bytes]:
    """The records that the entries were made from, without a ring sequence. Entries that are none are left out."""
    records = []
    entries = manifest.get("instruments")
    for fields in entries if isinstance(entries, list) else []:
        try:
            body = {name: int(fields.get(name, 0)) for name in FIELDS}
            body["price_scale"], body["qty_scale"] = int(fields["price_scale"]), int(fields["qty_scale"])
            records.append(
                build(
                    RecordType.INSTRUMENT,
                    {"symbol": str(fields["symbol"]).encode(), **body},
                    instrument=int(fields["id"]),
                    version=int(fields["version"]),
                    connection=int(fields.get("connection", NO_CONNECTION)),
                    epoch=epoch & 0xFFFFFFFF,
                )
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            continue
    return records
