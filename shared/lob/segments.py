"""Segments of shared memory by name: made whole, mapped and checked, unlinked.

What lies in a segment is written in `shared/native/segment.hpp`.
"""

from __future__ import annotations

import errno
import grp
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Literal, TypeAlias, TypeVar

import posix_ipc

from lob import _native
from lob.errors import ForeignOwner, NoRing, NoSpace, RingError, WrongLayout
from lob.memory import RingMemory
from lob.names import SHM, check_name, hidden_name, shm_path
from lob.roles import ROLES, WRITER_ROLE, Roles, lock_path

CAPACITY_MIN_BYTES = 4096
CAPACITY_MAX_BYTES = 1 << 36

Mapped = TypeVar("Mapped")
Policy: TypeAlias = Literal["wait", "drop"]
POLICIES: tuple[Policy, Policy] = ("wait", "drop")


class Kind(IntEnum):
    SPSC = 1
    BROADCAST = 2
    BOARD = 3


class RingState(IntEnum):
    OPEN = 0
    PAUSED = 1
    CLOSED = 2


def open_segment(name: str, writable: bool) -> _native.Segment:
    """Map a ring or board by name. Raises NoRing, WrongLayout, ForeignOwner."""
    return map_by_name(name, writable, _checked_segment)


def map_by_name(name: str, writable: bool, map_file: Callable[[int, bool], Mapped]) -> Mapped:
    """What `map_file` makes of the file (descriptor, writable) of this name; it says by LayoutError what is wrong.

    Raises NoRing, WrongLayout, ForeignOwner.
    """
    check_name(name)
    try:
        flags = os.O_RDWR if writable else os.O_RDONLY
        # O_NONBLOCK: a named pipe of that name must not hold us up.
        fd = os.open(shm_path(name), flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NoRing(name) from None
    except PermissionError:
        raise ForeignOwner(name) from None
    except OSError as error:
        raise RingError(f"{name}: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _native.LayoutError("is no shared memory")
        return map_file(fd, writable)
    except _native.LayoutError as error:
        raise WrongLayout(f"{name} {error}; remove it with lob-trace clean, or use the same release") from None
    finally:
        os.close(fd)


def _checked_segment(fd: int, writable: bool) -> _native.Segment:
    segment = _native.Segment(fd, writable)
    _check_positions(segment)
    return segment


def _check_positions(segment: _native.Segment) -> None:
    """What the header says about itself must hold together before anybody reads from there. Raises LayoutError.

    The writer may be at work: what does not fit is looked at again, and is wrong only if it stands still.
    """
    before = None
    for _ in range(100):
        try:
            facts = segment.facts()
        except UnicodeDecodeError:
            raise _native.LayoutError("has a reader's name that is no text") from None
        if facts["state"] not in iter(RingState):
            raise _native.LayoutError(f"is in no state we know ({facts['state']})")
        if facts["kind"] == int(Kind.BOARD):
            return
        room = facts["capacity_bytes"]
        first, latest, tail, intent = positions = [facts[k] for k in ("first_position", "latest", "tail", "intent")]
        read = [reader["position"] for reader in facts["readers"]]
        if facts["kind"] == int(Kind.SPSC):
            ordered = len(read) == 1 and first <= read[0] <= tail <= read[0] + room
        else:
            ordered = first <= latest <= tail <= intent
        if ordered and max(tail, intent) < 1 << 63 and all(position % 8 == 0 for position in (*positions, *read)):
            return
        if facts == before:
            break
        before = facts
    raise _native.LayoutError("has a header that contradicts itself")


def unlink(name: str) -> None:
    """Remove the name of a segment and its lock file; who has it mapped keeps it."""
    for remove in (lambda: posix_ipc.unlink_shared_memory(name), lock_path(name).unlink):
        try:
            remove()
        except (FileNotFoundError, posix_ipc.ExistentialError):
            pass


def unlink_left_behind(name: str) -> None:
    """Remove the name of a segment whose owner is dead, if it is there; its lock file stays. Raises ForeignOwner."""
    try:
        posix_ipc.unlink_shared_memory(name)
    except posix_ipc.ExistentialError:
        pass
    except posix_ipc.PermissionsError:
        raise ForeignOwner(name) from None


def unlink_if_idle(name: str) -> bool:
    """Unlink unless somebody holds a role; False then."""
    roles = Roles(name)
    try:
        if not roles.try_take(WRITER_ROLE, ROLES):
            return False
        unlink(name)
        return True
    finally:
        roles.close()


def wait_for_ring(name: str, timeout_s: float | None) -> Iterator[None]:
    """Yields (the caller sleeps a little and looks whether it should stop) until the ring exists.

    Raises NoRing after `timeout_s`; None waits for ever.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while not shm_path(name).exists():
        if deadline is not None and time.monotonic() > deadline:
            raise NoRing(name)
        yield


@contextmanager
def made_whole(name: str) -> Iterator[int]:
    """New shared memory (its descriptor) under a hidden name; linked to its own when the block has filled it."""
    hidden = hidden_name(name)
    memory = posix_ipc.SharedMemory(hidden, posix_ipc.O_CREX, mode=0o600)
    try:
        yield memory.fd
        os.link(shm_path(hidden), shm_path(name))
    finally:
        memory.close_fd()
        posix_ipc.unlink_shared_memory(hidden)


def make_segment(
    name: str,
    kind: Kind,
    policy: Policy,
    capacity_bytes: int,
    board: tuple[int, int],
    group: str | None,
    first: int,
    pages: RingMemory,
    complete: Callable[[_native.Segment], None],
) -> _native.Segment:
    """A new segment, made whole before it has its name; `complete` does what is left to do."""
    size_bytes = _native.segment_bytes(capacity_bytes)
    with made_whole(name) as fd:
        pages.choose_node(fd, name, size_bytes)  # before there are any
        try:
            os.posix_fallocate(fd, 0, size_bytes)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            usage = os.statvfs(SHM)
            raise NoSpace(
                f"{name} needs {size_bytes >> 20} MiB of shared memory and {SHM} has "
                f"{usage.f_bavail * usage.f_frsize >> 20} MiB free; enlarge {SHM} or give a smaller --ring-bytes"
            ) from None
        if group is not None:
            _give_group(fd, name, group)
        _native.format_segment(
            fd, int(kind), POLICIES.index(policy), capacity_bytes, secrets.randbits(63), *board, first
        )
        segment = _native.Segment(fd, True)
        complete(segment)
        return segment


def _give_group(fd: int, name: str, group: str) -> None:
    try:
        os.fchown(fd, -1, grp.getgrnam(group).gr_gid)
    except (KeyError, PermissionError):
        raise RingError(f"{name}: cannot give it to group '{group}': there is none, or we are not in it") from None
    os.fchmod(fd, 0o640)
