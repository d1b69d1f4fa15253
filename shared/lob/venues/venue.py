"""What a venue's file must tell: one `Venue` subclass with data, the shapes, and a few small functions.

All of it is pure: strings in, strings and facts out. lob-connect does the I/O, lob-parse the decoding, lob-book the
sequence rule; none of them knows a venue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import orjson

from lob.venues.shape import Shape


@dataclass(frozen=True)
class Subscription:
    """One book that was asked for on a connection. `depth`: levels a side, 0 = all that the venue has."""

    symbol: str
    depth: int = 0


@dataclass(frozen=True)
class Metadata:
    """Steps of an instrument as decimal text from the venue, e.g. tick_size "0.01000000"; None: not told."""

    symbol: str
    tick_size: str | None = None
    lot_size: str | None = None
    trading: bool = True


@dataclass(frozen=True)
class HttpAnswer:
    """What a REST answer is: a snapshot of `symbol`, or metadata of instruments."""

    kind: Literal["snapshot", "metadata"]
    symbol: str = ""


@dataclass(frozen=True)
class Control:
    """What a frame without market data means.

    `subscribed` names books that the venue has confirmed (with the depth it gives); `error` is the venue's own
    sentence, `symbol` whom it concerns; `reconnect` asks for a new connection (the server is going away).
    """

    kind: Literal["ack", "error", "info", "pong", "reconnect"]
    subscribed: tuple[Subscription, ...] = ()
    error: str = ""
    symbol: str = ""


def json_object(frame: bytes) -> dict[str, Any]:
    """The frame as the JSON object that it is; empty if it is none."""
    try:
        message = orjson.loads(frame)
    except orjson.JSONDecodeError:
        return {}
    return message if isinstance(message, dict) else {}


@dataclass(frozen=True)
class Limits:
    """How hard we may knock. Weights and budgets are the venue's own units."""

    streams_per_connection: int = 200
    messages_per_s: float = 4.0  # what we send on one connection
    rest_weight_per_min: int = 6000
    connect_per_min: int = 60


class Venue:
    """Base of the venues: the defaults of what most do not need to say."""

    name: ClassVar[str]
    ws_url: ClassVar[str]
    rest_url: ClassVar[str]
    hosts: ClassVar[tuple[str, ...]]  # host names (suffixes) by which a recording's URL is recognised
    rule: ClassVar[Literal["none", "range", "chain", "step"]]
    scope: ClassVar[Literal["instrument", "connection"]] = "instrument"
    snapshot: ClassVar[Literal["rest", "stream"]]
    checksum: ClassVar[Literal["none", "kraken_crc32"]] = "none"
    truncates: ClassVar[bool] = False  # the client must cut the book to the subscribed depth
    default_depth: ClassVar[int] = 0  # what `subscribe` asks for unless told otherwise; 0 = all
    compression: ClassVar[bool] = False
    max_frame_bytes: ClassVar[int] = 16 << 20
    ping_interval_s: ClassVar[float] = 20.0
    silence_s: ClassVar[float] = 60.0  # a connection without any frame for so long is dead
    max_age_s: ClassVar[float] = 24 * 3600 - 300  # reconnect before the venue does
    limits: ClassVar[Limits] = Limits()

    shape: ClassVar[Shape]
    snapshot_shape: ClassVar[Shape | None] = None  # of the REST snapshot; its symbol comes from the URL

    def connect_url(self, base: str, symbols: Sequence[str]) -> str:
        """Where to connect for these symbols. `base` is `ws_url` or what --url says."""
        return base

    def subscribe(self, symbols: Sequence[str], depth: int, request_id: int) -> list[str]:
        """Messages that subscribe these symbols' books (and what else belongs to them)."""
        raise NotImplementedError

    def unsubscribe(self, symbols: Sequence[str], depth: int, request_id: int) -> list[str]:
        raise NotImplementedError

    def keep_alive(self, request_id: int) -> str | None:
        """A message to send every `ping_interval_s`, or None if WebSocket pings are enough."""
        return None

    def snapshot_request(self, base: str, symbol: str, depth: int) -> tuple[str, int]:
        """URL of the REST snapshot and its weight. Only for `snapshot == "rest"`."""
        raise NotImplementedError

    def metadata_request(self, base: str, symbols: Sequence[str]) -> tuple[str, int] | None:
        """URL that tells steps of these instruments, and its weight."""
        return None

    def http_answer(self, url: str) -> HttpAnswer | None:
        """What the answer to a request of this URL is; None: nothing we use."""
        return None

    def metadata(self, body: bytes) -> list[Metadata]:
        """Instruments in a metadata answer. Raises ValueError if it is not one."""
        return []

    def subscriptions(self, text: str) -> list[Subscription]:
        """Books asked for in a message that we sent; [] if it asks for none."""
        return []

    def url_subscriptions(self, url: str) -> list[Subscription]:
        """Books asked for by the connection's URL alone."""
        return []

    def control(self, frame: bytes) -> Control | None:
        """What a frame that the shape does not know means; None: unknown to us too."""
        return None

    def recognises(self, url: str) -> bool:
        """Whether a connection to this URL is one of ours."""
        host = url.split("://", 1)[-1].split("/", 1)[0].split(":", 1)[0].lower()
        return any(host == known or host.endswith("." + known) for known in self.hosts)

