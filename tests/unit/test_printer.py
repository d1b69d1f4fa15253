"""Print mode: lines on a descriptor, and a reader that leaves."""

from __future__ import annotations

import os
import sys

import orjson
import pytest

from book_stream import BookStream
from lob.printer import NdjsonPrinter, make_printer


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    signal_fds = [reading, writing]
    yield reading, writing
    for fd in signal_fds:
        try:
            os.close(fd)
        except OSError:
            pass


def test_lines_go_out_with_the_tick(pipe):
    reading, writing = pipe
    printer = NdjsonPrinter(writing)
    made = BookStream(printer.write, seed=1)
    made.begin()
    printer.tick()
    lines = os.read(reading, 1 << 16).splitlines()
    assert [orjson.loads(line)["type"] for line in lines] == ["instrument", "status", "snapshot", "status"] * 2


def test_reader_that_left_raises_broken_pipe(pipe):
    reading, writing = pipe
    printer = NdjsonPrinter(writing)
    os.close(reading)
    made = BookStream(printer.write, seed=1)
    with pytest.raises(BrokenPipeError):
        made.begin()
        printer.tick()


def test_stdout_that_is_no_terminal_gets_ndjson(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert isinstance(make_printer("lob-book"), NdjsonPrinter)


@pytest.mark.parametrize(
    ("tool", "ndjson", "lines"), [("lob-book", False, False), ("lob-book", True, True), ("lob-parse", False, True)]
)
def test_terminal_gets_a_table_from_who_has_prices_unless_it_asked_for_lines(monkeypatch, tool, ndjson, lines):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    printer = make_printer(tool, ndjson=ndjson)
    assert isinstance(printer, NdjsonPrinter) is lines
    printer.close()
