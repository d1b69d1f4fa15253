"""What a run of lob-publish is told."""

from __future__ import annotations

from dataclasses import dataclass

from lob.options import Common

DEFAULT_RING_BYTES = 16 << 20


@dataclass(frozen=True)
class Settings:
    common: Common
    to: tuple[str, ...]  # URIs; never empty
    ring_bytes: int  # of a public ring
    workers: int = 0  # processes that format and write text; 0: this one does
