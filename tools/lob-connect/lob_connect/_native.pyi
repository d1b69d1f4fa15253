"""Types of the native part; see native/bind.cpp."""

import ssl
from collections.abc import Callable, Sequence
from typing import Protocol

from lob._native import SpscWriter, Trace

def trace_to(trace: Trace | None) -> None: ...

class LinePlayer:
    def __init__(self) -> None: ...
    def open(self, label: str, connection: int, session: int) -> None: ...
    def close(self, label: str) -> None: ...
    def play(self, writer: SpscWriter, text: bytes, offset: int, lines_max: int) -> tuple[int, int, int]: ...

class RawSink:
    """What the connections of one raw ring share. `owing`: nothing may be written before pay()."""

    owing: bool
    copies: bool
    def __init__(self, writer: SpscWriter, room_bytes: int) -> None: ...
    @property
    def frames(self) -> int: ...
    @property
    def payload_bytes(self) -> int: ...

class FrameOwner(Protocol):
    def odd(self, data: bytes, recv_ns: int, origin_ns: int) -> None:
        """Bytes that are the protocol's, all that came before them being dealt with."""

    def message(self, payload: bytes, recv_ns: int, origin_ns: int) -> None:
        """A message of the ring that bears a mark; every message if the sink wants copies."""

    def lost(self, count: int) -> None:
        """So many messages found no room; the numbers in the ring are skipped already."""

    def broken(self, error: Exception) -> None:
        """A call raised, or the ring is corrupt, while a Poller read the socket; it does so no more."""

    def pay(self) -> bool:
        """Write what is owed; True if nothing is owed any more."""

class FrameReader:
    def __init__(
        self,
        owner: FrameOwner,
        sink: RawSink,
        connection: int,
        session: int,
        message_max_bytes: int,
        mark_size_max: int = 0,
        marks: Sequence[str] = (),
    ) -> None: ...
    def feed(self, data: bytes, recv_ns: int, origin_ns: int) -> None: ...
    def room(self) -> memoryview: ...
    def take(self, count: int, recv_ns: int, origin_ns: int) -> None: ...
    def stop(self) -> None: ...
    def rest(self) -> bytes: ...
    @property
    def last_ns(self) -> int: ...

class Poller:
    def __init__(self, busy: bool) -> None: ...
    def watch(self, fd: int, events: int) -> None: ...
    def forget(self, fd: int) -> None: ...
    def read_frames(self, fd: int, frames: FrameReader) -> bool: ...
    def read_tls(
        self,
        fd: int,
        frames: FrameReader,
        incoming: ssl.MemoryBIO,
        read: Callable[[int, memoryview], int],
        is_closing: Callable[[], bool],
        ended: Callable[[ssl.SSLError | None], None],
    ) -> bool: ...
    def wait(self, timeout_s: float) -> list[tuple[int, int]]: ...
    def close(self) -> None: ...
