"""Posts a request that travels upstream, as lob-book does. Writes: into the queue of the raw ring."""

from __future__ import annotations

import time

from lob.errors import RingError, WrongLayout
from lob.names import ring_name
from lob.records import SYMBOL_MAX_BYTES, Reason, RequestKind
from lob.roles import WRITER_ROLE, Roles
from lob.segments import Kind, open_segment


class NotPosted(RingError):
    """Nobody would read the request, or the queue is full."""


def post(instance: str, kind: RequestKind, symbol: str) -> tuple[str, int]:
    """(ring, id of the request). Raises RingError kinds; ValueError for a symbol too long."""
    if len(symbol.encode()) > SYMBOL_MAX_BYTES:
        raise ValueError(f"'{symbol}' is no symbol: at most {SYMBOL_MAX_BYTES} bytes")
    name = ring_name(instance, "raw")
    segment = open_segment(name, writable=True)
    if segment.facts()["kind"] != int(Kind.SPSC):
        raise WrongLayout(f"{name} is no raw ring")
    roles = Roles(name)
    try:
        if not roles.held(WRITER_ROLE):
            raise NotPosted(f"{name} has no owner who would read a request; is lob-connect running?")
        request_id = time.monotonic_ns()
        if not roles.request_queue(segment).post(request_id, int(kind), int(Reason.NONE), symbol):
            raise NotPosted(f"{name}: the request queue is full; try again")
        return name, request_id
    finally:
        roles.close()
