"""The live table on the terminal."""

from __future__ import annotations

import sys

from lob.rings import InputRing
from lob.table import LiveTable
from lob_publish._native import Pump
from lob_publish.sinks.sink import Place, Sink, SinkFailed


class TableSink(Sink):
    uses_stdout = True

    def __init__(self, uri: str, rest: str) -> None:
        super().__init__(uri)
        if rest:
            raise ValueError("table: has no further part")
        self._table: LiveTable | None = None

    def open(self, place: Place) -> None:
        if not sys.stdout.isatty():
            raise SinkFailed("table: stdout is no terminal; give --to ndjson:-")

    def join(self, pump: Pump, source: InputRing) -> None:
        if self._table is None:
            self._table = LiveTable(source.name, pump.rows)

    def tick(self) -> None:
        if self._table is not None:
            self._table.tick()

    def close(self, *, ended: bool) -> None:
        table, self._table = self._table, None
        if table is not None:
            table.close()
