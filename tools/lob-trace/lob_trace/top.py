"""The loop of `lob-trace top`: looks at traces, rings and boards every interval and draws them. Read-only."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from lob.board import Board
from lob.errors import RingError
from lob.names import instance_of, list_rings
from lob_trace import books as book_rows
from lob_trace import rings as outside
from lob_trace.latency import END_TO_END, rows
from lob_trace.screen import History, instance_block
from lob_trace.traces import Traces

LINES_BESIDE_BOOKS = 18


class Top:
    """What is remembered from look to look."""

    def __init__(self, instance: str | None) -> None:
        self._instance = instance
        self._traces = Traces(instance)
        self._rings = self._look()
        self._boards: dict[str, Board] = {}
        self._history: dict[str, History] = {}

    def _look(self) -> dict[str, outside.Look]:
        looks = {}
        for name in sorted(list_rings(self._instance), key=outside.place):
            try:
                looks[name] = outside.look(name)
            except RingError:
                continue
        return looks

    def _books(self, instance: str) -> list[dict[str, Any]]:
        try:
            if instance not in self._boards:
                self._boards[instance] = Board(instance)
            return book_rows.rows(self._boards[instance])
        except RingError:
            self._boards.pop(instance, None)
            return []

    def screen(self, lines: int) -> Group:
        """All instances as they are now, and since the last call."""
        before, self._rings = self._rings, self._look()
        self._traces.look()
        taken = self._traces.take()
        ring_rows = [outside.row(before[name], now) for name, now in self._rings.items() if name in before]
        names = sorted({row["instance"] for row in ring_rows} | {instance_of(name) for name in self._traces.open})
        blocks = []
        for name in names:
            stages = rows(taken.get(name, {}))
            history = self._history.setdefault(name, History())
            history.p50_us.append(next(row.p50_us for row in stages if row.stage == END_TO_END))
            own = [row for row in ring_rows if row["instance"] == name]
            room = max(3, lines // len(names) - LINES_BESIDE_BOOKS)
            blocks.append(instance_block(name, stages, own, self._books(name), history, room))
        return Group(*blocks) if blocks else Group(Text("no pipeline on this host"))


def run(instance: str | None, interval_s: float, count: int | None) -> None:
    """Until SIGINT, or so often."""
    console = Console()
    top = Top(instance)
    with Live(Group(Text("...")), console=console, screen=True, auto_refresh=False) as live:
        while count is None or count > 0:
            time.sleep(interval_s)
            live.update(top.screen(console.size.height), refresh=True)
            count = None if count is None else count - 1
