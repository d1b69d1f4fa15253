"""The traces of this host's stages, as they come and go. Maps them read-only and holds no role."""

from __future__ import annotations

from dataclasses import dataclass

from lob import _native
from lob.errors import ForeignOwner, RingError
from lob.names import instance_of
from lob.roles import WRITER_ROLE, role_held
from lob.trace import list_traces, open_trace
from lob_trace.histogram import Histogram
from lob_trace.latency import STAGES, Measured


@dataclass
class Open:
    """One trace while it is mapped."""

    name: str
    trace: _native.Trace
    nonce: int
    stage: str
    last: Measured
    next_event: int

    @classmethod
    def of(cls, name: str) -> Open:
        """Counts what comes from now on. Raises RingError kinds."""
        trace = open_trace(name, writable=False)
        facts = trace.facts()
        return cls(name, trace, facts["nonce"], STAGES[facts["stage"]], measured(trace), facts["events"])

    def take(self) -> Measured:
        """What was counted since the last call."""
        now = measured(self.trace)
        since, self.last = now.since(self.last), now
        return since

    def take_events(self) -> tuple[bytes, int]:
        """(events since the last call, how many were overwritten before they were read)."""
        self.next_event, lost, events = self.trace.events(self.next_event)
        return events, lost


def _alive(name: str) -> bool:
    try:
        return role_held(name, WRITER_ROLE)
    except ForeignOwner:  # its lock is not ours to look at
        return True


def measured(trace: _native.Trace) -> Measured:
    return Measured(Histogram.of(*trace.share()), Histogram.of(*trace.here()))


class Traces:
    """Those of an instance, or of all. A stage that is restarted counts from nothing: its new trace is joined in."""

    def __init__(self, instance: str | None) -> None:
        self._instance = instance
        self.open: dict[str, Open] = {}
        self._ended: list[Open] = []  # mapped still: what they counted last is yet to be taken
        self.sentences: list[str] = []  # why some cannot be read; each once
        self.look(begin=True)

    def look(self, *, begin: bool = False) -> None:
        """Go over to what there is now. What appears after the beginning counts from its own beginning."""
        names = [name for name in list_traces(self._instance) if _alive(name)]
        for name in [name for name in self.open if name not in names]:
            self._ended.append(self.open.pop(name))
        for name in names:
            try:
                found = Open.of(name)
            except RingError as error:
                if str(error) not in self.sentences:
                    self.sentences.append(str(error))
                continue
            known = self.open.get(name)
            if known is not None and known.nonce == found.nonce:
                continue
            if known is not None:
                self._ended.append(known)
            if not begin:
                found.last, found.next_event = Measured(Histogram.empty(), Histogram.empty()), 0
            self.open[name] = found

    def take(self) -> dict[str, dict[str, Measured]]:
        """What was counted since the last call, by instance and stage. Call `look` before it."""
        taken: dict[str, dict[str, Measured]] = {}
        for one in [*self._ended, *self.open.values()]:
            stages = taken.setdefault(instance_of(one.name), {})
            new = one.take()
            stages[one.stage] = stages[one.stage] + new if one.stage in stages else new
        self._ended = []
        return taken

    def take_events(self) -> list[tuple[str, str, bytes, int]]:
        """(instance, stage, events, lost) of each trace since the last call. Call it between `look` and `take`."""
        return [(instance_of(one.name), one.stage, *one.take_events()) for one in [*self._ended, *self.open.values()]]
