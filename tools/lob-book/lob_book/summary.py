"""What --summary writes and the last line says, from what the native books tell of themselves. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lob.records import BookState, Reason
from lob.units import decimal_text

COUNTS = (
    "last_seq",
    "snapshots",
    "updates",
    "stale_dropped",
    "gaps",
    "resyncs",
    "checksums_ok",
    "checksums_failed",
    "level_updates",
    "crossed",
    "bid_levels",
    "ask_levels",
)


def summary(manifest: dict[str, Any], books: list[dict[str, Any]]) -> dict[str, Any]:
    """One object a book: its state and why, counts and best levels as exact decimal text, best first.

    A book's key is its symbol, or "connection/symbol" if several connections have the symbol.
    """
    labels = {connection.get("id"): str(connection.get("label", "")) for connection in manifest.get("connections", [])}
    count = Counter(book["symbol"] for book in books)
    instruments = {}
    for book in books:
        symbol = book["symbol"]
        key = symbol if count[symbol] == 1 else f"{labels.get(book['connection'], book['connection'])}/{symbol}"
        instruments[key] = {
            "state": BookState(book["state"]).name.lower(),
            "reason": Reason(book["reason"]).name.lower(),
            **{name: book[name] for name in COUNTS},
            "bids": _texts(book, "bids"),
            "asks": _texts(book, "asks"),
        }
    return {"venue": manifest.get("venue"), "instruments": instruments}


def _texts(book: dict[str, Any], side: str) -> list[list[str]]:
    return [
        [decimal_text(price, book["price_scale"]), decimal_text(qty, book["qty_scale"])] for price, qty in book[side]
    ]


def totals(manifest: dict[str, Any], books: list[dict[str, Any]]) -> str:
    """One line for people."""
    live = sum(book["state"] == BookState.LIVE for book in books)
    others = Counter(_why(book) for book in books if book["state"] != BookState.LIVE)
    why = f" ({', '.join(f'{count} {word}' for word, count in sorted(others.items()))})" if others else ""
    sums = {name: sum(book[name] for book in books) for name in ("snapshots", "updates", "gaps", "resyncs")}
    bad = sum(book["checksums_failed"] for book in books)
    return (
        f"{manifest.get('venue')}: {len(books)} books, {live} live{why}, {sums['snapshots']} snapshots, "
        f"{sums['updates']} updates, {sums['gaps']} gaps, {sums['resyncs']} resyncs, {bad} bad checksums"
    )


def _why(book: dict[str, Any]) -> str:
    """Why a book is not live: the reason, else its state."""
    return (Reason(book["reason"]) or BookState(book["state"])).name.lower()
