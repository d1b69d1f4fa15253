"""NDJSON on stdout or into a file, formatted and written natively by a thread of its own (native/text_sink.hpp).

Under the policy `drop` lines that find its buffers full are dropped, counted, and a `lost` line says so in their place;
under `wait` the whole stage waits.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time

from lob.rings import InputRing
from lob_publish._native import Pump, TextSink
from lob_publish.sinks.sink import Place, ReaderLeft, Sink, SinkFailed

PATIENCE_S = 10.0  # a reader that takes nothing for so long is given up at the end
HINTS = {
    errno.ENOSPC: "free some space, or give another file",
    errno.EDQUOT: "free some space, or give another file",
    errno.EACCES: "give a file that you may write",
    errno.EPIPE: "its reader is gone; start the reader again, then lob-publish",
}


class NdjsonSink(Sink):
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
        self._poll = select.poll()

    def open(self, place: Place) -> None:
        if self.uses_stdout:
            self._fd = 1
            if stat.S_ISFIFO(os.fstat(1).st_mode) or stat.S_ISSOCK(os.fstat(1).st_mode):
                self._poll.register(1, select.POLLERR | select.POLLHUP)
        else:
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if place.named else os.O_TRUNC)
                self._fd = os.open(self._path, flags, 0o644)
                if place.named:
                    cut_torn_line(self._fd)
            except OSError as error:
                raise SinkFailed(self._sentence(error)) from None

    def join(self, pump: Pump, source: InputRing) -> None:
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
        """What the writer tells; the number of its error or 0."""
        if self._text is None:
            return 0
        self.counts.messages, self.counts.bytes, self.counts.drops, error = self._text.counts()
        return error

    def _sentence(self, error: OSError) -> str:
        hint = HINTS.get(error.errno or 0)
        return f"{self.uri}: {error.strerror}" + (f"; {hint}" if hint else "")

    def flush(self) -> None:
        self._finish()
        self.tick()

    def close(self, *, ended: bool) -> None:
        """What waits is still written, as long as that goes on."""
        if self._pump is not None:
            self._pump.remove_text(self._index)
        if self._finish() and self._fd > 1:
            os.close(self._fd)
            self._fd = -1
        self._count()

    def _finish(self) -> bool:
        """False if the writer is stuck; it ends with the process then."""
        if self._text is None:
            return True
        self._text.finish()
        written, patience_ends = -1, time.monotonic() + PATIENCE_S
        while not self._text.wait_written(50):
            self._count()
            if self.counts.bytes != written:
                written, patience_ends = self.counts.bytes, time.monotonic() + PATIENCE_S
            if time.monotonic() >= patience_ends or (self.uses_stdout and self._poll.poll(0)):
                return False
        return True


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
