"""A WebSocket whose messages are stamped when their bytes leave the socket and handed on before anybody else runs.

`websockets` puts messages into a queue for a task that waits in `recv`; here they go on from within `data_received`,
so between the kernel and the ring there is no queue and no switch of tasks. The protocol would parse all that one read
gave before it hands on the first message; here each goes on as soon as it is parsed (of 100 messages in one read the
first waits 3 us and not 240). Under TLS "leave the socket" means: leave the TLS layer, which has decrypted all that one
read gave.
"""

from __future__ import annotations

import logging
import ssl
import time
from functools import partial
from typing import Any, Protocol, cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

USER_AGENT = "crypto-lob"
CLOSE_TIMEOUT_S = 1.0
OPEN_TIMEOUT_S = 10.0
PONG_TIMEOUT_S = 20.0

_TEXT, _BINARY, _CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONT

# Its words (a failed ping, a lost socket) are ours to say, once and in our own way.
_quiet = logging.getLogger("lob_connect.websockets")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


class Receiver(Protocol):
    """Who is told what comes in. All times are those of the read that brought it."""

    def opened(self, recv_ns: int) -> None:
        """The handshake is done; messages follow."""

    def received(self, recv_ns: int, origin_ns: int, payload: bytes) -> None:
        """One whole message, text or binary."""

    def too_large(self, sentence: str) -> None:
        """A message above the limit; the connection ends."""

    def closed(self, recv_ns: int) -> None:
        """The connection is gone. Only after `opened`."""


class Socket(ClientConnection):
    """One connection; see the module's text."""

    def __init__(self, protocol: ClientProtocol, receiver: Receiver, **options: Any) -> None:
        super().__init__(protocol, **options)
        self.recv_ns = 0
        self.origin_ns = 0
        self._receiver = receiver
        self._received = receiver.received
        self._parts: list[bytes] = []
        self._opened = False
        self._check_frame = protocol.recv_frame
        protocol.recv_frame = self._frame_parsed  # type: ignore[method-assign]

    def data_received(self, data: bytes) -> None:
        self.recv_ns = time.time_ns()
        self.origin_ns = time.monotonic_ns()
        super().data_received(data)

    def _frame_parsed(self, frame: Frame) -> None:
        """In place of the protocol's `recv_frame`, from which it raises ProtocolError."""
        self._check_frame(frame)
        opcode = frame.opcode
        if self._opened and (opcode is _TEXT or opcode is _BINARY or opcode is _CONT):
            self.protocol.events.pop()  # it has just put it there
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        if frame.fin and not self._parts:
            self._received(self.recv_ns, self.origin_ns, bytes(frame.data))
            return
        self._parts.append(bytes(frame.data))
        if frame.fin:
            message, self._parts = b"".join(self._parts), []
            self._received(self.recv_ns, self.origin_ns, message)

    def process_event(self, event: Event) -> None:
        if isinstance(event, Frame):
            if event.opcode in (_TEXT, _BINARY, _CONT):
                self._take(event)  # came in one read with the answer to the handshake
            else:
                super().process_event(event)
            return
        super().process_event(event)
        if self.protocol.handshake_exc is None:
            # Here and not after `await connect()`, nor by the protocol's state: the venue's first messages, even its
            # closing, may be in this very read.
            self._opened = True
            self._receiver.opened(self.recv_ns)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._opened:
            self._opened = False
            error = self.protocol.parser_exc
            if isinstance(error, PayloadTooBig):
                self._receiver.too_large(str(error))
            self._receiver.closed(time.time_ns())
        super().connection_lost(exc)


async def open_socket(
    url: str,
    receiver: Receiver,
    *,
    context: ssl.SSLContext | None,
    compression: bool,
    max_message_bytes: int,
    ping_interval_s: float,
) -> Socket:
    """Connect. Raises OSError, TimeoutError or websockets.exceptions.WebSocketException."""
    tls: dict[str, Any] = {"ssl": context} if url.startswith("wss:") and context is not None else {}
    factory = cast(type[ClientConnection], partial(Socket, receiver=receiver))
    socket = await connect(
        url,
        create_connection=factory,
        compression="deflate" if compression else None,
        max_size=max_message_bytes,
        max_queue=None,
        ping_interval=ping_interval_s,
        ping_timeout=PONG_TIMEOUT_S,
        open_timeout=OPEN_TIMEOUT_S,
        close_timeout=CLOSE_TIMEOUT_S,
        user_agent_header=USER_AGENT,
        logger=_quiet,
        **tls,
    )
    return cast(Socket, socket)
