"""Types of the native parser; see native/bind.cpp."""

from typing import Any

from lob._native import SpscReader, SpscWriter, Trace
from lob.venues.shape import Shape
from lob_parse.hooks import VenueHooks

NESTING_MAX: int
NUMBER_MAX_CHARS: int

def trace_to(trace: Trace | None) -> None: ...
def decimal(text: bytes) -> tuple[int, int]: ...
def rescale(mantissa: int, decimals: int, scale: int) -> int | str: ...

class Parser:
    def __init__(
        self,
        shape: Shape,
        snapshot_shape: Shape | None,
        rule: int,
        scope: int,
        checksum_rule: int,
        truncates: bool,
        joins: bool,
        hooks: VenueHooks,
    ) -> None: ...
    def run(
        self, reader: SpscReader, writer: SpscWriter, wait: str = "auto", stint_ms: int = 50, idle_ms: int = 20
    ) -> int: ...
    def resume(self, raw_seq: int) -> None: ...
    def replaced(self) -> None: ...
    def status(self, writer: SpscWriter, state: int, reason: int) -> bool: ...
    def restore(
        self,
        symbol: str,
        connection: int,
        version: int,
        price_scale: int,
        qty_scale: int,
        depth: int,
        raw_seq: int,
        announced: bool,
    ) -> None: ...
    def instruments(self) -> list[dict[str, Any]]: ...
    def counts(self) -> dict[str, int]: ...
    @property
    def seen_seq(self) -> int: ...

class Decoder:
    def __init__(self, shape: Shape, rule: int = 0) -> None: ...
    def decode(self, frame: bytes, symbol: str = "") -> tuple[str, list[dict[str, Any]]]: ...
    def time(self, frames: list[bytes], repeat: int) -> tuple[int, int]: ...
