"""How long to wait before the next attempt, and how often one may knock at all. Pure: no clock, no sleep."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

FIRST_S = 1.0
MAX_S = 30.0
HELD_S = 30.0  # a connection that held so long makes the next wait short again


class Backoff:
    """1 s, 2 s, 4 s .. 30 s, each less a random part of up to a half, so that many clients do not come back at once."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._attempts = 0

    def next_s(self) -> float:
        """The wait before the next attempt."""
        whole = min(MAX_S, FIRST_S * 2.0 ** min(self._attempts, 16))
        self._attempts += 1
        return whole * (1.0 - self._random() / 2)

    def held(self, seconds: float) -> None:
        """A connection lasted so long."""
        if seconds >= HELD_S:
            self._attempts = 0


class Budget:
    """At most `limit` units in any `window_s`; one request that is larger than all of it is let through alone."""

    def __init__(self, limit: float, window_s: float = 60.0) -> None:
        self.limit = limit
        self._window_s = window_s
        self._spent: deque[tuple[float, float]] = deque()
        self._used = 0.0

    def delay_s(self, mono_s: float, units: float) -> float:
        """How long to wait until `units` may be spent; 0: now. Does not spend them."""
        while self._spent and self._spent[0][0] <= mono_s - self._window_s:
            self._used -= self._spent.popleft()[1]
        over = self._used + min(units, self.limit) - self.limit
        wait_s = 0.0
        for at, spent in self._spent:
            if over <= 0:
                break
            over -= spent
            wait_s = at + self._window_s - mono_s
        return wait_s

    def spend(self, mono_s: float, units: float) -> None:
        self._spent.append((mono_s, units))
        self._used += units
