"""The public ring: any number of subscribers, whom nobody waits for (unless ?policy=wait).

What is already in the ring is known from the ring itself: its writer's checkpoint holds the number, in the ring that
we read, of the newest record copied; the manifest says which ring that is. So a successor of a killed lob-publish
goes on without a loss and without a double.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

from lob import _native
from lob.errors import RingError, WrongLayout
from lob.instruments import entry, instrument_records
from lob.manifest import read_manifest
from lob.names import check_name, ring_name
from lob.records import parse
from lob.rings import InputRing, OutputRing
from lob.segments import Kind, Policy, RingState, open_segment
from lob_publish._native import Pump
from lob_publish.sinks.sink import Place, Sink, SinkFailed

PATIENCE_S = 10.0  # a reader that makes no progress for so long is given up at the end
MANIFEST_S = 0.1  # the list of instruments is written at most so often


class ShmSink(Sink):
    tick_ms = 250

    def __init__(self, uri: str, rest: str) -> None:
        super().__init__(uri)
        name, _, query = rest.partition("?")
        self._name = check_name(name) if name else ""
        options = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query))
        policy = options.pop("policy", ["drop"])[-1]
        if options or policy not in ("wait", "drop"):
            raise ValueError("a public ring knows ?policy=drop and ?policy=wait")
        self._policy: Policy = "wait" if policy == "wait" else "drop"
        self._ring: OutputRing | None = None
        self._pump: Pump | None = None
        self._index = -1
        self._named = False
        self._instruments_version = 0
        self._next_manifest = 0.0
        self._drops_told = 0

    @property
    def ring(self) -> OutputRing | None:
        return self._ring

    def open(self, place: Place) -> None:
        self._named = place.named
        name = self._name or ring_name(place.instance, "public")
        self.uri = f"shm:{name}"
        self._ring = OutputRing(
            name,
            Kind.BROADCAST,
            policy=self._policy,
            capacity_bytes=place.ring_bytes,
            manifest=_manifest_of(name) if place.named else {},  # not a moment without what a successor must know
            keep=place.named,
            group=place.group,
            memory=place.memory,
        )

    def join(self, pump: Pump, source: InputRing) -> None:
        ring = self._ring
        assert ring is not None and isinstance(ring.writer, _native.BroadcastWriter)
        venue, before = source.manifest.get("venue"), ring.manifest.get("venue")
        if before and venue and before != venue:
            raise WrongLayout(f"{ring.name} belongs to venue {before}, not {venue}; choose another --instance")
        nonce = source.segment.nonce
        old = ring.manifest.get("source", {})
        if old.get("nonce") == nonce:
            # `not_seq` is what the checkpoint said of another ring, before anything of this one was copied.
            skip = ring.writer.raw_seq if ring.writer.raw_seq != old.get("not_seq") else 0
        else:
            skip = 0
            ring.manifest["source"] = {"ring": source.name, "nonce": nonce, "not_seq": ring.writer.raw_seq}
        ring.manifest.update(
            venue=venue, kind="public", policy=ring.policy, instruments=ring.manifest.get("instruments", [])
        )
        ring.write_manifest()
        if ring.taken_over and self._pump is None:
            # A new epoch: what its readers knew of instruments is void.
            for record in instrument_records(source.manifest, 0) or instrument_records(ring.manifest, 0):
                ring.writer.write(record)
        if self._pump is None:
            self._index = pump.add_ring(ring.writer, skip)
        self._pump = pump

    def tick(self) -> None:
        ring, pump = self._ring, self._pump
        if ring is None or pump is None:
            return
        self._count(pump)
        now = time.monotonic()
        if pump.instruments_version != self._instruments_version and now >= self._next_manifest:
            self._next_manifest = now + MANIFEST_S
            self._write_instruments(ring, pump)

    def complaint(self) -> str:
        new, self._drops_told = self.counts.drops - self._drops_told, self.counts.drops
        if not new:
            return ""
        return (
            f"{self.uri}: {new} records are larger than a quarter of the ring and left out, its subscribers miss them; "
            "give a larger --ring-bytes" + (" and remove the ring first (lob-trace clean)" if self._named else "")
        )

    def _write_instruments(self, ring: OutputRing, pump: Pump) -> None:
        self._instruments_version = pump.instruments_version
        known: dict[int, dict[str, Any]] = {old["id"]: old for old in ring.manifest.get("instruments", [])}
        known |= {new["id"]: new for new in (entry(parse(record)) for record in pump.instruments())}
        ring.manifest["instruments"] = list(known.values())
        try:
            ring.write_manifest()
        except IndexError:  # std::length_error
            raise SinkFailed(f"{self.uri}: {len(known)} instruments are more than its manifest holds") from None

    def _count(self, pump: Pump) -> None:
        self.counts.messages, self.counts.bytes, self.counts.drops = pump.counts(self._index)

    def close(self, *, ended: bool) -> None:
        """A named ring is left paused for our successor; one of a pipe is closed, drained and unlinked."""
        ring, self._ring = self._ring, None
        if ring is None:
            return
        if self._pump is not None:
            self._pump.flush()
            self._count(self._pump)
            with suppress(SinkFailed):
                self._write_instruments(ring, self._pump)
            self._pump.remove_ring(self._index)
        if self._named:
            ring.close(RingState.PAUSED, remove=False)
            return
        ring.writer.set_state(int(RingState.CLOSED if ended else RingState.PAUSED))
        if ended:
            _wait_drained(ring)
        ring.close(RingState.CLOSED if ended else RingState.PAUSED, remove=True)


def _manifest_of(name: str) -> dict[str, Any]:
    """What the ring's owner before us left, if it is ours to go on with."""
    try:
        return read_manifest(open_segment(name, writable=False))
    except RingError:
        return {}


def _wait_drained(ring: OutputRing) -> None:
    """Until registered readers have read all, are gone, or make no progress.

    Others have the ring mapped and may read on after its name is gone.
    """
    last_behind, patience_ends = -1, time.monotonic() + PATIENCE_S
    while time.monotonic() < patience_ends:
        ring.writer.beat()
        attached, behind = ring.readers_behind()
        if ring.policy == "drop" and not attached:
            return
        seen = any(reader["pid"] for reader in ring.segment.facts()["readers"])
        if behind == 0 or (seen and not attached):
            return
        if behind != last_behind:
            last_behind, patience_ends = behind, time.monotonic() + PATIENCE_S
        time.sleep(0.005)
