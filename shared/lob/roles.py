"""Who holds which role in a ring.

A role (the writer, one byte a reader slot, one byte a process that uses the request queue) is an OFD record lock on one
byte of a 0600 file beside the segment: the kernel frees it at any death, so liveness is the lock and never a pid.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path

from lob import _native
from lob.errors import ForeignOwner, RingError
from lob.names import SHM, hidden_name, shm_path

WRITER_ROLE = 0
READER_ROLE = 1  # + slot
ROLES = READER_ROLE + _native.READER_SLOTS
QUEUE_ROLE = _native.QUEUE_ROLE  # + owner number, 1 to OWNER_MAX; not among ROLES: it keeps no ring from being removed
assert ROLES <= QUEUE_ROLE


def lock_path(name: str) -> Path:
    return SHM / (name[1:] + ".lock")


class Roles:
    """Locks on the roles of one ring. Holds what it took until `close` or the end of the process."""

    _FLOCK = "hhqqi4x"  # l_type, l_whence, l_start, l_len, l_pid

    def __init__(self, name: str) -> None:
        self.name = name
        self._fd = self._open()

    def _open(self) -> int:
        try:
            return os.open(lock_path(self.name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except PermissionError:
            raise ForeignOwner(self.name) from None
        except OSError as error:
            raise RingError(f"{lock_path(self.name)}: {error.strerror}") from None

    def try_take(self, role: int, count: int = 1) -> bool:
        """Take a role (or `count` of them, all or none); False if somebody has it."""
        while True:
            if not _lock(self._fd, role, count):
                return False
            try:  # somebody may have unlinked the file between open and lock: then we locked nothing
                if lock_path(self.name).stat().st_ino == os.fstat(self._fd).st_ino:
                    return True
            except FileNotFoundError:
                pass
            os.close(self._fd)
            self._fd = self._open()

    def renew(self) -> None:
        """Put a new lock file in the old one's place, with the writer's role in it, for a segment made anew.

        Who still reads the segment of before holds its role in the old file: it sees that its writer is gone, and
        does not stand in the way of the new segment's readers. The caller holds the writer's role.
        """
        hidden = shm_path(hidden_name(self.name + ".lock"))
        fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _lock(fd, WRITER_ROLE, 1)
            hidden.rename(lock_path(self.name))
        except BaseException:
            os.close(fd)
            hidden.unlink(missing_ok=True)
            raise
        os.close(self._fd)
        self._fd = fd

    def if_free(self, role: int, act: Callable[[], None]) -> bool:
        """Call `act` while nobody else can take the role; False, and nothing is called, if somebody has it.

        Of the file that is open, whatever has its name now: who has other roles in it keeps them.
        """
        if not _lock(self._fd, role, 1):
            return False
        try:
            act()
        finally:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, struct.pack(self._FLOCK, fcntl.F_UNLCK, os.SEEK_SET, role, 1, 0))
        return True

    def held(self, role: int) -> bool:
        """Whether somebody else holds the role."""
        return _locked(self._fd, role, 1)

    def request_queue(self, segment: _native.Segment) -> _native.RequestQueue:
        """The ring's queue, to post into and to take from, under a number of ours that lasts as long as the roles.

        Once for an object: the kernel does not tell of two locks of one open file. Raises RingError.
        """
        for owner in range(1, _native.OWNER_MAX + 1):
            if _lock(self._fd, QUEUE_ROLE + owner, 1):  # in this file, whatever has its name now: it is the segment's
                return _native.RequestQueue(segment, self._fd, owner)
        raise RingError(f"{self.name}: {_native.OWNER_MAX} processes use its request queue already")

    def close(self) -> None:
        """Give back all roles."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _lock(fd: int, role: int, count: int) -> bool:
    request = struct.pack(Roles._FLOCK, fcntl.F_WRLCK, os.SEEK_SET, role, count, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _locked(fd: int, role: int, count: int) -> bool:
    request = struct.pack(Roles._FLOCK, fcntl.F_WRLCK, os.SEEK_SET, role, count, 0)
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, request)
    return bool(struct.unpack(Roles._FLOCK, answer)[0] != fcntl.F_UNLCK)


def role_held(name: str, role: int | None = None) -> bool:
    """Whether anybody holds the role (None: any role) of a ring, without leaving a trace. Raises ForeignOwner."""
    try:
        fd = os.open(lock_path(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except PermissionError:
        raise ForeignOwner(name) from None
    try:
        return _locked(fd, 0 if role is None else role, ROLES if role is None else 1)
    finally:
        os.close(fd)
