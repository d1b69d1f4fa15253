"""The traces of a pipeline's stages: trace points and histograms in shared memory (`shared/native/trace.hpp`).

Each native thread of a stage has a segment `/lob.<instance>.trace-<stage>` (a second process of the same stage:
`...-1`), made when the stage starts and removed when it ends; its maker holds the writer's role, as with rings. Who
looks at them maps them read-only. `lob-trace on|off` switches the trace points; histograms are always kept.
"""

from __future__ import annotations

import atexit
import os
import secrets
from collections.abc import Callable

import posix_ipc

from lob import _native
from lob.errors import ForeignOwner, NoRing, RingError, WrongLayout
from lob.names import NAME, SHM, TRACE, hidden_name, instance_of, ring_name, shm_path
from lob.records import Stage
from lob.roles import WRITER_ROLE, Roles
from lob.segments import unlink

THREADS_MAX = 16  # of one stage


class StageTrace:
    """The trace that this process writes; until `close`, or the end of the process."""

    def __init__(self, instance: str, stage: Stage, *points: Callable[[_native.Trace | None], None]) -> None:
        """`points`: `trace_to` of each native module that has trace points. Raises RingError kinds."""
        self._points = points
        self._roles, self.name, thread = _take_name(instance, stage)
        try:
            # Who made it died: its successor is traced as it was.
            on = _was_on(self.name)
            _unlink_segment(self.name)
            self._roles.renew()
            self.trace = _make(self.name, stage, thread, on)
        except BaseException:
            self._roles.close()
            raise
        for trace_to in points:
            trace_to(self.trace)
        atexit.register(self.close)

    def close(self) -> None:
        """Remove it. Safe to call twice."""
        for trace_to in self._points:
            trace_to(None)
        self._points = ()
        if self.name:
            unlink(self.name)
            self._roles.close()
            self.name = ""


def open_stage_trace(
    tool: str, instance: str, say: Callable[[str], None], *points: Callable[[_native.Trace | None], None]
) -> StageTrace | None:
    """A trace for this process; None, and a sentence, if it cannot be had: a stage works without. None also if LITE."""
    if _native.LITE:
        return None
    try:
        return StageTrace(instance, Stage[tool.removeprefix("lob-").upper()], *points)
    except (RingError, OSError) as error:
        say(f"not traced: {error}")
        return None


def _take_name(instance: str, stage: Stage) -> tuple[Roles, str, int]:
    for thread in range(THREADS_MAX):
        name = ring_name(instance, TRACE + stage.name.lower() + (f"-{thread}" if thread else ""))
        roles = Roles(name)
        if roles.try_take(WRITER_ROLE):
            return roles, name, thread
        roles.close()
    raise RingError(f"{instance} has {THREADS_MAX} traces of this stage already")


def _was_on(name: str) -> bool:
    try:
        return bool(open_trace(name, writable=False).facts()["on"])
    except RingError:
        return False


def _unlink_segment(name: str) -> None:
    try:
        posix_ipc.unlink_shared_memory(name)
    except posix_ipc.ExistentialError:
        pass
    except posix_ipc.PermissionsError:
        raise ForeignOwner(name) from None


def _make(name: str, stage: Stage, thread: int, on: bool) -> _native.Trace:
    """Made whole under a hidden name and then linked to its own."""
    hidden = hidden_name(name)
    memory = posix_ipc.SharedMemory(hidden, posix_ipc.O_CREX, mode=0o600)
    try:
        os.posix_fallocate(memory.fd, 0, _native.TRACE_BYTES)
        _native.Trace.format(memory.fd, int(stage), thread, os.getpid(), secrets.randbits(63), on)
        trace = _native.Trace(memory.fd, True)
        os.link(shm_path(hidden), shm_path(name))
        return trace
    finally:
        memory.close_fd()
        posix_ipc.unlink_shared_memory(hidden)


def list_traces(instance: str | None = None) -> list[str]:
    """Names of all traces on this host, in the order a message passes their stages."""
    order = [TRACE + stage.name.lower() for stage in Stage]
    names = []
    for path in SHM.glob(f"lob.*.{TRACE}*"):
        match = NAME.fullmatch("/" + path.name)
        if match is None or instance not in (None, match["instance"]):
            continue
        stage = match["what"].rstrip("0123456789").removesuffix("-")
        if stage in order:
            names.append((match["instance"], order.index(stage), "/" + path.name))
    return [name for *_, name in sorted(names)]


def open_trace(name: str, *, writable: bool) -> _native.Trace:
    """Map a trace by name. Raises NoRing, WrongLayout, ForeignOwner."""
    instance_of(name)
    try:
        flags = os.O_RDWR if writable else os.O_RDONLY
        fd = os.open(shm_path(name), flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NoRing(name) from None
    except PermissionError:
        raise ForeignOwner(name) from None
    except OSError as error:
        raise RingError(f"{name}: {error.strerror}") from None
    try:
        return _native.Trace(fd, writable)
    except (_native.LayoutError, RuntimeError) as error:
        raise WrongLayout(f"{name} {error}; remove it with lob-trace clean, or use the same release") from None
    finally:
        os.close(fd)
