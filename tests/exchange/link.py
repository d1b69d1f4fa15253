"""One client's WebSocket: what its session says goes through its faults, perhaps waits for a stall, and out."""

from __future__ import annotations

import asyncio
from collections import deque

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from exchange.faults import SendFaults
from exchange.session import Out, Session
from exchange.times import SECOND

SLOW_READER_BYTES = 64 * 1024 * 1024
HELD_MESSAGES = 200_000


class Link:
    """Messages are written without waiting; a client that leaves SLOW_READER_BYTES unread is cut, as venues do."""

    def __init__(self, ident: int, websocket: ServerConnection, session: Session, time_ns: int) -> None:
        self.ident, self.websocket, self.session = ident, websocket, session
        self.opened_ns = time_ns
        self.faults = SendFaults()
        self.messages = 0
        self.bytes = 0
        self._stalled_until_ns = 0
        self._held: deque[str | bytes] = deque()
        self._received_ns: deque[int] = deque()
        self._dirty = False

    @property
    def stalled(self) -> bool:
        return bool(self._stalled_until_ns)

    def emit(self, outs: list[Out]) -> None:
        """Take messages of the session; `flush` writes them."""
        for out in outs:
            for sent in self.faults.apply(out):
                self.send(sent.text)

    def send(self, data: str | bytes) -> None:
        """Take one frame, text or binary, past the faults."""
        if self.stalled:
            self._held.append(data)
            if len(self._held) > HELD_MESSAGES:
                self.cut()
        elif self.websocket.protocol.state is State.OPEN:
            self.messages += 1
            self._dirty = True
            if isinstance(data, str):
                encoded = data.encode()
                self.websocket.protocol.send_text(encoded)
            else:
                encoded = data
                self.websocket.protocol.send_binary(encoded)
            self.bytes += len(encoded)

    def flush(self) -> None:
        if self._dirty:
            self._dirty = False
            self.websocket.send_data()
            if self.websocket.transport.get_write_buffer_size() > SLOW_READER_BYTES:
                self.cut()

    def stall(self, until_ns: int) -> None:
        """Send nothing and read nothing until then; what is due meanwhile is sent late."""
        self._stalled_until_ns = until_ns
        self.websocket.transport.pause_reading()  # so that no pong is sent either

    def wake(self, time_ns: int) -> None:
        """End a stall that is over."""
        if self.stalled and time_ns >= self._stalled_until_ns:
            self._stalled_until_ns = 0
            if not self.websocket.transport.is_closing():
                self.websocket.transport.resume_reading()
            while self._held:
                self.send(self._held.popleft())

    def cut(self) -> None:
        """Drop the TCP connection without a closing handshake."""
        self.websocket.transport.abort()

    def too_fast(self, time_ns: int, limit: int) -> bool:
        """Note a message of the client; True if it sent more than `limit` in the last second."""
        self._received_ns.append(time_ns)
        while self._received_ns[0] <= time_ns - SECOND:
            self._received_ns.popleft()
        return len(self._received_ns) > limit

    async def keep_alive(self, ping_s: float, pong_s: float) -> None:
        """Ping every `ping_s`, the time in ms as payload; close if no pong comes in `pong_s`."""
        while True:
            await asyncio.sleep(ping_s)
            if self.stalled:
                continue
            try:
                pong = await self.websocket.ping(str(int(asyncio.get_running_loop().time() * 1000)))
                await asyncio.wait_for(pong, pong_s)
            except TimeoutError:
                await self.websocket.close(1008, "Pong timeout")
                return
            except ConnectionClosed:
                return

    async def expire(self, age_s: float) -> None:
        """Close the connection at this age, as Binance does after 24 h."""
        await asyncio.sleep(age_s)
        await self.websocket.close(1008, "disconnected")
