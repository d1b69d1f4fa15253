"""The names of shared memory: `/lob.<instance>.<what>`, checked, listed."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

SHM = Path("/dev/shm")
NAME = re.compile(r"/lob\.(?P<instance>[A-Za-z0-9_-]{1,64})\.(?P<what>[a-z0-9-]{1,32})")
TRACE = "trace-"  # begins the WHAT of what is no ring: lob.trace


def ring_name(instance: str, what: str) -> str:
    """`/lob.<instance>.<what>`, checked. Raises ValueError."""
    return check_name(f"/lob.{instance}.{what}")


def check_name(name: str) -> str:
    """The name itself if it may be one. Raises ValueError."""
    if not NAME.fullmatch(name):
        raise ValueError(f"'{name}' is no ring name: /lob.INSTANCE.WHAT of letters, digits, _ and -")
    return name


def instance_of(name: str) -> str:
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"'{name}' is no ring name")
    return match["instance"]


def shm_path(name: str) -> Path:
    """The file that a name of shared memory is."""
    return SHM / name[1:]


def list_rings(instance: str | None = None) -> list[str]:
    """Names of all rings and boards on this host, sorted."""
    names = ("/" + entry.name for entry in SHM.glob("lob.*") if not entry.name.endswith(".lock"))
    matches = filter(None, map(NAME.fullmatch, names))
    ours = (m for m in matches if not m["what"].startswith(TRACE) and instance in (None, m["instance"]))
    return sorted(m[0] for m in ours)


def hidden_name(name: str) -> str:
    """A name that nobody lists, for what is not whole yet; `lob-trace clean` finds it if its maker dies."""
    return f"/.{name[1:]}.{os.getpid()}.{secrets.token_hex(4)}"
