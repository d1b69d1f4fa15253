"""What lob-connect was told on its command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lob.options import Common


@dataclass(frozen=True)
class Settings:
    """Either `symbols` (live) or `replay` (recordings) holds something. None: the venue's own default."""

    venue: str
    symbols: tuple[str, ...]
    replay: tuple[Path, ...]
    speed: float | None  # None: as fast as possible; 1.0: as it was
    record: str | None
    url: str | None
    rest_url: str | None
    depth: int | None
    streams_per_connection: int | None
    ca: Path | None
    transport: str | None  # native, websockets
    busy_poll: bool
    rcvbuf: int | None  # bytes; None: the kernel tunes it
    common: Common
