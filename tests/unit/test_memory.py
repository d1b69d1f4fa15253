"""How the pages of rings lie: huge, locked, on a node where this host can; one line and the same ring where it cannot.

Other processes make what a host may lack: one without transparent huge pages, one whose kernel answers a system call
as another would (a seccomp filter), one with a limit on locked memory.
"""

from __future__ import annotations

import errno
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lob import _native, memory
from lob.manifest import read_manifest
from lob.memory import RingMemory, mapped, node_bytes, nodes_with_memory
from lob.names import shm_path
from lob.rings import InputRing, OutputRing
from lob.segments import Kind, RingState, open_segment
from processes.peer import Peer, in_own_shm, peers, read_all, record

HUGE = 2 << 20
CAPACITY = 4 << 20

kernel = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
can_be_huge = pytest.mark.skipif(
    kernel < (6, 1) or not memory.THP.exists() or "[deny]" in (memory.THP / "shmem_enabled").read_text(),
    reason=f"Linux {platform.release()} as it is set up here gathers no huge pages of shared memory",
)
can_lock = pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="the address sanitizer makes mlock do nothing"
)
has_nodes = pytest.mark.skipif(nodes_with_memory() is None, reason="this kernel knows no NUMA nodes")


def wishes(**what: object) -> tuple[RingMemory, list[str]]:
    said: list[str] = []
    return RingMemory(**what, say=said.append), said  # type: ignore[arg-type]


def write_and_read(ring: OutputRing, name: str) -> None:
    """A few laps of the ring, every record looked at."""
    reader = InputRing(name, "test")
    for lap in range(30):
        texts = [b"%d-%d" % (lap, n) + bytes(1000) for n in range(200)]
        assert all(ring.writer.write(record(text)) for text in texts)
        assert [one.text for one in read_all(reader.reader)] == texts
    reader.close()


# -- mappings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [4096, 1 << 19, 1 << 20, 1 << 21, 1 << 23])
@pytest.mark.parametrize("writable", [False, True])
def test_every_mapping_begins_where_a_huge_page_may_and_holds_its_last_one(
    name: str, capacity: int, writable: bool
) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=capacity)
    segments = [ring.segment, *(open_segment(name, writable=writable) for _ in range(3))]
    for segment in segments:
        assert segment.address % HUGE == 0 and segment.size_bytes == shm_path(name).stat().st_size
        (area,) = [
            (int(first, 16), int(end, 16))
            for first, end in re.findall(r"(?m)^([0-9a-f]+)-([0-9a-f]+) ", Path("/proc/self/maps").read_text())
            if int(first, 16) <= segment.address < int(end, 16)
        ]
        assert area[0] <= segment.address and area[1] >= segment.address + -(-segment.size_bytes // HUGE) * HUGE


def test_a_mapping_leaves_nothing_behind(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY)
    open_segment(name, writable=False)
    before = Path("/proc/self/maps").read_text().count(name)
    for _ in range(50):
        open_segment(name, writable=True)
    assert Path("/proc/self/maps").read_text().count(name) == before
    ring.close(RingState.CLOSED, remove=True)


def test_without_a_wish_pages_come_as_they_come_and_the_manifest_says_nothing(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY, manifest={"venue": "v"})
    assert mapped(ring.segment)["locked_bytes"] == 0
    assert read_manifest(ring.segment) == {"venue": "v"}


# -- huge -------------------------------------------------------------------------------------------------------------


@can_be_huge
@pytest.mark.parametrize("capacity", [4096, CAPACITY])  # with a last page of which the segment fills a little, or half
def test_a_ring_of_huge_pages_has_them_for_whoever_attaches(name: str, capacity: int) -> None:
    wish, said = wishes(huge=True)
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=capacity, memory=wish)
    size = ring.segment.size_bytes
    assert said == [] and mapped(ring.segment) == {"huge_bytes": size, "locked_bytes": 0}
    assert read_manifest(ring.segment)["memory"] == {"huge_bytes": size}
    assert shm_path(name).stat().st_blocks * 512 == -(-size // HUGE) * HUGE
    with peers(1) as (reader,):
        reader.do(f"ring = InputRing({name!r}, 'test')")  # without a wish of its own
        assert reader.do("mapped(ring.segment)['huge_bytes']") == size
    if capacity == CAPACITY:
        write_and_read(ring, name)
        assert mapped(ring.segment)["huge_bytes"] == size


@can_be_huge
def test_a_reader_makes_the_pages_of_a_writer_at_work_huge_and_not_a_byte_is_lost(name: str) -> None:
    writes = (
        f"ring = OutputRing({name!r}, Kind.SPSC, capacity_bytes={CAPACITY})\n"
        "def work(count):\n"
        "    done = 0\n"
        "    while done < count:\n"
        "        if ring.writer.write(record(b'%d' % done + bytes(500))): done += 1\n"
        "        else: time.sleep(0.0001)\n"
    )
    with peers(1) as (writer,):
        writer.do(writes)
        ring = InputRing(name, "test")
        writer.start("work(30000)")
        wish, said = wishes(huge=True)
        seen: list[bytes] = []
        while len(seen) < 30000:
            seen += [one.text.rstrip(b"\0") for one in read_all(ring.reader)]
            if len(seen) > 5000 and not mapped(ring.segment)["huge_bytes"]:
                wish.arrange(ring.segment, name, ours=False)
        writer.answer()
        assert seen == [b"%d" % n for n in range(30000)]
        assert said == [] and mapped(ring.segment)["huge_bytes"] == ring.segment.size_bytes
        writer.do("work(1)")
        assert writer.do("mapped(ring.segment)['huge_bytes']") >= HUGE  # what it has touched again


@can_lock
@can_be_huge
def test_a_successor_gets_for_a_ring_that_was_there_what_it_wishes_and_says_only_what_it_had(name: str) -> None:
    OutputRing(name, Kind.BROADCAST, capacity_bytes=CAPACITY, keep=True).close(RingState.PAUSED, remove=False)
    wish, said = wishes(huge=True, lock=True)
    second = OutputRing(name, Kind.BROADCAST, capacity_bytes=CAPACITY, keep=True, memory=wish)
    size = second.segment.size_bytes
    assert said == [] and read_manifest(second.segment)["memory"] == {"huge_bytes": size, "locked_bytes": size}
    before = read_manifest(second.segment)
    second.close(RingState.PAUSED, remove=False)
    third = OutputRing(name, Kind.BROADCAST, capacity_bytes=CAPACITY, keep=True, manifest=before)
    assert "memory" not in read_manifest(third.segment)


def crippled(peer: Peer, how: str) -> None:
    """Take something from a process, for good."""
    peer.do("import ctypes, os, resource, struct; libc = ctypes.CDLL(None, use_errno=True); said = []")
    peer.do(how)
    peer.do("from lob.memory import RingMemory, mapped, node_bytes")


def make_two(name: str, wish: str) -> str:
    """Two rings with the same wish."""
    return (
        f"wish = RingMemory({wish}, say=said.append)\n"
        f"one = OutputRing({name!r}, Kind.SPSC, capacity_bytes={CAPACITY}, memory=wish)\n"
        f"two = OutputRing({name.replace('raw', 'events')!r}, Kind.SPSC, capacity_bytes={CAPACITY}, memory=wish)\n"
        "assert all(ring.writer.write(record(b'x')) for ring in (one, two))\n"
    )


def answers(call: int, argument: int, value: int, error: int) -> str:
    """Program for a process whose kernel answers a system call with `error` where an argument has this value."""
    arch = 0xC000003E
    code = [
        (0x20, 0, 0, 4), (0x15, 0, 5, arch),  # another architecture: as it is
        (0x20, 0, 0, 0), (0x15, 0, 3, call),
        (0x20, 0, 0, 16 + 8 * argument), (0x15, 0, 1, value),
        (0x06, 0, 0, 0x00050000 | error),
        (0x06, 0, 0, 0x7FFF0000),
    ]  # fmt: skip
    return (
        f"code = b''.join(struct.pack('HBBI', *one) for one in {code!r})\n"
        "held = ctypes.create_string_buffer(code, len(code))\n"
        f"program = struct.pack('HxxxxxxP', {len(code)}, ctypes.addressof(held))\n"
        "assert libc.prctl(38, 1, 0, 0, 0) == 0\n"  # PR_SET_NO_NEW_PRIVS
        "assert libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()\n"  # PR_SET_SECCOMP, a filter
    )


NO_THP = "assert libc.prctl(41, 1, 0, 0, 0) == 0"  # PR_SET_THP_DISABLE
MADVISE, MBIND = 28, 237
x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter's numbers are those of x86-64")


@pytest.mark.skipif(not memory.THP.exists(), reason="this kernel has no huge pages to be without")
def test_without_huge_pages_there_is_one_line_for_all_rings_and_the_rings(name: str) -> None:
    with peers(1) as (peer,):
        crippled(peer, NO_THP)
        peer.do(make_two(name, "huge=True"))
        (line,) = peer.do("said")
        if "[deny]" not in (memory.THP / "shmem_enabled").read_text():
            assert re.fullmatch(
                rf"--huge: {name} has 0\.0 MiB of 5\.0 MiB in huge pages: they are switched off for this process "
                r"\(PR_SET_THP_DISABLE\); start it from one where they are not",
                line,
            )
        assert peer.do("mapped(one.segment)['huge_bytes']") == 0
        reader = InputRing(name, "test")
        assert [one.text for one in read_all(reader.reader)] == [b"x"]
        assert read_manifest(reader.segment)["memory"] == {"huge_bytes": 0}


@x86_64
@can_be_huge
@pytest.mark.parametrize(
    ("error", "what_to_do"),
    [
        (errno.EINVAL, "cannot gather them (6.1 and later can, built with CONFIG_SHMEM); mount -o remount,huge=always"),
        (errno.ENOMEM, "too little free memory in pieces of 2 MiB; echo 1 > /proc/sys/vm/compact_memory"),
        (errno.EBUSY, "the memory limit of this cgroup is reached; raise it (MemoryMax= of the unit)"),
        (errno.EAGAIN, "others hold some of its pages at this moment; give --huge to the stage that makes it"),
    ],
)
def test_a_kernel_that_cannot_or_will_not_is_told_with_what_to_do(name: str, error: int, what_to_do: str) -> None:
    with peers(1) as (peer,):
        crippled(peer, answers(MADVISE, 2, 25, error))
        peer.do(make_two(name, "huge=True"))
        (line,) = peer.do("said")
        assert line.startswith(f"--huge: {name} has 0.0 MiB of 5.0 MiB in huge pages: ") and what_to_do in line


@can_be_huge
@pytest.mark.skipif(os.getuid() != 0, reason="needs root for a mount namespace of its own")
def test_a_shm_that_holds_the_ring_and_not_its_last_huge_page_is_told(name: str) -> None:
    program = (
        "from lob.memory import RingMemory, mapped\n"
        "from lob.rings import OutputRing\n"
        "from lob.segments import Kind\n"
        f"ring = OutputRing({name!r}, Kind.SPSC, capacity_bytes={CAPACITY}, memory=RingMemory(huge=True, say=print))\n"
        "print(mapped(ring.segment)['huge_bytes'])\n"
    )
    run = in_own_shm("5500k", program)
    assert run.stderr == ""
    assert run.stdout.splitlines() == [
        f"--huge: {name} has 4.0 MiB of 5.0 MiB in huge pages: /dev/shm has no room for another huge page; "
        "enlarge it or give a smaller --ring-bytes",
        str(4 << 20),
    ]


# -- locked -----------------------------------------------------------------------------------------------------------


@can_lock
@pytest.mark.parametrize("huge", [False, pytest.param(True, marks=can_be_huge)])
def test_a_small_ring_is_locked_by_its_writer_and_by_its_reader(name: str, huge: bool) -> None:
    wish, said = wishes(huge=huge, lock=True)
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=4096, memory=wish)
    reader = InputRing(name, "test", wish)
    for segment in (ring.segment, reader.segment):
        had = mapped(segment)
        assert had["locked_bytes"] == segment.size_bytes
        assert had["huge_bytes"] == (segment.size_bytes if huge else 0)  # a lock does not split what is huge
    assert said == []
    assert read_manifest(ring.segment)["memory"]["locked_bytes"] == ring.segment.size_bytes


@can_lock
def test_a_ring_above_the_limit_is_one_line_with_limit_and_need_and_is_not_locked(name: str) -> None:
    limited = "resource.setrlimit(resource.RLIMIT_MEMLOCK, (2 << 20, 2 << 20))"
    with peers(1) as (peer,):
        crippled(peer, limited)
        if os.getuid() == 0:
            peer.do("os.setgroups([]); os.setgid(65534); os.setuid(65534)")  # root may lock what it likes
        peer.do(
            "wish = RingMemory(lock=True, say=said.append)\n"
            f"one = OutputRing({name.replace('raw', 'events')!r}, Kind.SPSC, capacity_bytes=4096, memory=wish)\n"
            f"two = OutputRing({name!r}, Kind.SPSC, capacity_bytes={CAPACITY}, memory=wish)\n"
            "assert two.writer.write(record(b'x'))\n"
        )
        assert peer.do("mapped(one.segment)['locked_bytes'] == one.segment.size_bytes")
        (line,) = peer.do("said")
        assert re.fullmatch(
            rf"--mlock: {name} is not locked \(Cannot allocate memory\): it needs 5\.0 MiB, "
            r"1\.0 MiB are locked already and the limit is 2\.0 MiB; "
            r"raise it \(LimitMEMLOCK= of the unit, ulimit -l\) or give CAP_IPC_LOCK .*",
            line,
        )
        assert peer.do("mapped(two.segment)['locked_bytes']") == 0
        assert peer.do("two._memory") == {"locked_bytes": 0}


# -- on a node --------------------------------------------------------------------------------------------------------


def policies(name: str, pid: int | str = "self") -> list[str]:
    """The NUMA policy of each mapping of a ring, as a process's kernel tells it."""
    lines = Path(f"/proc/{pid}/numa_maps").read_text().splitlines()
    return [line.split()[1] for line in lines if name[1:] in line]  # its maker knows it by its hidden name


@has_nodes
def test_a_rings_pages_come_from_the_node_that_was_asked_for(name: str) -> None:
    node = min(nodes_with_memory() or {0})
    wish, said = wishes(node=node)
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY, memory=wish)
    size = ring.segment.size_bytes
    assert said == [] and node_bytes(ring.segment) == {node: -(-size // 4096) * 4096}
    assert read_manifest(ring.segment)["memory"] == {"node_bytes": size}
    with peers(1) as (reader,):  # the policy is the file's: whoever maps it has it
        reader.do(f"ring = InputRing({name!r}, 'test')")
        assert policies(name, reader.pid) == [f"bind:{node}"] == policies(name)


@has_nodes
def test_a_ring_that_was_there_moves_to_the_node_and_a_reader_moves_nothing(name: str) -> None:
    node = min(nodes_with_memory() or {0})
    OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY, keep=True).close(RingState.PAUSED, remove=False)
    wish, said = wishes(node=node)
    reader = InputRing(name, "test", wish)
    assert policies(name) == ["default"] and said == []
    reader.close()
    second = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY, keep=True, memory=wish)
    assert said == [] and set(node_bytes(second.segment)) == {node}
    assert f"bind:{node}" in policies(name)


@has_nodes
def test_a_node_that_the_kernel_refuses_is_one_line_and_pages_come_as_they_come(name: str) -> None:
    wish, said = wishes(node=max(nodes_with_memory() or {0}) + 1)
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY, memory=wish)
    assert said[0].startswith(f"--numa: {name} takes its pages where they come: this process may only have the nodes ")
    assert policies(name) == ["default"] and ring.writer.write(record(b"x"))


@x86_64
@pytest.mark.parametrize(
    ("error", "why"),
    [
        (errno.ENOSYS, "this kernel has no NUMA policies (CONFIG_NUMA); do without"),
        (errno.EPERM, "mbind is forbidden here, as by the seccomp filter of a container; give it CAP_SYS_NICE"),
    ],
)
def test_a_kernel_without_numa_or_a_container_that_forbids_it_is_one_line(name: str, error: int, why: str) -> None:
    with peers(1) as (peer,):
        crippled(peer, answers(MBIND, 2, 2, error))  # MPOL_BIND
        peer.do(make_two(name, "node=0"))
        assert peer.do("said") == [f"--numa: {name} takes its pages where they come: {why}"]


# -- the native part --------------------------------------------------------------------------------------------------


def test_the_native_steps_answer_with_errno_and_decide_nothing(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=4096)
    step: Callable[[int], int] = ring.segment.bind
    assert step(1 << 20) == errno.EINVAL  # more than any kernel knows
    assert _native.bind_file(-1, 4096, 0) == errno.EBADF
