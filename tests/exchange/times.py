"""Times as venues write them, from Unix nanoseconds."""

from __future__ import annotations

import time
from functools import lru_cache

MS = 1_000_000
SECOND = 1_000_000_000


@lru_cache(maxsize=64)
def _whole_second(second: int, separator: str) -> str:
    return time.strftime(f"%Y-%m-%d{separator}%H:%M:%S", time.gmtime(second))


def rfc3339(time_ns: int, digits: int = 6, separator: str = "T") -> str:
    """ "2026-02-06T14:15:58.123456Z" with `digits` decimals; with another separator, without the Z."""
    second, rest = divmod(time_ns, SECOND)
    part = str(rest).rjust(9, "0")[:digits]
    return f"{_whole_second(second, separator)}.{part}{'Z' if separator == 'T' else ''}"
