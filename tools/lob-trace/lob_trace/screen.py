"""The live screen of `lob-trace top`: what is shown, from figures. Pure but for rich, which draws it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lob_trace.latency import Row

SPARKS = "▁▂▃▄▅▆▇█"
HISTORY = 48  # looks that the sparkline remembers
STATES = {"live": "green", "building": "yellow", "resyncing": "yellow", "stale": "red", "closed": "dim"}


def sparkline(values: list[float | None]) -> str:
    """A character a value, between the smallest and the largest of them; a blank where there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return " " * len(values)
    low, high = min(known), max(known)
    step = (high - low) / (len(SPARKS) - 1) or 1.0
    return "".join(" " if value is None else SPARKS[round((value - low) / step)] for value in values)


@dataclass
class History:
    """What the sparkline of one instance shows."""

    p50_us: deque[float | None] = field(default_factory=lambda: deque(maxlen=HISTORY))

    def text(self) -> str:
        known = [value for value in self.p50_us if value is not None]
        if not known:
            return "p50 end to end: nothing yet"
        now = "-" if self.p50_us[-1] is None else f"{self.p50_us[-1]:.1f}"
        return f"p50 end to end, us  {sparkline(list(self.p50_us))}  now {now}, {min(known):.1f} to {max(known):.1f}"


def instance_block(
    name: str,
    stages: list[Row],
    rings: list[dict[str, Any]],
    books: list[dict[str, Any]],
    history: History,
    books_max: int,
) -> RenderableType:
    """One pipeline: its rings, its stages, the sparkline, its books."""
    parts: list[RenderableType] = [Text(name, style="bold")]
    table = _table(["RING", "STATE", "FILL_%", "REC/S", "DROPS", "LOST"], left=2)
    for ring in rings:
        if ring["kind"] == "board":
            continue
        state = ring["state"] if ring["owner_alive"] is not False else "owner gone"
        style = "" if state == "open" else "yellow"
        drops, lost = ring["drops"], ring["lost"]
        table.add_row(
            ring["ring"].rsplit(".", 1)[1],
            Text(state, style),
            _number(ring["fill_pct"]),
            _number(ring["records_per_s"], 0),
            Text(str(drops), "red" if drops else ""),
            Text(str(lost), "red" if lost else ""),
        )
    if rings:
        parts.append(table)
    if any(row.count for row in stages):
        table = _table(["STAGE", "COUNT", "P50_US", "P90_US", "P99_US", "P99.9_US", "MAX_US"], left=1)
        for row in stages:
            figures = (row.p50_us, row.p90_us, row.p99_us, row.p99_9_us, row.max_us)
            table.add_row(row.stage, str(row.count), *map(_number, figures))
        parts.append(table)
    parts.append(Text(history.text()))
    if books:
        table = _table(["BOOK", "STATE", "AGE_MS", "BID", "BID_QTY", "ASK", "ASK_QTY"], left=2)
        for book in books[:books_max]:
            state = book["state"] if book["reason"] is None else f"{book['state']}: {book['reason']}"
            cells = (book[key] or "-" for key in ("bid", "bid_qty", "ask", "ask_qty"))
            shown = Text(state, STATES.get(book["state"], ""))
            table.add_row(book["symbol"], shown, _number(book["age_ms"], 0), *cells)
        parts.append(table)
        if len(books) > books_max:
            parts.append(Text(f"and {len(books) - books_max} more", style="dim"))
    return Group(*parts, Text(""))


def _table(headings: list[str], left: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < left else "right", no_wrap=True)
    return table


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
