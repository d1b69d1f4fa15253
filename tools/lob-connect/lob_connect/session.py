"""One connection to a venue, kept up: connect, subscribe, notice that it is dead, come back."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from websockets.exceptions import ConnectionClosed, WebSocketException

from lob.venues.venue import Venue
from lob_connect._native import FrameReader
from lob_connect.backoff import Backoff, Budget
from lob_connect.raw import Connection, RawRing
from lob_connect.socket import Socket, Transport, open_socket

# A message that wants our attention is short and holds one of these; venue.control then reads it. Data pay three
# searches in at most 512 bytes (0.1 us), and nothing if they are longer.
ATTENTION_MAX_BYTES = 512
MARKS = ('"error"', '"code":', "serverShutdown")
ERROR_MARK, CODE_MARK, SHUTDOWN_MARK = (mark.encode() for mark in MARKS)


class NotConnected(Exception):
    """There is no connection to send on."""


@dataclass(frozen=True)
class Terms:
    """What all connections to a venue have in common."""

    venue: Venue
    base_url: str
    depth: int
    context: ssl.SSLContext | None
    connects: Budget
    say: Callable[[str], None]
    transport: Transport


class Session:
    """Runs one connection for ever; `connection.session` counts how often it was open."""

    def __init__(self, connection: Connection, terms: Terms, raw: RawRing) -> None:
        self.connection = connection
        self.up = asyncio.Event()
        self.reconnects = 0
        self.failure: Exception | None = None
        self.on_subscribed: Callable[[Session], None] | None = None
        self._terms = terms
        self._venue = terms.venue
        self._raw = raw
        self._frame = raw.frame
        self._backoff = Backoff(random.random)
        self._socket: Socket | None = None
        self._reader: FrameReader | None = None
        self._url = ""
        self._why = ""
        self._planned = False
        self._stopping = False
        self._request_id = 0
        self._sending = asyncio.Lock()
        self._next_send_s = 0.0
        self._last_frame_ns = 0
        self._opened_s = 0.0
        self._age_limit_s = 0.0
        self._next_keep_alive_s = 0.0
        # What the ring takes we take, too: then --ring-bytes is the one thing to turn.
        self._message_max_bytes = max(self._venue.max_frame_bytes, raw.writer.record_max_bytes)
        self._tasks: set[asyncio.Task[None]] = set()

    # -- what comes in (socket.Receiver) ------------------------------------------------------------------------------

    def opened(self, recv_ns: int, socket: Socket) -> FrameReader | None:
        now = time.monotonic()
        self.reconnects += self._opened_s > 0
        self._opened_s, self._last_frame_ns = now, time.monotonic_ns()
        # All connections of a start would otherwise grow old in the same second.
        self._age_limit_s = now + self._venue.max_age_s * random.uniform(0.95, 1.0)
        self._next_keep_alive_s = now + self._venue.ping_interval_s
        self._raw.link_up(self.connection, self._url, recv_ns)
        if self._terms.transport.native:
            self._reader = self._raw.frame_reader(
                self.connection, socket, self._message_max_bytes, ATTENTION_MAX_BYTES, MARKS
            )
        return self._reader

    def received(self, recv_ns: int, origin_ns: int, payload: bytes) -> None:
        try:
            self._frame(self.connection, recv_ns, origin_ns, payload)
        except Exception as error:
            self.failure = error  # a corrupt ring; the protocol would take it for its own trouble
            raise
        self._last_frame_ns = origin_ns
        self._look(payload)

    def noted(self, recv_ns: int, payload: bytes) -> None:
        self._raw.record(self.connection, recv_ns, payload)
        self._look(payload)

    def lost(self, count: int) -> None:
        self._raw.dropped(self.connection, count)

    def pay(self) -> bool:
        return self._raw.pay()

    def broken(self, error: Exception) -> None:
        self.failure = error

    def _look(self, payload: bytes) -> None:
        if len(payload) < ATTENTION_MAX_BYTES and (
            ERROR_MARK in payload or CODE_MARK in payload or SHUTDOWN_MARK in payload
        ):
            self._attend(payload)

    def too_large(self, sentence: str) -> None:
        self._raw.too_large(self.connection, time.time_ns(), sentence, received=False)

    def closed(self, recv_ns: int) -> None:
        self._reader = None
        self._raw.link_down(self.connection, self._url, recv_ns)

    def _attend(self, payload: bytes) -> None:
        try:
            control = self._venue.control(payload)
        except (ValueError, KeyError, TypeError):
            return  # lob-parse counts what cannot be read
        if control is None:
            return
        if control.kind == "reconnect":
            self.reconnect("the server is going away")
        elif control.kind == "error":
            whom = f"{control.symbol}: " if control.symbol else ""
            self._say(f"{whom}{self._venue.name} answers: {control.error}")

    def _say(self, sentence: str) -> None:
        self._terms.say(f"{self.connection.label}: {sentence}")

    # -- what goes out ------------------------------------------------------------------------------------------------

    def next_request_id(self) -> int:
        self._request_id += 1
        return self._request_id

    async def send(self, messages: list[str]) -> None:
        """Send, as fast as the venue lets us. Raises NotConnected."""
        socket = self._socket
        async with self._sending:
            for text in messages:
                wait_s = self._next_send_s - time.monotonic()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                if socket is None or self._socket is not socket:
                    raise NotConnected
                self._next_send_s = time.monotonic() + 1.0 / self._venue.limits.messages_per_s
                self._raw.sent(self.connection, time.time_ns(), self._url, text)
                try:
                    await socket.send(text)
                except ConnectionClosed:
                    raise NotConnected from None

    async def subscribe(self, symbols: list[str]) -> None:
        """Raises NotConnected."""
        await self.send(self._venue.subscribe(symbols, self._terms.depth, self.next_request_id()))

    async def unsubscribe(self, symbols: list[str]) -> None:
        """Raises NotConnected."""
        await self.send(self._venue.unsubscribe(symbols, self._terms.depth, self.next_request_id()))

    # -- a life -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until `close`, or cancelled."""
        while not self._stopping:
            await self._wait_for_turn()
            held_s = await self._once()
            if self._stopping or (self._planned and held_s >= 1.0):
                continue
            self._backoff.held(held_s)
            wait_s = self._backoff.next_s()
            self._say(f"{self._why}; next attempt in {wait_s:.1f} s")
            await asyncio.sleep(wait_s)

    async def _wait_for_turn(self) -> None:
        connects = self._terms.connects
        while (wait_s := connects.delay_s(time.monotonic(), 1)) > 0:
            await asyncio.sleep(wait_s)
        connects.spend(time.monotonic(), 1)

    async def _once(self) -> float:
        """Connect and stay until the connection ends; how long it held."""
        venue = self._venue
        self._why, self._planned = "", False
        self._url = venue.connect_url(self._terms.base_url, self.connection.symbols)
        try:
            socket = await open_socket(
                self._url,
                self,
                context=self._terms.context,
                compression=venue.compression,
                max_message_bytes=self._message_max_bytes,
                ping_interval_s=venue.ping_interval_s,
                transport=self._terms.transport,
            )
        except (OSError, EOFError, WebSocketException) as error:
            self._why = f"cannot connect to {self._url}: {sentence_of(error)}"
            return 0.0
        self._socket = socket
        self._next_send_s = 0.0
        self.up.set()
        try:
            await self._greet(socket)
            await socket.wait_closed()
        finally:
            self.up.clear()
            self._socket = None
        if not self._why:
            code = socket.close_code
            reason = f" ({socket.close_reason})" if socket.close_reason else ""
            self._why = f"the connection was closed with code {code}{reason}"
        return time.monotonic() - self._opened_s

    async def _greet(self, socket: Socket) -> None:
        """Subscribe; and ask for one round trip, so that the ping is known before the first interval is over."""
        with contextlib.suppress(NotConnected, ConnectionClosed):
            if self.connection.symbols:
                await self.subscribe(self.connection.symbols)
            await socket.ping()
            if self.on_subscribed is not None:
                self.on_subscribed(self)

    def tick(self) -> None:
        """Look at the clock: silence, age, keep-alive, round trip."""
        socket = self._socket
        if socket is None or self._why:
            return
        self.connection.ping_ms = round(socket.latency * 1000, 3) if socket.latency else None
        now = time.monotonic()
        if self._reader is not None:
            self._last_frame_ns = max(self._last_frame_ns, self._reader.last_ns)
        if self.connection.symbols and now - self._last_frame_ns / 1e9 > self._venue.silence_s:
            self.reconnect(f"no message for {self._venue.silence_s:.0f} s", planned=False)
        elif now > self._age_limit_s:
            self.reconnect("the connection is old")
        elif now > self._next_keep_alive_s:
            self._next_keep_alive_s = now + self._venue.ping_interval_s
            if (message := self._venue.keep_alive(self.next_request_id())) is not None:
                self._spawn_send(message)

    def _spawn_send(self, message: str) -> None:
        async def send() -> None:
            with contextlib.suppress(NotConnected):
                await self.send([message])

        self._spawn(asyncio.get_running_loop().create_task(send()))

    def _spawn(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def reconnect(self, why: str, *, planned: bool = True) -> bool:
        """End this connection; the next one follows, without a wait if it was planned. False: there is none."""
        socket = self._socket
        if socket is None or self._why:
            return False
        self._why, self._planned = why, planned
        if planned:
            self._say(f"{why}; connecting anew")
        self._spawn(asyncio.get_running_loop().create_task(socket.close()))
        return True

    async def close(self) -> None:
        """End for good, politely; the venue has a second for its part."""
        self._stopping = True
        if self._socket is not None:
            await self._socket.close()


def sentence_of(error: BaseException) -> str:
    """The error's own words, short."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
