"""A worker of --workers: started by lob_publish.workers, told by arguments what it works on."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

from lob import _native
from lob.errors import RingError
from lob.options import say
from lob.segments import open_segment
from lob_publish._native import Worker

TURN_MS = 1000


def main(arguments: list[str]) -> int:
    ring, number, memory_fd, parent_pid, wait, stdout_part, cores, *fds = arguments
    for signal_ in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # our parent tells us when to end
        signal.signal(signal_, signal.SIG_IGN)
    os.sched_setaffinity(0, set(map(int, cores.split(","))))
    worker = Worker(int(memory_fd), int(number), open_segment(ring, writable=True), [*map(int, fds)], int(stdout_part))
    if os.getppid() != int(parent_pid):  # it ended before the kernel knew that we want to go with it
        return 0
    while (turn := worker.run(wait, TURN_MS)) != "stop":
        if turn == "ring":
            with suppress(RingError):
                worker.set_ring(open_segment(ring, writable=True))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (RingError, _native.CorruptRing, _native.LayoutError, RuntimeError, ValueError) as error:
        say("lob-publish", f"worker {sys.argv[2]}: {error}")
        sys.exit(1)
