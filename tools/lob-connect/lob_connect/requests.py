"""Requests that travel upstream (resync, snapshot, reconnect, subscribe): coalesced, carried out, each id answered.

Two that want the same are one while the first is under way; both ids get its answer. What a request means for a venue
is decided here; how it is done, by `Work`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from lob.records import Outcome, RequestKind

WAITING_MAX = 64  # ids that wait for one answer; the bound of this buffer
Result: TypeAlias = tuple[Outcome, str]
Answer: TypeAlias = Callable[["Request", Outcome, str], None]
Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


@dataclass(frozen=True)
class Request:
    """One slot of the ring's queue. `symbol` "": the whole venue."""

    id: int
    kind: int
    reason: int
    symbol: str


class Work(Protocol):
    """What can be done for a request; each says how it went, in an outcome and a few words."""

    def knows(self, symbol: str) -> bool: ...
    async def snapshot(self, symbol: str) -> Result: ...
    async def reconnect(self, symbol: str) -> Result: ...
    async def subscribe(self, symbol: str) -> Result: ...
    async def unsubscribe(self, symbol: str) -> Result: ...


class Requests:
    """Takes requests, keeps one task for each distinct one."""

    def __init__(
        self, work: Work, answer: Answer, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    ) -> None:
        self.taken = 0
        self.coalesced = 0
        self._work = work
        self._answer = answer
        self._spawn = spawn
        self._waiting: dict[tuple[RequestKind, str], list[Request]] = {}

    def take(self, request: Request) -> None:
        """Start what it wants, or join what is under way. Its answer may come at once or later."""
        self.taken += 1
        try:
            kind = RequestKind(request.kind)
        except ValueError:
            self._answer(request, Outcome.REFUSED, f"no request of kind {request.kind}")
            return
        # A snapshot and a resync are the same work: what a resync means beyond it is the asker's own state.
        if kind is RequestKind.SNAPSHOT:
            kind = RequestKind.RESYNC
        why = self._refusal(kind, request.symbol)
        if why is not None:
            self._answer(request, Outcome.REFUSED, why)
            return
        key = kind, request.symbol
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = [request]
            self._spawn(self._carry_out(*key))
        elif len(waiting) < WAITING_MAX:
            self.coalesced += 1
            waiting.append(request)
        else:
            self._answer(request, Outcome.REFUSED, f"{WAITING_MAX} others wait for the same")

    def _refusal(self, kind: RequestKind, symbol: str) -> str | None:
        if kind is RequestKind.RECONNECT and not symbol:
            return None
        if not symbol:
            return "no symbol given"
        if kind is RequestKind.SUBSCRIBE:
            return "subscribed already" if self._work.knows(symbol) else None
        return None if self._work.knows(symbol) else "not subscribed"

    async def _carry_out(self, kind: RequestKind, symbol: str) -> None:
        does = {
            RequestKind.RESYNC: self._work.snapshot,
            RequestKind.RECONNECT: self._work.reconnect,
            RequestKind.SUBSCRIBE: self._work.subscribe,
            RequestKind.UNSUBSCRIBE: self._work.unsubscribe,
        }
        outcome, detail = Outcome.FAILED, "stopped"
        try:
            outcome, detail = await does[kind](symbol)
        finally:
            for request in self._waiting.pop((kind, symbol)):
                self._answer(request, outcome, detail)
