"""What lob-book is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lob.options import Common


@dataclass(frozen=True)
class Settings:
    common: Common
    depth: int  # levels kept a side
    refresh_ns: int  # 0: never
    board_depth: int
    board_slots: int
    summary: Path | None
    summary_depth: int
