"""How the pages of a process's rings shall lie: huge, locked, on one NUMA node; and what of that was had.

All three are wishes: what this host cannot give is told in one line, and the ring is used as it is. The steps
themselves are native (`shared/native/pages.hpp`); what came of them is read from /proc, not believed.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lob import _native
from lob.names import SHM

THP = Path("/sys/kernel/mm/transparent_hugepage")
NODES = Path("/sys/devices/system/node")
HUGE_BYTES = 2 << 20
ATTEMPTS = 20  # where a page is in somebody's hands, who gathers them too or works in them
PAUSE_S = 0.01


@dataclass(frozen=True)
class RingMemory:
    """What a process wishes of the pages of its rings. `say` hears one line of each thing that cannot be had."""

    huge: bool = False
    lock: bool = False
    node: int | None = None
    say: Callable[[str], None] = lambda sentence: None
    _said: set[str] = field(default_factory=set)  # causes that are the process's, not a ring's

    def choose_node(self, fd: int, name: str, size_bytes: int) -> None:
        """For a file whose pages have not been taken yet."""
        if self.node is not None and (error := _native.bind_file(fd, size_bytes, self.node)):
            self._say_once(f"--numa: {name} takes its pages where they come", why_no_node(error))

    def move_to_node(self, segment: _native.Segment, name: str) -> None:
        """For a ring that was there before us: what it has moves, as far as nobody else has it mapped."""
        if self.node is None:
            return
        error = segment.bind(self.node)
        if error and error != errno.EIO:
            self._say_once(f"--numa: {name} keeps its pages where they are", why_no_node(error))

    def arrange(self, segment: _native.Segment, name: str, *, ours: bool) -> dict[str, Any]:
        """Huge and locked, in our own mapping of it; `ours`: a ring that we write, so its node is our business too.

        Returns what was had of what was wished: {"huge_bytes", "locked_bytes", "node_bytes"}; {} without a wish.
        """
        had: dict[str, Any] = {}
        if self.huge:
            had["huge_bytes"] = self._make_huge(segment, name)
        if self.lock:
            had["locked_bytes"] = self._lock(segment, name)
        if ours and self.node is not None:
            had["node_bytes"] = self._look_at_node(segment, name)
        return had

    def _make_huge(self, segment: _native.Segment, name: str) -> int:
        for _ in range(ATTEMPTS):
            error = segment.make_huge()
            if error != errno.EAGAIN:
                break
            time.sleep(PAUSE_S)
        # Also if it says that it could not: a mount with huge=always has given them already.
        huge_bytes = mapped(segment)["huge_bytes"]
        if huge_bytes < segment.size_bytes:
            much = f"{mib(huge_bytes)} of {mib(segment.size_bytes)} in huge pages"
            self._say_once(f"--huge: {name} has {much}", why_not_huge(error))
        return huge_bytes

    def _lock(self, segment: _native.Segment, name: str) -> int:
        before = int(_of_status("VmLck") or 0) << 10
        error = segment.lock()
        locked_bytes = mapped(segment)["locked_bytes"]
        if locked_bytes < segment.size_bytes:
            limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
            why = os.strerror(error) if error else f"{mib(locked_bytes)} are"
            self.say(
                f"--mlock: {name} is not locked ({why}): it needs {mib(segment.size_bytes)}, "
                f"{mib(before)} are locked already and the limit is {mib(limit)}; raise it (LimitMEMLOCK= of the unit, "
                "ulimit -l) or give CAP_IPC_LOCK (AmbientCapabilities= of the unit)"
            )
        return locked_bytes

    def _look_at_node(self, segment: _native.Segment, name: str) -> int:
        nodes = node_bytes(segment)
        there = min(nodes.get(self.node or 0, 0), segment.size_bytes)  # a huge page at the end counts beyond it
        if elsewhere := {node: count for node, count in nodes.items() if node != self.node and count}:
            where = ", ".join(f"{mib(count)} on node {node}" for node, count in sorted(elsewhere.items()))
            self.say(
                f"--numa: {name} has {where}, where somebody has them mapped; "
                "stop its readers and remove it with lob-trace clean, and it is made anew"
            )
        return there

    def _say_once(self, what: str, why: str) -> None:
        if why not in self._said:
            self._said.add(why)
            self.say(f"{what}: {why}")


AS_IT_COMES = RingMemory()


def mib(size_bytes: int) -> str:
    return "no limit" if size_bytes == resource.RLIM_INFINITY else f"{size_bytes / (1 << 20):.1f} MiB"


# -- what was had -----------------------------------------------------------------------------------------------------


def mapped(segment: _native.Segment) -> dict[str, int]:
    """How our mapping of a segment lies, by /proc/self/smaps: {"huge_bytes", "locked_bytes"}, within the segment."""
    first, end = segment.address, segment.address + segment.size_bytes
    huge = locked = 0
    within = resident = 0
    for line in _lines(Path("/proc/self/smaps")):
        if area := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            within = max(0, min(end, int(area[2], 16)) - max(first, int(area[1], 16)))
        elif within and (size := re.match(r"(Rss|ShmemPmdMapped): +(\d+) kB", line)):
            if size[1] == "Rss":
                resident = int(size[2]) << 10
            else:
                huge += min(within, int(size[2]) << 10)
        elif within and line.startswith("VmFlags:") and "lo" in line.split():
            locked += min(within, resident)
    return {"huge_bytes": huge, "locked_bytes": locked}


def node_bytes(segment: _native.Segment) -> dict[int, int]:
    """NUMA node -> bytes of our mapping of a segment that lie there, by /proc/self/numa_maps; {} if nobody can say."""
    first, end = segment.address, segment.address + segment.size_bytes
    nodes: dict[int, int] = {}
    for line in _lines(Path("/proc/self/numa_maps")):
        if first <= int(line.split(" ", 1)[0], 16) < end:
            for node, pages in re.findall(r" N(\d+)=(\d+)", line):
                nodes[int(node)] = nodes.get(int(node), 0) + int(pages) * os.sysconf("SC_PAGE_SIZE")
    return nodes


def nodes_with_memory() -> set[int] | None:
    """The NUMA nodes of this host that have memory; None if the kernel knows no nodes."""
    nodes: set[int] = set()
    lines = _lines(NODES / "has_memory")
    for part in lines[0].split(",") if lines else []:
        first, _, last = part.partition("-")
        nodes |= set(range(int(first), int(last or first) + 1))
    return nodes or None


# -- why it was not had -----------------------------------------------------------------------------------------------


def why_not_huge(error: int) -> str:
    """Why MADV_COLLAPSE failed with `error`, or did not do it all (0), and what to do."""
    if not THP.exists():
        return "this kernel has no transparent huge pages (CONFIG_TRANSPARENT_HUGEPAGE)"
    if "[deny]" in "".join(_lines(THP / "shmem_enabled")):
        return f"{THP}/shmem_enabled says deny; write advise into it"
    if _of_status("THP_enabled") == "0":
        return "they are switched off for this process (PR_SET_THP_DISABLE); start it from one where they are not"
    room = os.statvfs(SHM)
    if room.f_bavail * room.f_frsize < HUGE_BYTES:
        return f"{SHM} has no room for another huge page; enlarge it or give a smaller --ring-bytes"
    if error == errno.EINVAL:
        return (
            f"Linux {os.uname().release} cannot gather them (6.1 and later can, built with CONFIG_SHMEM); "
            "mount -o remount,huge=always /dev/shm, or do without"
        )
    if error == errno.ENOMEM:
        return "too little free memory in pieces of 2 MiB; echo 1 > /proc/sys/vm/compact_memory and start again"
    if error == errno.EBUSY:
        return "the memory limit of this cgroup is reached; raise it (MemoryMax= of the unit)"
    return "others hold some of its pages at this moment; give --huge to the stage that makes it, or start again"


def why_no_node(error: int) -> str:
    """Why mbind failed with `error`, and what to do."""
    if error == errno.ENOSYS:
        return "this kernel has no NUMA policies (CONFIG_NUMA); do without"
    if error == errno.EPERM:
        return "mbind is forbidden here, as by the seccomp filter of a container; give it CAP_SYS_NICE"
    if error == errno.EINVAL:
        allowed = _of_status("Mems_allowed_list")
        return f"this process may only have the nodes {allowed}; widen its cpuset (AllowedMemoryNodes= of the unit)"
    return os.strerror(error)


def _of_status(key: str) -> str:
    """What /proc/self/status says under a key, its unit left out."""
    lines = (line.partition(":") for line in _lines(Path("/proc/self/status")))
    return next((said.split()[0] for name, _, said in lines if name == key), "")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
