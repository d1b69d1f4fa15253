"""Reads along with the rings that carry the finished records: read-only, without a role, from the newest record on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lob import _native
from lob.rings import Kind, RingError, instance_of, list_rings, open_segment
from lob_trace.latency import Latency, headers_of

BATCH = 65536
NAP_S = 0.002
LOOK_S = 0.25  # how often to look which rings there are


def rings_to_read(instance: str | None) -> list[str]:
    """The public rings; of instances that have none, their book rings."""
    broadcast = []
    for name in list_rings(instance):
        try:
            if open_segment(name, writable=False).facts()["kind"] == int(Kind.BROADCAST):
                broadcast.append(name)
        except RingError:
            continue  # not ours to read, not whole, or gone since: `lob-trace rings` says which
    with_public = {instance_of(name) for name in broadcast if name.endswith(".public")}
    return [name for name in broadcast if name.endswith(".public") or instance_of(name) not in with_public]


@dataclass
class Reader:
    """One ring while it lives."""

    name: str
    segment: _native.Segment
    reader: _native.BroadcastReader
    latency: Latency = field(default_factory=Latency)
    lost_before: int = 0

    def drain(self) -> None:
        """Count what is there. Raises CorruptRing."""
        while True:
            headers = headers_of(self.reader.drain_headers(BATCH))
            if len(headers):
                self.latency.add(headers)
            if len(headers) < BATCH:
                return

    def take(self) -> tuple[Latency, int]:
        """(latency, records lost) since the last call."""
        latency, lost = self.latency, self.reader.lost - self.lost_before
        self.latency, self.lost_before = Latency(), self.reader.lost
        return latency, lost


class Watch:
    """All rings of an instance, or of all, as they come and go."""

    def __init__(self, instance: str | None, say: Callable[[str], None]) -> None:
        self._instance = instance
        self._say = say
        self._readers: dict[str, Reader] = {}
        self._next_look_s = 0.0
        self._look()

    @property
    def readers(self) -> list[Reader]:
        return list(self._readers.values())

    def until(self, deadline_s: float) -> None:
        """Read along until then (time.monotonic)."""
        while (now := time.monotonic()) < deadline_s:
            if now >= self._next_look_s:
                self._look()
            for reader in self.readers:
                try:
                    reader.drain()
                except _native.CorruptRing as error:
                    self._say(f"{reader.name}: {error}; no longer reading it")
                    del self._readers[reader.name]
            time.sleep(min(NAP_S, max(0.0, deadline_s - time.monotonic())))

    def _look(self) -> None:
        self._next_look_s = time.monotonic() + LOOK_S
        names = rings_to_read(self._instance)
        for gone in set(self._readers) - set(names):
            del self._readers[gone]
        for name in names:
            try:
                segment = open_segment(name, writable=False)
            except RingError:
                continue
            known = self._readers.get(name)
            if known is None or known.segment.nonce != segment.nonce:
                self._readers[name] = Reader(name, segment, _native.BroadcastReader(segment, "newest"))
