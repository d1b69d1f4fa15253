"""Misbehaviour on command: what happens to the messages of one connection, and to REST snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from exchange.session import Out

Verb = Literal["drop", "dup", "swap"]


@dataclass
class Rule:
    """The next `left` messages of one kind, symbol ("" = any) and stream ("" = any) are dropped, doubled or swapped."""

    verb: Verb
    left: int
    kind: str = "depth"
    symbol: str = ""
    stream: str = ""
    held: Out | None = None
    """the message that waits for the one it changes places with"""

    def fits(self, out: Out) -> bool:
        if self.held and (out.symbol, out.stream) != (self.held.symbol, self.held.stream):
            return False  # changing places with another book's message would disturb nobody
        return self.kind in (out.kind, "all") and self.symbol in ("", out.symbol) and self.stream in ("", out.stream)


class SendFaults:
    """The rules of one connection. The first rule that fits a message decides about it."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.done = {"drop": 0, "dup": 0, "swap": 0}

    def apply(self, out: Out) -> list[Out]:
        """The messages to send in place of `out`."""
        rule = next((rule for rule in self.rules if rule.fits(out)), None)
        if rule is None:
            return [out]
        if rule.verb == "swap" and rule.held is None:
            rule.held = out
            return []
        sent = {"drop": [], "dup": [out, out], "swap": [out, rule.held or out]}[rule.verb]
        rule.held = None
        rule.left -= 1
        self.done[rule.verb] += 1
        if not rule.left:
            self.rules.remove(rule)
        return sent


@dataclass
class SnapshotFault:
    """What is wrong with the next `left` REST snapshots of `symbol` ("" = any)."""

    left: int
    symbol: str = ""
    ids_old: int = 0
    delay_s: float = 0.0
    status: int = 0
    retry_after_s: int = 0


class SnapshotFaults:
    def __init__(self) -> None:
        self.faults: list[SnapshotFault] = []

    def take(self, symbol: str) -> SnapshotFault | None:
        """The fault for a snapshot of `symbol` that is asked for now, used up by one."""
        fault = next((fault for fault in self.faults if fault.symbol in ("", symbol)), None)
        if fault:
            fault.left -= 1
            if not fault.left:
                self.faults.remove(fault)
        return fault
