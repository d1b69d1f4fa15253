"""The books of a pipeline as its board shows them: state, age, top. Read-only."""

from __future__ import annotations

from typing import Any

from lob.board import Board, NoSuchSymbol, Top
from lob.units import decimal_text


def rows(board: Board) -> list[dict[str, Any]]:
    """One a book, in the board's order."""
    found = []
    for symbol in board.symbols():
        try:
            found.append(row(board.top(symbol, 1)))
        except NoSuchSymbol:  # the board was made anew in between
            continue
    return found


def row(top: Top) -> dict[str, Any]:
    """Pure. Prices and quantities are exact decimal text; None where the side is empty."""
    bid, bid_qty = next(iter(top.bid_texts()), (None, None))
    ask, ask_qty = next(iter(top.ask_texts()), (None, None))
    spread = None
    if len(top.bids) and len(top.asks):
        spread = decimal_text(int(top.asks[0]["price"]) - int(top.bids[0]["price"]), top.price_scale)
    return {
        "symbol": top.symbol,
        "state": top.state.name.lower(),
        "reason": None if top.live else (top.detail or top.reason.name.lower()),
        "age_ms": round(top.age_ns / 1e6, 1),
        "bid": bid,
        "bid_qty": bid_qty,
        "ask": ask,
        "ask_qty": ask_qty,
        "spread": spread,
        "updates": top.updates,
        "last_seq": top.last_seq,
    }
