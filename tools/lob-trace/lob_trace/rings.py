"""What the rings of this host look like from outside. Opens everything read-only and holds no role."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from lob import _native
from lob.errors import ForeignOwner, NoRing, RingError
from lob.manifest import read_manifest
from lob.names import instance_of, list_rings
from lob.roles import READER_ROLE, WRITER_ROLE, role_held
from lob.segments import POLICIES, Kind, RingState, open_segment

ORDER = ("raw", "events", "book", "board", "public")
MEMORY = ("huge_bytes", "locked_bytes", "node_bytes")


@dataclass(frozen=True)
class Look:
    """One ring at one moment."""

    name: str
    at_ns: int
    facts: dict[str, Any]
    manifest: dict[str, Any]
    owner_alive: bool | None  # None: its lock file is not ours to look at
    readers_alive: tuple[bool | None, ...]  # in the order of facts["readers"]


def look(name: str) -> Look:
    """Raises RingError kinds."""
    segment = open_segment(name, writable=False)
    facts = segment.facts()
    return Look(
        name,
        _native.mono_ns(),
        facts,
        read_manifest(segment),
        _held(name, WRITER_ROLE),
        tuple(_held(name, READER_ROLE + reader["slot"]) for reader in facts["readers"]),
    )


def _held(name: str, role: int) -> bool | None:
    try:
        return role_held(name, role)
    except ForeignOwner:
        return None


def look_twice(instance: str | None, apart_s: float) -> tuple[list[dict[str, Any]], list[str]]:
    """(a row for each ring that was there both times, a sentence for each that cannot be read)."""
    first: dict[str, Look] = {}
    sentences = []
    for name in sorted(list_rings(instance), key=place):
        try:
            first[name] = look(name)
        except NoRing:
            continue
        except RingError as error:
            sentences.append(str(error))
    time.sleep(apart_s)
    rows = []
    for name, before in first.items():
        try:
            rows.append(row(before, look(name)))
        except RingError:
            continue  # it went between the two looks
    return rows, sentences


def place(name: str) -> tuple[str, int, str]:
    """Instances by name, their rings in the order a message passes them."""
    instance, what = instance_of(name), name.rsplit(".", 1)[1]
    return instance, ORDER.index(what) if what in ORDER else len(ORDER), what


def row(before: Look, now: Look) -> dict[str, Any]:
    """What two looks at a ring say; a rate is None if it was made anew in between. Pure."""
    facts = now.facts
    kind = Kind(facts["kind"])
    seconds = (now.at_ns - before.at_ns) / 1e9
    same = facts["nonce"] == before.facts["nonce"] and seconds > 0
    readers = [
        {
            "name": reader["name"],
            "pid": reader["pid"],
            "alive": alive,
            "behind_bytes": max(0, facts["tail"] - reader["position"]),
            "lost": reader["lost"],
        }
        for reader, alive in zip(facts["readers"], now.readers_alive, strict=True)
    ]
    behind = max((reader["behind_bytes"] for reader in readers), default=None)
    result = {
        "ring": now.name,
        "instance": instance_of(now.name),
        "kind": kind.name.lower(),
        "policy": POLICIES[facts["policy"]],
        "state": RingState(facts["state"]).name.lower(),
        "capacity_bytes": facts["capacity_bytes"],
        "fill_pct": None if behind is None else round(min(100.0, 100.0 * behind / facts["capacity_bytes"]), 1),
        "records": facts["records"],
        "records_per_s": round((facts["records"] - before.facts["records"]) / seconds, 1) if same else None,
        "bytes_per_s": round((facts["bytes"] - before.facts["bytes"]) / seconds, 1) if same else None,
        "drops": facts["drops"],
        "full_waits": facts["full_waits"],
        "queue_recovered": facts["queue_recovered"],
        "queue_damaged": facts["queue_damaged"],
        "lost": sum(reader["lost"] for reader in readers),
        "readers": readers,
        "owner_pid": facts["writer_pid"],
        "owner_alive": now.owner_alive,
        "heartbeat_ms": round((now.at_ns - facts["heartbeat_ns"]) / 1e6, 1),
        "epoch": facts["epoch"],
        "venue": now.manifest.get("venue"),
    }
    connections = now.manifest.get("connections")
    if now.name.endswith(".raw") and isinstance(connections, list):  # the stages after it pass on what they found
        result["connections"] = [_connection(one) for one in connections if isinstance(one, dict)]
    memory = now.manifest.get("memory")  # only of an owner that wished something of its pages
    if isinstance(memory, dict):
        result["memory"] = {key: memory[key] for key in MEMORY if isinstance(memory.get(key), int)}
    return result


def _connection(said: dict[str, Any]) -> dict[str, Any]:
    return {key: said.get(key) for key in ("id", "url", "up", "session", "ping_ms")}
