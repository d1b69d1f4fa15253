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

from lob import _native
from lob.errors import RingError
from lob.names import NAME, SHM, TRACE, ring_name
from lob.records import Stage
from lob.roles import WRITER_ROLE, Roles
from lob.segments import made_whole, map_by_name, unlink, unlink_left_behind

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
            unlink_left_behind(self.name)
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


def _make(name: str, stage: Stage, thread: int, on: bool) -> _native.Trace:
    with made_whole(name) as fd:
        os.posix_fallocate(fd, 0, _native.TRACE_BYTES)
        _native.Trace.format(fd, int(stage), thread, os.getpid(), secrets.randbits(63), on)
        return _native.Trace(fd, True)


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
    try:
        return map_by_name(name, writable, _native.Trace)
    except RuntimeError as error:  # no memory to map it
        raise RingError(f"{name}: {error}") from None
