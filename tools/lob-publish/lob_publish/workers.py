"""The worker processes of --workers: started, watched, replaced, ended. What they do is in native/work.hpp."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Set

from lob.errors import RingError
from lob.rings import InputRing
from lob_publish._native import PARTS_MAX, Desk, Pump

DEATHS_MAX = 3  # of one worker in so many seconds, without a batch done in between: nothing helps
DEATHS_S = 10.0
SAY_S = 1.0  # at most one line a second about losses
END_S = 2.0  # a worker that was told to end and does not (its disk or reader stands still) is killed


class Worker:
    """One number: its process, and those that were it before."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.deaths: list[tuple[float, int]] = []  # (when, batches done until then)


class Workers:
    """Processes that format and write text, each batch of records by one of them.

    Use: `add_part` for each text sink, `start`, then `tick` at least every 50 ms, `close`.
    """

    def __init__(self, count: int, cores: Set[int], wait: str, say: Callable[[str], None]) -> None:
        self.count = count
        self._cores = cores
        self._wait = wait
        self._say = say
        self._memory_fd = os.memfd_create("lob-publish-workers", os.MFD_CLOEXEC)
        self._parts: list[list[int]] = []  # of each text sink: a descriptor a worker
        self._stdout_part = -1
        self._workers = [Worker(number) for number in range(1, count + 1)]
        self._desk: Desk | None = None
        self._ring = ""
        self._lost_said = 0
        self._next_say = 0.0

    def add_part(self, fds: list[int], *, stdout: bool = False) -> int:
        """A text sink: its files, one a worker, or stdout for all of them; its number. Raises ValueError."""
        if len(self._parts) == PARTS_MAX:
            raise ValueError(f"at most {PARTS_MAX} text sinks go with --workers")
        if stdout:
            self._stdout_part = len(self._parts)
        self._parts.append(fds)
        return len(self._parts) - 1

    def start(self, pump: Pump, source: InputRing) -> None:
        self._ring = source.name
        self._desk = Desk(self._memory_fd, source.segment)
        pump.set_desk(self._desk)
        for worker in self._workers:
            self._spawn(worker)

    def reattach(self, source: InputRing) -> None:
        """Another ring under the name."""
        if self._desk is not None:
            self._desk.set_ring(source.segment)

    def _spawn(self, worker: Worker) -> None:
        fds = [fds[worker.number - 1] for fds in self._parts]
        arguments = [self._ring, worker.number, self._memory_fd, os.getpid(), self._wait, self._stdout_part]
        arguments.append(",".join(map(str, sorted(self._cores))))
        worker.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lob_publish.worker", *map(str, [*arguments, *fds])],
            stdin=subprocess.DEVNULL,
            stdout=None if self._stdout_part >= 0 else subprocess.DEVNULL,
            pass_fds=[self._memory_fd, *(fd for fd in fds if fd > 2)],
        )

    # -- the middle ---------------------------------------------------------------------------------------------

    @property
    def done(self) -> int:
        """Batches done; rises as long as there is progress."""
        return 0 if self._desk is None else self._desk.done

    @property
    def lost(self) -> int:
        """Records overwritten before a worker had read them."""
        return 0 if self._desk is None else self._desk.lost

    def counts(self, part: int) -> tuple[int, int, int, int]:
        """(lines, bytes, lines dropped, errno or 0) of a text sink."""
        return (0, 0, 0, 0) if self._desk is None else self._desk.counts(part)

    def close_part(self, part: int) -> None:
        """Nothing more is written there."""
        if self._desk is not None:
            self._desk.close_part(part)

    def tick(self) -> None:
        """Replace who has died. Raises RingError if that does not help."""
        for worker in self._workers:
            if worker.process is not None and (code := worker.process.poll()) is not None:
                self._replace(worker, worker.process.pid, code)
        now = time.monotonic()
        if self.lost > self._lost_said and now >= self._next_say:
            self._next_say = now + SAY_S
            self._say(
                f"{self._ring}: workers were lapped, {self.lost - self._lost_said} records are not in the text; give "
                "lob-book a larger --ring-bytes, or more --workers"
            )
            self._lost_said = self.lost

    def _replace(self, worker: Worker, pid: int, code: int) -> None:
        assert self._desk is not None
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        now, done = time.monotonic(), self._desk.batches(worker.number)
        worker.deaths = [death for death in worker.deaths if death[0] > now - DEATHS_S and death[1] == done]
        worker.deaths.append((now, done))
        if len(worker.deaths) >= DEATHS_MAX:
            worker.process = None
            raise RingError(
                f"worker {worker.number} (pid {pid}) {how}, as {DEATHS_MAX - 1} before it within {DEATHS_S:.0f} s, "
                "with the same batch undone; start with fewer --workers, or without"
            )
        self._spawn(worker)
        assert worker.process is not None
        self._say(f"worker {worker.number} (pid {pid}) {how}; pid {worker.process.pid} goes on where it was")

    # -- the end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """They end when nothing is left; who is stuck is killed. Safe to call twice."""
        if self._desk is not None:
            self._desk.stop()
        deadline = time.monotonic() + END_S
        for worker in self._workers:
            process, worker.process = worker.process, None
            if process is None:
                continue
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._memory_fd >= 0:
            os.close(self._memory_fd)
            self._memory_fd = -1
