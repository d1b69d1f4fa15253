"""NDJSON on stdout or into a file, formatted and written natively: by a thread of its own (native/text_sink.hpp), or by
worker processes, a file each (native/work.hpp).

Under the policy `drop` lines that find its buffers full are dropped, counted, and a `lost` line says so in their place;
under `wait` the whole stage waits.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from pathlib import Path

from lob.rings import InputRing
from lob_publish._native import Pump, TextSink
from lob_publish.sinks.sink import Place, ReaderLeft, Sink, SinkFailed
from lob_publish.workers import Workers

PATIENCE_S = 10.0  # a reader that takes nothing for so long is given up at the end
HINTS = {
    errno.ENOSPC: "free some space, or give another file",
    errno.EDQUOT: "free some space, or give another file",
    errno.EACCES: "give a file that you may write",
    errno.EPIPE: "its reader is gone; start the reader again, then lob-publish",
}


class NdjsonSink(Sink):
    is_text = True

    def __init__(self, uri: str, rest: str) -> None:
        super().__init__(uri)
        if not rest:
            raise ValueError("give ndjson:- or ndjson:FILE")
        self._path = rest
        self.uses_stdout = rest == "-"
        self._fd = -1
        self._text: TextSink | None = None
        self._pump: Pump | None = None
        self._index = -1
        self._workers: Workers | None = None
        self._part = -1
        self._poll = select.poll()
        self._given_up = False

    def open(self, place: Place) -> None:
        if self.uses_stdout:
            self._fd = 1
            if stat.S_ISFIFO(os.fstat(1).st_mode) or stat.S_ISSOCK(os.fstat(1).st_mode):
                self._poll.register(1, select.POLLERR | select.POLLHUP)
        try:
            if place.workers is not None:
                self._open_parts(place.workers, named=place.named)
            elif not self.uses_stdout:
                self._fd = open_file(self._path, named=place.named)
        except OSError as error:
            raise SinkFailed(self._sentence(error)) from None

    def _open_parts(self, workers: Workers, *, named: bool) -> None:
        fds = [1] * workers.count
        if not self.uses_stdout:
            path = Path(self._path)
            if path.exists() and not path.is_file():
                raise SinkFailed(f"{self.uri}: no file; with --workers each writes a file of its own beside that name")
            parts = [path.with_name(f"{path.stem}.{number}{path.suffix}") for number in range(1, workers.count + 1)]
            fds = [open_file(part, named=named) for part in parts]
        try:
            self._part = workers.add_part(fds, stdout=self.uses_stdout)
        except ValueError as error:
            raise SinkFailed(f"{self.uri}: {error}") from None
        self._workers = workers

    def join(self, pump: Pump, source: InputRing) -> None:
        if self._workers is not None:
            return
        if self._text is None:
            self._text, self._pump = TextSink(self._fd), pump
            self._index = pump.add_text(self._text)
        self._text.set_waits(source.policy == "wait")

    def tick(self) -> None:
        error = self._count()
        if self.uses_stdout and (error == errno.EPIPE or self._poll.poll(0)):
            raise ReaderLeft
        if error:
            self.counts.errors += 1
            raise SinkFailed(self._sentence(OSError(error, os.strerror(error))))

    def _count(self) -> int:
        """What the writer tells, or the workers; the number of its error or 0."""
        if self._workers is not None:
            counts = self._workers.counts(self._part)
        elif self._text is not None:
            counts = self._text.counts()
        else:
            return 0
        self.counts.messages, self.counts.bytes, self.counts.drops, error = counts
        return error

    def _sentence(self, error: OSError) -> str:
        hint = HINTS.get(error.errno or 0)
        return f"{self.uri}: {error.strerror}" + (f"; {hint}" if hint else "")

    def flush(self) -> None:
        written = self._finish()
        self.tick()
        if not written:
            self.counts.errors += 1
            raise SinkFailed(f"{self.uri}: its reader takes nothing any more; what waits for it is not written")

    def close(self, *, ended: bool) -> None:
        """What waits is still written, as long as that goes on."""
        if self._workers is not None:
            self._workers.close_part(self._part)  # its files are the workers' to the end
        if self._pump is not None:
            self._pump.remove_text(self._index)
        if self._finish() and self._fd > 1:
            os.close(self._fd)
            self._fd = -1
        self._count()

    def _finish(self) -> bool:
        """False if the writer is stuck; it ends with the process then, and is waited for once."""
        if self._text is None:
            return True
        if self._given_up:
            return self._text.wait_written(0)
        self._text.finish()
        written, patience_ends = -1, time.monotonic() + PATIENCE_S
        while not self._text.wait_written(50):
            self._count()
            if self.counts.bytes != written:
                written, patience_ends = self.counts.bytes, time.monotonic() + PATIENCE_S
            if time.monotonic() >= patience_ends or (self.uses_stdout and self._poll.poll(0)):
                self._given_up = True
                return False
        return True


def open_file(path: str | Path, *, named: bool) -> int:
    """Made anew in a pipe, appended to with --in. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if named else os.O_TRUNC), 0o644)
    if named:
        cut_torn_line(fd)
    return fd


def cut_torn_line(fd: int) -> None:
    """A line that a killed writer left half-written at the end of a file goes: its record comes again."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return
    end = os.fstat(fd).st_size
    at = end
    while at > 0:
        start = max(0, at - (1 << 16))
        newline = os.pread(fd, at - start, start).rfind(b"\n")
        if newline >= 0:
            at = start + newline + 1
            break
        at = start
    if at != end:
        os.ftruncate(fd, at)
