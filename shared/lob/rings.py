"""Rings by name: making, taking over, attaching, unlinking; who holds which role.

A ring `/lob.<instance>.<what>` is a segment of shared memory and, beside it, a 0600 lock file. A role (the writer,
one byte a reader slot) is an OFD record lock on one byte of that file: the kernel frees it at any death, so liveness
is the lock and never a pid. What lies in a segment is written in `shared/native/segment.hpp`.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import re
import secrets
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import orjson
import posix_ipc

from lob import _native
from lob.records import Reason, RequestKind

SHM = Path("/dev/shm")
NAME = re.compile(r"/lob\.(?P<instance>[A-Za-z0-9_-]{1,64})\.(?P<what>[a-z0-9-]{1,32})")
TRACE = "trace-"  # begins the WHAT of what is no ring: lob.trace
CAPACITY_MIN_BYTES = 4096
CAPACITY_MAX_BYTES = 1 << 36
HEARTBEAT_S = 0.1
SILENT_NS = 500_000_000  # a writer without a sign of life for so long is silent: half of the second we promise
WRITER_ROLE = 0
READER_ROLE = 1  # + slot
ROLES = READER_ROLE + _native.READER_SLOTS

Policy: TypeAlias = Literal["wait", "drop"]
POLICIES: tuple[Policy, Policy] = ("wait", "drop")
Writer: TypeAlias = "_native.SpscWriter | _native.BroadcastWriter"


class Kind(IntEnum):
    SPSC = 1
    BROADCAST = 2
    BOARD = 3


class RingState(IntEnum):
    OPEN = 0
    PAUSED = 1
    CLOSED = 2


class RingError(Exception):
    """Trouble with a ring, in one sentence."""


class NoRing(RingError):
    """No ring of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no ring named {name}; is the stage before running?")
        self.name = name


class WrongLayout(RingError):
    """A segment of another layout, cut short, or garbage."""


class RoleTaken(RingError):
    """Somebody alive holds the role."""

    def __init__(self, name: str, role: str, pid: int) -> None:
        who = f" (pid {pid})" if pid else ""  # 0: it holds the role and has no segment yet
        super().__init__(f"{name} has a live {role}{who}; stop it, or choose another --instance")
        self.name, self.pid = name, pid


class ForeignOwner(RingError):
    """The ring belongs to another user, who has not let us in."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} belongs to another user; run as that user, or choose another --instance")
        self.name = name


class NoSpace(RingError):
    """Shared memory is full."""


def ring_name(instance: str, what: str) -> str:
    """`/lob.<instance>.<what>`, checked. Raises ValueError."""
    return check_name(f"/lob.{instance}.{what}")


def check_name(name: str) -> str:
    """The name itself if it may be one. Raises ValueError."""
    if not NAME.fullmatch(name):
        raise ValueError(f"'{name}' is no ring name: /lob.INSTANCE.WHAT of letters, digits, _ and -")
    return name


def instance_of(name: str) -> str:
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"'{name}' is no ring name")
    return match["instance"]


def _path(name: str) -> Path:
    return SHM / name[1:]


def _lock_path(name: str) -> Path:
    return SHM / (name[1:] + ".lock")


class Roles:
    """Locks on the roles of one ring. Holds what it took until `close` or the end of the process."""

    _FLOCK = "hhqqi4x"  # l_type, l_whence, l_start, l_len, l_pid

    def __init__(self, name: str) -> None:
        self.name = name
        self._fd = self._open()

    def _open(self) -> int:
        try:
            return os.open(_lock_path(self.name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except PermissionError:
            raise ForeignOwner(self.name) from None
        except OSError as error:
            raise RingError(f"{_lock_path(self.name)}: {error.strerror}") from None

    def try_take(self, role: int, count: int = 1) -> bool:
        """Take a role (or `count` of them, all or none); False if somebody has it."""
        while True:
            if not _lock(self._fd, role, count):
                return False
            try:  # somebody may have unlinked the file between open and lock: then we locked nothing
                if _lock_path(self.name).stat().st_ino == os.fstat(self._fd).st_ino:
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
        hidden = SHM / hidden_name(self.name + ".lock")[1:]
        fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _lock(fd, WRITER_ROLE, 1)
            hidden.rename(_lock_path(self.name))
        except BaseException:
            os.close(fd)
            hidden.unlink(missing_ok=True)
            raise
        os.close(self._fd)
        self._fd = fd

    def held(self, role: int) -> bool:
        """Whether somebody else holds the role."""
        return _locked(self._fd, role, 1)

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
        fd = os.open(_lock_path(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except PermissionError:
        raise ForeignOwner(name) from None
    try:
        return _locked(fd, 0 if role is None else role, ROLES if role is None else 1)
    finally:
        os.close(fd)


def list_rings(instance: str | None = None) -> list[str]:
    """Names of all rings and boards on this host, sorted."""
    names = ("/" + entry.name for entry in SHM.glob("lob.*") if not entry.name.endswith(".lock"))
    matches = filter(None, map(NAME.fullmatch, names))
    ours = (m for m in matches if not m["what"].startswith(TRACE) and instance in (None, m["instance"]))
    return sorted(m[0] for m in ours)


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


def open_segment(name: str, writable: bool) -> _native.Segment:
    """Map a segment by name. Raises NoRing or WrongLayout."""
    check_name(name)
    try:
        flags = os.O_RDWR if writable else os.O_RDONLY
        # O_NONBLOCK: a named pipe of that name must not hold us up.
        fd = os.open(_path(name), flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NoRing(name) from None
    except PermissionError:
        raise ForeignOwner(name) from None
    except OSError as error:
        raise RingError(f"{name}: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _native.LayoutError("is no shared memory")
        segment = _native.Segment(fd, writable)
        _check_positions(segment)
    except _native.LayoutError as error:
        raise WrongLayout(f"{name} {error}; remove it with lob-trace clean, or use the same release") from None
    finally:
        os.close(fd)
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
    for remove in (lambda: posix_ipc.unlink_shared_memory(name), _lock_path(name).unlink):
        try:
            remove()
        except (FileNotFoundError, posix_ipc.ExistentialError):
            pass


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


def hidden_name(name: str) -> str:
    """A name that nobody lists, for what is not whole yet; `lob-trace clean` finds it if its maker dies."""
    return f"/.{name[1:]}.{os.getpid()}.{secrets.token_hex(4)}"


def _make(
    name: str, kind: Kind, policy: Policy, capacity_bytes: int, board: tuple[int, int], group: str | None, first: int
) -> _native.Segment:
    """A new segment, made whole under a hidden name and then linked to its own."""
    size_bytes = _native.segment_bytes(capacity_bytes)
    hidden = hidden_name(name)
    memory = posix_ipc.SharedMemory(hidden, posix_ipc.O_CREX, mode=0o600)
    try:
        try:
            os.posix_fallocate(memory.fd, 0, size_bytes)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            usage = os.statvfs(SHM)
            raise NoSpace(
                f"{name} needs {size_bytes >> 20} MiB of shared memory and {SHM} has "
                f"{usage.f_bavail * usage.f_frsize >> 20} MiB free; enlarge {SHM} or give a smaller --ring-bytes"
            ) from None
        if group is not None:
            _give_group(memory.fd, name, group)
        _native.format_segment(
            memory.fd, int(kind), POLICIES.index(policy), capacity_bytes, secrets.randbits(63), *board, first
        )
        segment = _native.Segment(memory.fd, True)
        os.link(SHM / hidden[1:], _path(name))
        return segment
    finally:
        memory.close_fd()
        posix_ipc.unlink_shared_memory(hidden)


def _give_group(fd: int, name: str, group: str) -> None:
    try:
        os.fchown(fd, -1, grp.getgrnam(group).gr_gid)
    except (KeyError, PermissionError):
        raise RingError(f"{name}: cannot give it to group '{group}': there is none, or we are not in it") from None
    os.fchmod(fd, 0o640)


class OutputRing:
    """A ring or board that this process owns.

    `taken_over` tells whether it had another owner before; its manifest of then is `inherited`.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        *,
        policy: Policy = "drop",
        capacity_bytes: int = 1 << 20,
        manifest: dict[str, Any] | None = None,
        keep: bool = False,
        group: str | None = None,
        board_slots: int = 0,
        board_depth: int = 0,
        first_position: int = 0,
    ) -> None:
        """`keep`: a named ring: take over what is there; else whatever a dead owner left is unlinked first.

        Raises RoleTaken, WrongLayout, NoSpace; ValueError for a name or size that cannot be.
        """
        self.name = check_name(name)
        self.kind = kind
        if kind is Kind.BOARD:
            capacity_bytes = _native.board_capacity_bytes(board_slots, board_depth)
        elif not CAPACITY_MIN_BYTES <= capacity_bytes <= CAPACITY_MAX_BYTES or capacity_bytes & (capacity_bytes - 1):
            raise ValueError(f"a ring of {capacity_bytes} bytes: give a power of two from 4 KiB to 64 GiB")
        self._roles = Roles(name)
        if not self._roles.try_take(WRITER_ROLE):
            self._roles.close()
            raise RoleTaken(name, "owner", _owner_pid(name))
        self.inherited: dict[str, Any] = {}
        self.taken_over = False
        try:
            segment = self._existing(manifest or {}, policy) if keep else None
            if segment is None:
                try:
                    posix_ipc.unlink_shared_memory(name)
                except posix_ipc.ExistentialError:
                    pass
                except posix_ipc.PermissionsError:
                    raise ForeignOwner(name) from None
                self._roles.renew()
                segment = _make(name, kind, policy, capacity_bytes, (board_slots, board_depth), group, first_position)
            self.segment: _native.Segment = segment
            facts = segment.facts()
            self.policy: Policy = POLICIES[int(facts["policy"])]
            self.capacity_bytes = int(facts["capacity_bytes"])
            self.writer: Writer
            if kind is Kind.SPSC:
                self.writer = _native.SpscWriter(segment)
            elif kind is Kind.BROADCAST:
                self.writer = _native.BroadcastWriter(segment)
            else:
                # Its slots are written by lob-book's native code; all that is done here is what every writer does.
                self.writer = cast(Writer, _native.BoardOwner(segment))
            self.manifest = dict(manifest or {})
            self.write_manifest()
        except BaseException:
            self._roles.close()
            raise
        self.writer.take_over(os.getpid())
        self._closed = False

    def _existing(self, manifest: dict[str, Any], policy: Policy) -> _native.Segment | None:
        try:
            segment = open_segment(self.name, writable=True)
        except NoRing:
            return None
        facts = segment.facts()
        if facts["kind"] != int(self.kind):
            raise WrongLayout(f"{self.name} is a {Kind(facts['kind']).name.lower()}, not a {self.kind.name.lower()}")
        self.inherited = read_manifest(segment)
        before, now = self.inherited.get("venue"), manifest.get("venue")
        if before and now and before != now:
            raise WrongLayout(f"{self.name} belongs to venue {before}, not {now}; choose another --instance")
        its_policy = POLICIES[int(facts["policy"])]
        if its_policy != policy:
            raise WrongLayout(f"{self.name} has the policy {its_policy}, not {policy}; remove it with lob-trace clean")
        self.taken_over = bool(facts["records"]) or bool(self.inherited)
        return segment

    def write_manifest(self) -> None:
        """Publish `self.manifest` as it stands now."""
        self.segment.write_manifest(orjson.dumps(self.manifest))

    def readers_behind(self) -> tuple[bool, int]:
        """(whether a reader is attached now, bytes that the slowest registered reader has not released)."""
        facts = self.segment.facts()
        attached = any(self._roles.held(READER_ROLE + reader["slot"]) for reader in facts["readers"])
        behind = max((facts["tail"] - reader["position"] for reader in facts["readers"]), default=0)
        return attached, behind

    def free_dead_readers(self) -> list[str]:
        """Under `wait`: give up on registered readers that are gone; their names. The downstream slot stays."""
        gone = []
        for reader in self.segment.facts()["readers"]:
            if reader["slot"] != 0 and not self._roles.held(READER_ROLE + reader["slot"]):
                self.segment.free_reader(reader["slot"])
                gone.append(reader["name"])
        return gone

    def close(self, state: RingState, *, remove: bool) -> None:
        """Give up the role, leaving the ring in `state`; `remove`: unlink it too. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self.writer.set_state(int(state))
        if remove:
            unlink(self.name)
        self._roles.close()


def _owner_pid(name: str) -> int:
    try:
        return int(open_segment(name, writable=False).facts()["writer_pid"])
    except RingError:
        return 0


def read_manifest(segment: _native.Segment) -> dict[str, Any]:
    """The manifest as a dict; {} if there is none. Raises WrongLayout if it is corrupt."""
    try:
        text = segment.read_manifest()
        manifest = orjson.loads(text) if text else {}
    except (_native.LayoutError, orjson.JSONDecodeError) as error:
        raise WrongLayout(f"a manifest that cannot be read: {error}") from None
    if not isinstance(manifest, dict):
        raise WrongLayout("a manifest that is no object")
    return manifest


def manifest_left_in(name: str | None) -> dict[str, Any]:
    """The manifest of a named ring that is there already; {} if there is none, or no name.

    For who is about to take the ring over: read it before, because taking over writes a manifest, and a crash just
    then must not lose what stood in this one.
    """
    if name is None:
        return {}
    try:
        return read_manifest(open_segment(name, writable=False))
    except RingError:
        return {}


class InputRing:
    """A ring that this process reads, with a role of its own in it.

    `reader` is a SpscReader or BroadcastReader. When the name comes to mean another segment (somebody removed and
    made it anew), `replaced` tells, and `reattach` goes over to it: `reader` is another object then.
    """

    def __init__(self, name: str, who: str) -> None:
        """Raises NoRing, WrongLayout, RoleTaken."""
        self.name = check_name(name)
        self.who = who
        segment = open_segment(name, writable=True)  # before the roles: no lock file beside no ring
        self._roles = Roles(name)
        try:
            self._attach(segment)
        except BaseException:
            self._roles.close()
            raise

    def _attach(self, segment: _native.Segment) -> None:
        self.segment = segment
        facts = segment.facts()
        self.kind = Kind(facts["kind"])
        self.policy: Policy = POLICIES[int(facts["policy"])]
        self.slot = self._take_slot(facts)
        self.reader: _native.SpscReader | _native.BroadcastReader
        if self.kind is Kind.SPSC:
            self.reader = _native.SpscReader(self.segment)
        elif self.kind is Kind.BROADCAST:
            ours = any(r["slot"] == self.slot and r["name"] in (self.who, "downstream") for r in facts["readers"])
            self.reader = _native.BroadcastReader(self.segment, "slot" if ours else "oldest", self.slot)
        else:
            raise WrongLayout(f"{self.name} is a board, no ring")
        self.segment.name_reader(self.slot, self.who, os.getpid())
        self._manifest_version = -1
        self._manifest: dict[str, Any] = {}

    def _take_slot(self, facts: dict[str, Any]) -> int:
        """The slot kept for the stage downstream, else the one we had before, else a free one."""
        names = {reader["slot"]: reader["name"] for reader in facts["readers"]}
        wanted = [slot for slot, name in names.items() if name in (self.who, "downstream")]
        free = [slot for slot in range(_native.READER_SLOTS) if slot not in names]
        slots = [0] if self.kind is Kind.SPSC else [*wanted, *free]
        # Slots of dead readers may be had too, last.
        slots += [s for s in names if s not in slots and self.kind is Kind.BROADCAST]
        for slot in slots:
            if self._roles.try_take(READER_ROLE + slot):
                return slot
        raise RoleTaken(self.name, "reader", next((r["pid"] for r in facts["readers"]), 0))

    @property
    def manifest(self) -> dict[str, Any]:
        """The writer's manifest, read again when it has changed."""
        version = self.segment.manifest_version
        if version != self._manifest_version:
            self._manifest = read_manifest(self.segment)
            self._manifest_version = version
        return self._manifest

    @property
    def manifest_version(self) -> int:
        return int(self.segment.manifest_version)

    @property
    def writer_alive(self) -> bool:
        return self._roles.held(WRITER_ROLE)

    @property
    def state(self) -> RingState:
        """Raises CorruptRing."""
        try:
            return RingState(self.reader.state)
        except ValueError:
            raise _native.CorruptRing(f"{self.name} has no state {self.reader.state}") from None

    @property
    def silent(self) -> bool:
        """The writer has given no sign of life for half a second."""
        return bool(self.reader.silent_ns > SILENT_NS)

    def request(self, kind: RequestKind, symbol: str, reason: Reason = Reason.NONE) -> bool:
        """Post a request that travels upstream; False if the queue is full."""
        return bool(_native.RequestQueue(self.segment).post(time.monotonic_ns(), int(kind), int(reason), symbol))

    def replaced(self) -> bool:
        """Whether the name means another segment now."""
        try:
            return bool(open_segment(self.name, writable=False).nonce != self.segment.nonce)
        except RingError:
            return False

    def reattach(self) -> None:
        """Go over to the segment that has the name now. Raises as the constructor does."""
        segment = open_segment(self.name, writable=True)
        self._roles.close()
        self._roles = Roles(self.name)
        self._attach(segment)

    def close(self) -> None:
        """Give back the role. The slot stays registered, so the next of our kind goes on where we stopped."""
        self.reader.publish()
        self._roles.close()


@dataclass(frozen=True)
class Descriptor:
    """The line that a stage prints on the pipe: which ring, of what."""

    ring: str
    kind: str
    venue: str
    policy: str
    pid: int

    FORMAT = 1

    def line(self) -> bytes:
        return (
            orjson.dumps(
                {
                    "lob": self.FORMAT,
                    "ring": self.ring,
                    "kind": self.kind,
                    "venue": self.venue,
                    "policy": self.policy,
                    "pid": self.pid,
                }
            )
            + b"\n"
        )

    @classmethod
    def parse(cls, line: bytes) -> Descriptor:
        """Raises ValueError with one sentence."""
        try:
            fields = orjson.loads(line)
            version = fields["lob"]
            if version != cls.FORMAT:
                raise ValueError(f"a ring descriptor of format {version}, this build reads {cls.FORMAT}")
            name, pid = check_name(fields["ring"]), int(fields["pid"])
            return cls(name, str(fields["kind"]), str(fields["venue"]), str(fields["policy"]), pid)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise ValueError("no line of lob-connect, lob-parse or lob-book (did you mean --in RING?)") from None


def wait_for_ring(name: str, timeout_s: float | None) -> Iterator[None]:
    """Yields (the caller sleeps a little and looks whether it should stop) until the ring exists.

    Raises NoRing after `timeout_s`; None waits for ever.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while not _path(name).exists():
        if deadline is not None and time.monotonic() > deadline:
            raise NoRing(name)
        yield
