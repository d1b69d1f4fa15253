"""The bytes of a segment, and its files, as somebody would find or leave them who does not use our code; for tests."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from lob.names import SHM

TAIL, INTENT, LATEST = 256, 264, 272  # offsets in the header; shared/native/segment.hpp asserts them
CHECKPOINTS = 384
QUEUE = 4096
MANIFEST = 16384
DATA = MANIFEST + (1 << 20)


class Poke:
    """A segment, mapped beside whoever uses it."""

    def __init__(self, name: str) -> None:
        with Path(f"/dev/shm{name}").open("r+b") as file:
            self.bytes = mmap.mmap(file.fileno(), 0)

    def u64(self, offset: int) -> int:
        return int(struct.unpack_from("<Q", self.bytes, offset)[0])

    def put(self, offset: int, value: int) -> None:
        struct.pack_into("<Q", self.bytes, offset, value)


def left_behind(instance: str) -> set[str]:
    """Names of all files in shared memory that belong to an instance."""
    return {path.name for path in SHM.glob(f"*lob.{instance}*")}
