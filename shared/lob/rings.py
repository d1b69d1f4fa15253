"""The two ends of a ring: who owns it, and who reads it."""

from __future__ import annotations

import os
import time
from functools import cached_property, partial
from typing import Any, TypeAlias, cast

import orjson

from lob import _native
from lob.errors import NoRing, RingError, RoleTaken, WrongLayout
from lob.manifest import read_manifest
from lob.memory import AS_IT_COMES, RingMemory
from lob.names import check_name
from lob.records import Reason, RequestKind
from lob.roles import READER_ROLE, WRITER_ROLE, Roles
from lob.segments import (
    CAPACITY_MAX_BYTES,
    CAPACITY_MIN_BYTES,
    POLICIES,
    Kind,
    Policy,
    RingState,
    make_segment,
    open_segment,
    unlink,
    unlink_left_behind,
)

HEARTBEAT_S = 0.1
SILENT_NS = 500_000_000  # a writer without a sign of life for so long is silent: half of the second we promise

Writer: TypeAlias = "_native.SpscWriter | _native.BroadcastWriter"


class OutputRing:
    """A ring or board that this process owns.

    `taken_over` tells whether it had another owner before; its manifest of then is `inherited`.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        *,
        policy: Policy = "drop",
        capacity_bytes: int = 1 << 20,
        manifest: dict[str, Any] | None = None,
        keep: bool = False,
        group: str | None = None,
        board_slots: int = 0,
        board_depth: int = 0,
        first_position: int = 0,
        memory: RingMemory = AS_IT_COMES,
    ) -> None:
        """`keep`: a named ring: take over what is there; else whatever a dead owner left is unlinked first.

        Raises RoleTaken, WrongLayout, NoSpace; ValueError for a name or size that cannot be.
        """
        self.name = check_name(name)
        self.kind = kind
        if kind is Kind.BOARD:
            capacity_bytes = _native.board_capacity_bytes(board_slots, board_depth)
        elif not CAPACITY_MIN_BYTES <= capacity_bytes <= CAPACITY_MAX_BYTES or capacity_bytes & (capacity_bytes - 1):
            raise ValueError(f"a ring of {capacity_bytes} bytes: give a power of two from 4 KiB to 64 GiB")
        self._roles = Roles(name)
        if not self._roles.try_take(WRITER_ROLE):
            self._roles.close()
            raise RoleTaken(name, "owner", _owner_pid(name))
        self.manifest = dict(manifest or {})
        self.inherited: dict[str, Any] = {}
        self.taken_over = False
        try:
            segment = there = self._existing(manifest or {}, policy) if keep else None
            if segment is None:
                unlink_left_behind(name)
                self._roles.renew()
                board = (board_slots, board_depth)
                complete = partial(self._complete, memory)
                segment = make_segment(
                    name, kind, policy, capacity_bytes, board, group, first_position, memory, complete
                )
            else:
                memory.move_to_node(segment, name)
                self._have(segment, memory)
            facts = segment.facts()
            self.policy: Policy = POLICIES[int(facts["policy"])]
            self.capacity_bytes = int(facts["capacity_bytes"])
            self.writer: Writer
            if kind is Kind.SPSC:
                self.writer = _native.SpscWriter(segment)
            elif kind is Kind.BROADCAST:
                self.writer = _native.BroadcastWriter(segment)
            else:
                # Its slots are written by lob-book's native code; all that is done here is what every writer does.
                self.writer = cast(Writer, _native.BoardOwner(segment))
            if there is not None:
                self.write_manifest()
        except BaseException:
            self._roles.close()
            raise
        self.writer.take_over(os.getpid())
        self._closed = False

    @cached_property
    def requests(self) -> _native.RequestQueue:
        """What those who read us ask for."""
        return self._roles.request_queue(self.segment)

    def _have(self, segment: _native.Segment, memory: RingMemory) -> None:
        self.segment: _native.Segment = segment
        self._memory = memory.arrange(segment, self.name, ours=True)

    def _complete(self, memory: RingMemory, segment: _native.Segment) -> None:
        """Before a new segment has its name: nobody finds it with pages on the move, or without its manifest."""
        self._have(segment, memory)
        self.write_manifest()

    def _existing(self, manifest: dict[str, Any], policy: Policy) -> _native.Segment | None:
        try:
            segment = open_segment(self.name, writable=True)
        except NoRing:
            return None
        facts = segment.facts()
        if facts["kind"] != int(self.kind):
            raise WrongLayout(f"{self.name} is a {Kind(facts['kind']).name.lower()}, not a {self.kind.name.lower()}")
        self.inherited = read_manifest(segment)
        before, now = self.inherited.get("venue"), manifest.get("venue")
        if before and now and before != now:
            raise WrongLayout(f"{self.name} belongs to venue {before}, not {now}; choose another --instance")
        its_policy = POLICIES[int(facts["policy"])]
        if its_policy != policy:
            raise WrongLayout(f"{self.name} has the policy {its_policy}, not {policy}; remove it with lob-trace clean")
        self.taken_over = bool(facts["records"]) or bool(self.inherited)
        return segment

    def write_manifest(self) -> None:
        """Publish `self.manifest` as it stands now, and how our pages lie if anything was wished of them."""
        facts = {key: value for key, value in self.manifest.items() if key != "memory"}  # a predecessor's
        if self._memory:
            facts["memory"] = self._memory
        self.segment.write_manifest(orjson.dumps(facts))

    def readers_behind(self) -> tuple[bool, int]:
        """(whether a reader is attached now, bytes that the slowest registered reader has not released)."""
        facts = self.segment.facts()
        attached = any(self._roles.held(READER_ROLE + reader["slot"]) for reader in facts["readers"])
        behind = max((facts["tail"] - reader["position"] for reader in facts["readers"]), default=0)
        return attached, behind

    def free_dead_readers(self) -> list[str]:
        """Under `wait`: give up on registered readers that are gone; their names. The downstream slot stays."""
        gone = []
        for reader in self.segment.facts()["readers"]:
            slot = reader["slot"]
            # The role is ours meanwhile: a reader that takes the slot just now would be freed alive.
            if slot != 0 and self._roles.if_free(READER_ROLE + slot, partial(self.segment.free_reader, slot)):
                gone.append(reader["name"])
        return gone

    def close(self, state: RingState, *, remove: bool) -> None:
        """Give up the role, leaving the ring in `state`; `remove`: unlink it too. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self.writer.set_state(int(state))
        if remove:
            unlink(self.name)
        self._roles.close()


def _owner_pid(name: str) -> int:
    try:
        return int(open_segment(name, writable=False).facts()["writer_pid"])
    except RingError:
        return 0


class InputRing:
    """A ring that this process reads, with a role of its own in it.

    `reader` is a SpscReader or BroadcastReader. When the name comes to mean another segment (somebody removed and
    made it anew), `replaced` tells, and `reattach` goes over to it: `reader` is another object then.
    """

    def __init__(self, name: str, who: str, memory: RingMemory = AS_IT_COMES) -> None:
        """Raises NoRing, WrongLayout, RoleTaken."""
        self.name = check_name(name)
        self.who = who
        self._memory = memory
        segment = open_segment(name, writable=True)  # before the roles: no lock file beside no ring
        self._roles = Roles(name)
        try:
            self._attach(segment)
        except BaseException:
            self._roles.close()
            raise

    def _attach(self, segment: _native.Segment) -> None:
        self.segment = segment
        self._requests: _native.RequestQueue | None = None
        facts = segment.facts()
        self.kind = Kind(facts["kind"])
        self.policy: Policy = POLICIES[int(facts["policy"])]
        self.slot = self._take_slot(facts)
        self.reader: _native.SpscReader | _native.BroadcastReader
        if self.kind is Kind.SPSC:
            self.reader = _native.SpscReader(self.segment)
        elif self.kind is Kind.BROADCAST:
            ours = any(r["slot"] == self.slot and r["name"] in (self.who, "downstream") for r in facts["readers"])
            self.reader = _native.BroadcastReader(self.segment, "slot" if ours else "oldest", self.slot)
        else:
            raise WrongLayout(f"{self.name} is a board, no ring")
        self._memory.arrange(segment, self.name, ours=False)
        self.segment.name_reader(self.slot, self.who, os.getpid())
        self._manifest_version = -1
        self._manifest: dict[str, Any] = {}

    def _take_slot(self, facts: dict[str, Any]) -> int:
        """The slot kept for the stage downstream, else the one we had before, else a free one."""
        names = {reader["slot"]: reader["name"] for reader in facts["readers"]}
        wanted = [slot for slot, name in names.items() if name in (self.who, "downstream")]
        free = [slot for slot in range(_native.READER_SLOTS) if slot not in names]
        slots = [0] if self.kind is Kind.SPSC else [*wanted, *free]
        # Slots of dead readers may be had too, last.
        slots += [s for s in names if s not in slots and self.kind is Kind.BROADCAST]
        for slot in slots:
            if self._roles.try_take(READER_ROLE + slot):
                return slot
        raise RoleTaken(self.name, "reader", next((r["pid"] for r in facts["readers"]), 0))

    @property
    def manifest(self) -> dict[str, Any]:
        """The writer's manifest, read again when it has changed."""
        version = self.segment.manifest_version
        if version != self._manifest_version:
            self._manifest = read_manifest(self.segment)
            self._manifest_version = version
        return self._manifest

    @property
    def manifest_version(self) -> int:
        return int(self.segment.manifest_version)

    @property
    def writer_alive(self) -> bool:
        return self._roles.held(WRITER_ROLE)

    @property
    def state(self) -> RingState:
        """Raises CorruptRing."""
        try:
            return RingState(self.reader.state)
        except ValueError:
            raise _native.CorruptRing(f"{self.name} has no state {self.reader.state}") from None

    @property
    def silent(self) -> bool:
        """The writer has given no sign of life for half a second."""
        return bool(self.reader.silent_ns > SILENT_NS)

    def request(self, kind: RequestKind, symbol: str, reason: Reason = Reason.NONE) -> bool:
        """Post a request that travels upstream; False if the queue is full."""
        return bool(self.requests.post(time.monotonic_ns(), int(kind), int(reason), symbol))

    @property
    def requests(self) -> _native.RequestQueue:
        """The queue that travels upstream, of the segment that we read now."""
        if self._requests is None:
            self._requests = self._roles.request_queue(self.segment)
        return self._requests

    def replaced(self) -> bool:
        """Whether the name means another segment now."""
        try:
            return bool(open_segment(self.name, writable=False).nonce != self.segment.nonce)
        except RingError:
            return False

    def reattach(self) -> None:
        """Go over to the segment that has the name now. Raises as the constructor does."""
        segment = open_segment(self.name, writable=True)
        self._roles.close()
        self._roles = Roles(self.name)
        self._attach(segment)

    def close(self) -> None:
        """Give back the role. The slot stays registered, so the next of our kind goes on where we stopped."""
        self.reader.publish()
        self._roles.close()
