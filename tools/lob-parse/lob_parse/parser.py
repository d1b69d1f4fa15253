"""A native parser for a venue, and its state in the output's manifest. No ring is opened here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lob._native  # noqa: F401  its ring types must be known before ours are loaded
from lob.records import ChecksumRule, Scope, SequenceRule
from lob.venues.venue import Venue
from lob_parse import _native
from lob_parse.hooks import VenueHooks


def parser_of(
    venue: Venue, changed: Callable[[int], None], complain: Callable[[str], None] = lambda _: None
) -> _native.Parser:
    """The parser of a venue. Raises ValueError if its shape is none."""
    return _native.Parser(
        venue.shape,
        venue.snapshot_shape,
        int(SequenceRule[venue.rule.upper()]),
        int(Scope[venue.scope.upper()]),
        int(ChecksumRule[venue.checksum.upper()]),
        venue.truncates,
        venue.snapshot == "rest",
        VenueHooks(venue, changed, complain),
    )


def restore(parser: _native.Parser, instruments: list[dict[str, Any]], committed_raw_seq: int) -> None:
    """Instruments of the run before, in order of ids.

    The manifest is written before the commit that announces a change, so an entry of a raw record beyond
    `committed_raw_seq` was never announced: its record goes out first. Raises ValueError if the list is not ours.
    """
    for id_, entry in enumerate(instruments):
        try:
            if entry["id"] != id_:
                raise ValueError(f"instrument {entry['id']} stands at {id_}")
            parser.restore(
                entry["symbol"],
                entry["connection"],
                entry["version"],
                entry["price_scale"],
                entry["qty_scale"],
                entry["depth"],
                entry["raw_seq"],
                entry["raw_seq"] <= committed_raw_seq,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"instruments in the manifest: {error!r}") from None
