"""Live limit order books: what a strategy imports. Names are loaded when they are first used, so that the five tools
start quickly.

    subscribe(uri)     the records of a public ring, one by one or in batches
    ROWS, HEADER       the numpy dtypes of a batch's rows
    SortedBook()       books rebuilt from them
    Board(instance)    the newest top of every book, without reading a stream
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lob.board import Board, NoSuchSymbol, Top
    from lob.errors import NoRing, RingError, RoleTaken, WrongLayout
    from lob.records import HEADER, ROWS, BookState, Reason, Record, RecordType, TakerSide
    from lob.sorted_book import InstrumentBook, SortedBook
    from lob.subscription import Instrument, Subscription, subscribe
    from lob.units import decimal_text

_HOMES = {
    "HEADER": "records",
    "ROWS": "records",
    "Board": "board",
    "BookState": "records",
    "Instrument": "subscription",
    "InstrumentBook": "sorted_book",
    "NoRing": "errors",
    "NoSuchSymbol": "board",
    "Reason": "records",
    "Record": "records",
    "RecordType": "records",
    "RingError": "errors",
    "RoleTaken": "errors",
    "SortedBook": "sorted_book",
    "Subscription": "subscription",
    "TakerSide": "records",
    "Top": "board",
    "WrongLayout": "errors",
    "decimal_text": "units",
    "subscribe": "subscription",
}

__all__ = [
    "HEADER",
    "ROWS",
    "Board",
    "BookState",
    "Instrument",
    "InstrumentBook",
    "NoRing",
    "NoSuchSymbol",
    "Reason",
    "Record",
    "RecordType",
    "RingError",
    "RoleTaken",
    "SortedBook",
    "Subscription",
    "TakerSide",
    "Top",
    "WrongLayout",
    "decimal_text",
    "subscribe",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lob' has no attribute '{name}'")
    value = getattr(import_module(f"lob.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
