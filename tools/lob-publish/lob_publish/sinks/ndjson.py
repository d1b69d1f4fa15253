"""NDJSON on stdout or into a file, written by a thread of its own: a slow disk or pipe holds up nobody else.

Under the policy `drop` lines that find the queue full are dropped, counted, and a `lost` line says so in their place;
under `wait` the whole stage waits.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import threading
import time
from collections import deque

from lob import _native
from lob.records import Reason, RecordType, Scope, build
from lob.rings import InputRing
from lob_publish._native import Pump
from lob_publish.sinks.sink import Place, ReaderLeft, Sink, SinkFailed

QUEUE_BYTES = 16 << 20
PATIENCE_S = 10.0  # a reader that takes nothing for so long is given up at the end
WRITE_BYTES = 1 << 20
HINTS = {
    errno.ENOSPC: "free some space, or give another file",
    errno.EDQUOT: "free some space, or give another file",
    errno.EACCES: "give a file that you may write",
    errno.EPIPE: "its reader is gone; start the reader again, then lob-publish",
}


class NdjsonSink(Sink):
    wants_text = True

    def __init__(self, uri: str, rest: str) -> None:
        super().__init__(uri)
        if not rest:
            raise ValueError("give ndjson:- or ndjson:FILE")
        self._path = rest
        self.uses_stdout = rest == "-"
        self._fd = -1
        self._waits = False
        self._queue: deque[tuple[bytes, int]] = deque()
        self._queued_bytes = 0
        self._hole = 0  # lines dropped since the last one that was taken
        self._error: OSError | None = None
        self._done = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
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
        self._thread = threading.Thread(target=self._write_all, name=self.uri, daemon=True)
        self._thread.start()

    def join(self, pump: Pump, source: InputRing) -> None:
        self._waits = source.policy == "wait"

    def take(self, text: bytes, lines: int) -> None:
        with self._changed:
            if self._error is not None or (not self._waits and self._queued_bytes > QUEUE_BYTES):
                self.counts.drops += lines
                self._hole += lines
                return
            if self._hole:
                text = lost_line(self._hole) + text
                self._hole = 0
            self._queue.append((text, lines))
            self._queued_bytes += len(text)
            self._changed.notify_all()

    def wait_ready(self, timeout_s: float) -> bool:
        if not self._waits:
            return True
        with self._changed:
            return self._changed.wait_for(
                lambda: self._queued_bytes <= QUEUE_BYTES or self._error is not None, timeout_s
            )

    def tick(self) -> None:
        if self._error is not None:
            self._fail(self._error)
        if self.uses_stdout and self._poll.poll(0):
            raise ReaderLeft

    def _fail(self, error: OSError) -> None:
        if self.uses_stdout and error.errno == errno.EPIPE:
            raise ReaderLeft
        self.counts.errors += 1
        raise SinkFailed(self._sentence(error))

    def _sentence(self, error: OSError) -> str:
        hint = HINTS.get(error.errno or 0)
        return f"{self.uri}: {error.strerror}" + (f"; {hint}" if hint else "")

    def flush(self) -> None:
        self._stop_thread()
        self.tick()

    def close(self, *, ended: bool) -> None:
        """What is queued is still written, as long as that goes on."""
        if self._stop_thread() and self._fd > 1:
            os.close(self._fd)
            self._fd = -1

    def _stop_thread(self) -> bool:
        """False if it is stuck in a write; it ends with the process then."""
        thread = self._thread
        if thread is None:
            return True
        with self._changed:
            self._done = True
            self._changed.notify_all()
        left, patience_ends = -1, time.monotonic() + PATIENCE_S
        while thread.is_alive() and time.monotonic() < patience_ends:
            thread.join(0.05)
            if self._queued_bytes != left:
                left, patience_ends = self._queued_bytes, time.monotonic() + PATIENCE_S
            if self.uses_stdout and self._poll.poll(0):
                break
        if thread.is_alive():
            return False
        self._thread = None
        return True

    # -- the thread ---------------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._done)
                if not self._queue:
                    return
                text, lines = self._queue.popleft()
            try:
                view = memoryview(text)
                while view:
                    written = os.write(self._fd, view[:WRITE_BYTES])
                    view = view[written:]
                    with self._changed:
                        self._queued_bytes -= written
                        self.counts.bytes += written
                        self._changed.notify_all()
            except OSError as error:
                with self._changed:
                    self._error = error
                    self.counts.drops += lines + sum(waiting for _, waiting in self._queue)
                    self._queue.clear()
                    self._queued_bytes = 0
                    self._changed.notify_all()
                return
            self.counts.messages += lines


def lost_line(count: int) -> bytes:
    """The line that stands where `count` lines were dropped."""
    body = {"count": count, "scope": int(Scope.ALL), "reason": int(Reason.LOST)}
    return _native.Ndjson().format(build(RecordType.LOST, body))


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
