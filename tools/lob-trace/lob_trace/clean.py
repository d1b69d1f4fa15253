"""Finds and removes what dead stages left in shared memory. What anybody alive holds is never touched."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lob.errors import ForeignOwner
from lob.names import NAME, SHM, instance_of, list_rings
from lob.roles import WRITER_ROLE, role_held
from lob.segments import unlink_if_idle
from lob.trace import list_traces

# lob.names.hidden_name: what its maker had not finished.
HIDDEN = re.compile(r"\.(?P<ring>lob\.[A-Za-z0-9_-]+\.[a-z0-9-]+)(\.lock)?\.\d+\.[0-9a-f]{8}")


@dataclass(frozen=True)
class Left:
    """One thing to remove: a ring, board or trace with its lock file, a lock file alone, or a half-made segment."""

    name: str  # of the ring, or of the half-made file
    what: str


@dataclass(frozen=True)
class Found:
    left: list[Left]
    kept: list[str]  # names of what somebody holds
    foreign: list[str]  # names of what belongs to another user


def find(instance: str | None) -> Found:
    """Everything of one instance, or of all."""
    rings = list_rings(instance)
    locks = [f"/{path.name.removesuffix('.lock')}" for path in sorted(SHM.glob("lob.*.lock"))]
    traces = list_traces(instance)
    known = {*rings, *traces}
    alone = [n for n in locks if NAME.fullmatch(n) and n not in known and instance in (None, instance_of(n))]
    found = Found([], [], [])
    for name, what in [
        *((name, "ring") for name in rings),
        *((name, "trace") for name in traces),
        *((name, "lock file") for name in alone),
    ]:
        try:
            if role_held(name):
                found.kept.append(name)
            else:
                found.left.append(Left(name, what))
        except ForeignOwner:
            found.foreign.append(name)
    for path in sorted(SHM.glob(".lob.*")):
        match = HIDDEN.fullmatch(path.name)
        if match is None or instance not in (None, instance_of("/" + match["ring"])):
            continue
        try:
            if not role_held("/" + match["ring"], WRITER_ROLE):  # its maker holds that role until it is whole
                found.left.append(Left("/" + path.name, "half-made segment"))
        except ForeignOwner:
            found.foreign.append("/" + path.name)
    return found


def remove(left: Left) -> bool:
    """False: somebody has taken a role meanwhile. Raises ForeignOwner."""
    if left.what == "half-made segment":
        try:
            (SHM / left.name[1:]).unlink(missing_ok=True)
        except PermissionError:
            raise ForeignOwner(left.name) from None
        return True
    return unlink_if_idle(left.name)
