"""What every venue's session is: messages in, messages out, no I/O.

The server and the recorder drive sessions the same way; both take what a session returns and send or write it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from exchange.engine import Event, Market

Kind = Literal["depth", "snapshot", "ticker", "trade", "other"]


class Out(NamedTuple):
    """A message to the client. `symbol` is the Binance symbol it is about and `stream` the subscription, or ""."""

    kind: Kind
    symbol: str
    stream: str
    text: str


class Session(Protocol):
    """One connection of a client, as its venue sees it."""

    venue: str

    def connected(self, time_ns: int) -> list[Out]:
        """What the venue says unasked when the connection opens."""

    def receive(self, text: str, time_ns: int) -> list[Out]:
        """Answer a message of the client."""

    def event(self, market: Market, event: Event) -> list[Out]:
        """What this client is told of an event, at once."""

    def tick(self, time_ns: int) -> list[Out]:
        """What is due by the clock: conflated diffs, heartbeats."""

    def shutdown(self, time_ns: int) -> list[Out]:
        """The announcement that the server is going away, where the venue has one."""

    def streams(self) -> list[str]:
        """The subscriptions now."""
