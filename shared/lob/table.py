"""The live table: one row an instrument, redrawn four times a second.

Columns: state and why it is not live, best bid and ask, their distance, updates a second, age of the newest update,
and the time it took from the socket to the last stage. Under 80 columns wide.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from rich.console import Console
from rich.live import Live
from rich.table import Table

from lob import _native
from lob.records import BookState, Reason
from lob.units import decimal_text

# Of `_native.Tops.rows`: symbol, state, reason, bid price, qty, ask price, qty, price scale, qty scale, updates,
# origin_ns, latency_ns.
Row: TypeAlias = tuple[str, int, int, int, int, int, int, int, int, int, int, int]

REFRESH_S = 0.25
STATE_STYLES = {BookState.LIVE: "green", BookState.STALE: "red", BookState.RESYNCING: "yellow"}
# Words that the column is too narrow for.
REASON_WORDS = {Reason.UPSTREAM_SILENT: "silent", Reason.UPSTREAM_CLOSED: "ended", Reason.OUT_OF_RANGE: "range"}
QTY_WIDTH = 7
MISSING = "-"


class LiveTable:
    """Draws the rows that `rows()` gives, when `tick` is called and it is time."""

    def __init__(self, title: str, rows: Callable[[], Sequence[Row]], console: Console | None = None) -> None:
        self._title = title
        self._rows = rows
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._next_draw = 0.0
        self._drawn_at = 0.0
        self._updates_before: dict[str, int] = {}
        self._live.start()

    def tick(self, *, now_s: float | None = None) -> None:
        now_s = time.monotonic() if now_s is None else now_s
        if now_s >= self._next_draw:
            self._next_draw = now_s + REFRESH_S
            self._draw(now_s)

    def close(self) -> None:
        """Draw the last state and leave it on the screen."""
        self._draw(time.monotonic())
        self._live.stop()

    def _draw(self, now_s: float) -> None:
        rows = self._rows()
        elapsed_s = now_s - self._drawn_at
        self._drawn_at = now_s
        shown = max(1, self._live.console.height - 4)
        table = table_of(self._title, rows[:shown], self._updates_before, elapsed_s, _native.mono_ns())
        if len(rows) > shown:
            table.caption = f"and {len(rows) - shown} more"
        self._updates_before = {row[0]: row[9] for row in rows}
        self._live.update(table, refresh=True)


class RecordTable:
    """The table of a stream of records: the printer of lob-book on a terminal."""

    def __init__(self, title: str) -> None:
        self._tops = _native.Tops()
        self._table = LiveTable(title, self._tops.rows)

    def write(self, record: bytes) -> None:
        self._tops.apply(record)

    def tick(self) -> None:
        self._table.tick()

    def close(self) -> None:
        self._table.close()


def table_of(
    title: str, rows: Sequence[Row], updates_before: dict[str, int], elapsed_s: float, now_mono_ns: int
) -> Table:
    """The table of one moment. `elapsed_s`: since `updates_before` was taken. Pure."""
    table = Table(title=title, box=None, padding=(0, 1, 0, 0), title_justify="left", caption_justify="left")
    # Words are cut where the width is short, numbers never: rich takes from columns that may wrap first.
    table.add_column("SYMBOL", overflow="ellipsis", min_width=6, max_width=12)
    table.add_column("STATE", overflow="ellipsis", min_width=6, max_width=12)
    for heading in ("BID_QTY", "BID", "ASK", "ASK_QTY", "SPREAD", "UPD/S", "AGE_MS", "LAT_US"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        symbol, state, reason, bid, bid_qty, ask, ask_qty, price_scale, qty_scale, updates, origin_ns, latency_ns = row
        word = state_word(BookState(state), Reason(reason))
        both = bid_qty != 0 and ask_qty != 0
        rate = (updates - updates_before.get(symbol, updates)) / elapsed_s if elapsed_s > 0 else 0.0
        table.add_row(
            symbol,
            f"[{STATE_STYLES.get(BookState(state), 'dim')}]{word}[/]",
            short(decimal_text(bid_qty, qty_scale)) if bid_qty else MISSING,
            decimal_text(bid, price_scale) if bid_qty else MISSING,
            decimal_text(ask, price_scale) if ask_qty else MISSING,
            short(decimal_text(ask_qty, qty_scale)) if ask_qty else MISSING,
            decimal_text(ask - bid, price_scale) if both else MISSING,
            count(round(rate)),
            count(max(0, now_mono_ns - origin_ns) // 1_000_000) if origin_ns else MISSING,
            count(latency_ns // 1_000) if latency_ns else MISSING,
        )
    return table


def state_word(state: BookState, reason: Reason) -> str:
    """The state, or why the book is not live."""
    if state is BookState.LIVE or reason is Reason.NONE:
        return state.name.lower()
    return REASON_WORDS.get(reason, reason.name.lower())


def short(quantity: str) -> str:
    """A quantity in at most QTY_WIDTH characters, its fraction cut: for the eye only."""
    if len(quantity) <= QTY_WIDTH:
        return quantity
    whole, _, fraction = quantity.partition(".")
    if len(whole) >= QTY_WIDTH - 1:
        return count(int(whole))
    if whole == "0" and not fraction[: QTY_WIDTH - 3].strip("0"):
        digits = fraction.lstrip("0")
        return f"{digits[0]}.{digits[1:2] or '0'}e-{len(fraction) - len(digits) + 1}"
    return quantity[:QTY_WIDTH]


def count(number: int) -> str:
    """A count in at most 5 characters: 99999, 100k, 9999M."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(number) < (10_000 if unit else 100_000):
            return f"{number}{unit}"
        number //= 1000
    return f"{number}E"
