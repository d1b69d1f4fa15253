"""What a way of waiting needs of the cores, and what `auto` becomes by the place a stage has."""

from __future__ import annotations

import os
from collections.abc import Set

from lob.errors import RingError
from lob.names import list_rings
from lob.segments import open_segment

STAGES = 4  # connect, parse, book, publish: each waits for the one before


def spin_refusal(allowed: Set[int], online: int | None = None) -> str | None:
    """Why `spin` would harm with these cores (before --cpu took one of them); None: it would not.

    Who spins gives nothing up: with more stages than cores the one that has the message waits for a slice of the
    scheduler at every step (p50 of the chain: milliseconds instead of microseconds). Who was given a single core from
    outside is one of several that were: then the host's cores count.
    """
    cores = len(allowed) if len(allowed) > 1 else online or os.cpu_count() or 1
    if cores >= STAGES:
        return None
    return f"spin needs a core for each of the {STAGES} stages and there are {cores}; take auto or yield"


def stages_of(instance: str) -> set[int]:
    """Pids of those who write or read the rings of an instance, as the rings name them; not ours."""
    pids = set()
    for name in list_rings(instance):
        try:
            facts = open_segment(name, writable=False).facts()
        except RingError:
            continue
        pids |= {facts["writer_pid"], *(reader["pid"] for reader in facts["readers"])}
    return pids - {0, os.getpid()}


def way_of_waiting(others: Set[int]) -> str:
    """The native way for `auto`, beside stages of these pids.

    `auto-alone`: our only core is nobody else's: spin. `auto-brief`: a real-time process must not yield for long, the
    kernel would stop it for exceeding its share. Else `auto`: yield while records come often, then sleep.
    """
    if os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        return "auto-brief"
    ours = os.sched_getaffinity(0)
    if len(ours) > 1:
        return "auto"
    for pid in others:
        try:
            if ours & os.sched_getaffinity(pid):
                return "auto"
        except ProcessLookupError:
            continue
        except PermissionError:
            return "auto"
    return "auto-alone" if others else "auto"
