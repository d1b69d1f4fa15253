"""Where a stage's records go in print mode: NDJSON on stdout, or a live table on a terminal."""

from __future__ import annotations

import os
import sys
from typing import Protocol

from lob import _native

TABLE_TOOLS = ("lob-book", "lob-publish")  # what they write has a best price to show
FLUSH_BYTES = 1 << 16


class Printer(Protocol):
    """Where records go in print mode."""

    def write(self, record: bytes) -> None: ...
    def tick(self) -> None: ...
    def close(self) -> None: ...


def make_printer(tool: str, *, ndjson: bool = False) -> Printer:
    """The printer of a tool for the stdout it has; `ndjson`: asked for with --print, also on a terminal."""
    if not ndjson and tool in TABLE_TOOLS and sys.stdout.isatty():
        from lob.table import RecordTable  # rich is loaded only by who draws

        return RecordTable(tool)
    return NdjsonPrinter(1)


class NdjsonPrinter:
    """One line a record. Raises BrokenPipeError when the reader of stdout has gone; the stage ends with 0 then."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._ndjson = _native.Ndjson()
        self._lines: list[bytes] = []
        self._bytes = 0

    def write(self, record: bytes) -> None:
        line = self._ndjson.format(record)
        self._lines.append(line)
        self._bytes += len(line)
        if self._bytes >= FLUSH_BYTES:
            self.tick()

    def tick(self) -> None:
        """What was written since the last call goes out."""
        if not self._lines:
            return
        text = b"".join(self._lines)
        self._lines.clear()
        self._bytes = 0
        write_all(self._fd, text)

    def close(self) -> None:
        self.tick()


def write_all(fd: int, text: bytes) -> None:
    """os.write until all of it is written."""
    at = 0
    view = memoryview(text)
    while at < len(view):
        at += os.write(fd, view[at:])
