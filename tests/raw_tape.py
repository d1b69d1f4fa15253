"""A raw ring of this process that sockets write and the test reads, and a session's part that only writes it."""

from __future__ import annotations

from lob._native import SpscWriter
from lob.records import Record, RecordType
from lob.rings import InputRing, OutputRing
from lob.segments import Kind, RingState
from lob_connect._native import FrameReader, RawSink
from lob_connect.socket import Socket
from pipeline import unique_instance
from processes.peer import read_all


class RawTape:
    """A raw ring and its reader."""

    def __init__(self, capacity_bytes: int = 1 << 20) -> None:
        name = f"/lob.{unique_instance('tape')}.raw"
        self._ring = OutputRing(name, Kind.SPSC, policy="drop", capacity_bytes=capacity_bytes)
        assert isinstance(self._ring.writer, SpscWriter)
        self.writer = self._ring.writer
        self._input = InputRing(name, "test")
        self.reader = self._input.reader
        self.sink = RawSink(self.writer, 0)

    def write(self, payload: bytes, recv_ns: int = 1, origin_ns: int = 1) -> None:
        """A message, as a session that gets it from `websockets` writes it."""
        assert self.writer.write_raw(int(RecordType.RAW_FRAME), 0, 1, recv_ns, origin_ns, b"", payload) == 0

    def read(self) -> list[Record]:
        """What has come in since the last time."""
        return read_all(self.reader)

    def close(self) -> None:
        self._input.close()
        self._ring.close(RingState.CLOSED, remove=True)


class Taping:
    """A session's part: all messages end up on the tape, natively or not, and whatever goes wrong is raised."""

    def __init__(self, tape: RawTape, native: bool, message_max_bytes: int) -> None:
        self.tape, self.native, self._message_max_bytes = tape, native, message_max_bytes

    def opened(self, recv_ns: int, socket: Socket) -> FrameReader | None:
        return FrameReader(socket, self.tape.sink, 0, 1, self._message_max_bytes) if self.native else None

    def received(self, recv_ns: int, origin_ns: int, payload: bytes) -> None:
        self.tape.write(payload, recv_ns, origin_ns)

    def noted(self, recv_ns: int, payload: bytes) -> None: ...
    def lost(self, count: int) -> None:
        raise AssertionError("the ring is large enough")

    def pay(self) -> bool:
        return True

    def broken(self, error: Exception) -> None:
        raise error

    def too_large(self, sentence: str) -> None: ...
    def closed(self, recv_ns: int) -> None: ...
