"""What all sinks have in common."""

from __future__ import annotations

from dataclasses import dataclass

from lob.memory import RingMemory
from lob.rings import InputRing, OutputRing
from lob_publish._native import Pump
from lob_publish.workers import Workers


class SinkFailed(Exception):
    """A sink cannot go on; one sentence that says what to do."""


class ReaderLeft(Exception):
    """The reader of stdout has what it wanted: no fault."""


@dataclass
class Counts:
    messages: int = 0
    bytes: int = 0
    drops: int = 0
    errors: int = 0


@dataclass(frozen=True)
class Place:
    """Where a run takes place."""

    instance: str
    named: bool  # --in: what we make outlives us
    ring_bytes: int
    group: str | None
    memory: RingMemory
    workers: Workers | None = None  # who write the text, if not we


class Sink:
    """The default answers; a sink says what is different.

    Order of calls: `open` (the input may not exist yet), `join` (and again when the input ring was made anew), then
    `tick` at least every `tick_ms`, `flush` and `close`. All may raise SinkFailed.
    """

    is_text = False  # workers can write it
    uses_stdout = False
    tick_ms = 50

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.counts = Counts()

    @property
    def ring(self) -> OutputRing | None:
        """The ring that this sink owns."""
        return None

    def open(self, place: Place) -> None:
        """Make what is written to. Raises RingError too: then the stage does not start."""

    def join(self, pump: Pump, source: InputRing) -> None:
        """The input is known: from now on the pump fills what we add to it."""

    def tick(self) -> None:
        """Look after itself. Raises ReaderLeft too."""

    def complaint(self) -> str:
        """What went wrong since the last call without an end of the sink, in one sentence; empty: nothing."""
        return ""

    def flush(self) -> None:
        """Nothing more will be taken: see that all that was is out. Raises ReaderLeft too."""

    def close(self, *, ended: bool) -> None:
        """`ended`: nothing more will come; else we stop and another may go on. Never raises."""
