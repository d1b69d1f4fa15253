"""A WebSocket whose messages are stamped when their bytes leave the socket and handed on before anybody else runs.

Two transports. Both leave the handshake, control frames, fragments, compression, errors and the closing to the Sans-I/O
protocol of `websockets`.

native       Each whole data frame goes from the bytes of the read into the ring (native/frames.hpp), never into Python.
             What is no plain data frame goes to the protocol, in its place among the messages. On a loop with a
             FrameSelector the socket is read there; on any other the bytes come through `data_received`.
websockets   All bytes go to the protocol; a message is handed on as soon as it is parsed (of 100 messages in one read
             the first waits 3 us and not 240). For comparison.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket as sockets
import ssl
import time
import urllib.request
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.protocol import CONNECTING, Event

from lob_connect._native import FrameReader
from lob_connect.selector import FrameSelector

USER_AGENT = "crypto-lob"
CLOSE_TIMEOUT_S = 1.0
OPEN_TIMEOUT_S = 10.0
PONG_TIMEOUT_S = 20.0
SO_BUSY_POLL = 46  # asm-generic/socket.h; Python has no name for it
BUSY_POLL_US = 50

_TEXT, _BINARY, _CONT, _CLOSE = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.CLOSE

# Its words (a failed ping, a lost socket) are ours to say, once and in our own way.
_quiet = logging.getLogger("lob_connect.websockets")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


@dataclass(frozen=True)
class Transport:
    """How sockets are read. `selector`: that of the running loop, if it is one of ours."""

    native: bool = True
    selector: FrameSelector | None = None
    receive_buffer_bytes: int | None = None  # None: the kernel tunes it
    busy_poll: bool = False


class Receiver(Protocol):
    """Who is told what comes in. All times are those of the read that brought it."""

    def opened(self, recv_ns: int, socket: Socket) -> FrameReader | None:
        """The handshake is done; messages follow: natively, if this returns a reader whose owner is the socket."""

    def received(self, recv_ns: int, origin_ns: int, payload: bytes) -> None:
        """One whole message, text or binary, that no reader took."""

    def noted(self, recv_ns: int, payload: bytes) -> None:
        """A message that a reader has put into the ring, and that bears a mark; see FrameOwner.message."""

    def lost(self, count: int) -> None:
        """So many messages found no room in the ring."""

    def pay(self) -> bool:
        """Write what is owed to the ring; True if nothing is owed any more."""

    def broken(self, error: Exception) -> None:
        """The ring cannot be written; the connection ends."""

    def too_large(self, sentence: str) -> None:
        """A message above the limit; the connection ends."""

    def closed(self, recv_ns: int) -> None:
        """The connection is gone. Only after `opened`."""


class Socket(ClientConnection):
    """One connection; see the module's text."""

    def __init__(
        self, protocol: ClientProtocol, receiver: Receiver, transport_options: Transport, **options: Any
    ) -> None:
        super().__init__(protocol, **options)
        self.recv_ns = 0
        self.origin_ns = 0
        self._receiver = receiver
        self._received = receiver.received
        self._options = transport_options
        self._reader: FrameReader | None = None
        self._parts: list[bytes] = []
        self._text = False
        self._opened = False
        self._check_frame = protocol.recv_frame
        protocol.recv_frame = self._frame_parsed  # type: ignore[method-assign]
        self._fail = protocol.fail
        protocol.fail = self._failed  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        socket = transport.get_extra_info("socket")
        if self._options.receive_buffer_bytes is not None:
            socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, self._options.receive_buffer_bytes)
        if self._options.busy_poll:
            # Also the driver's queue is polled then, where the kernel and the network card have it. More than the
            # host's net.core.busy_read takes CAP_NET_ADMIN; without it we poll the socket only.
            with contextlib.suppress(OSError):
                socket.setsockopt(sockets.SOL_SOCKET, SO_BUSY_POLL, BUSY_POLL_US)

    # -- bytes --------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._read(data, time.time_ns(), time.monotonic_ns())

    def _read(self, data: bytes, recv_ns: int, origin_ns: int) -> None:
        self.recv_ns, self.origin_ns = recv_ns, origin_ns
        if self.protocol.state is CONNECTING:
            # Line by line: what follows the answer to the handshake in the same read are frames already.
            while data and self.protocol.state is CONNECTING and self.protocol.handshake_exc is None:
                end = data.find(b"\n") + 1 or len(data)
                super().data_received(data[:end])
                data = data[end:]
            if not data:
                return
        if self._reader is None:
            super().data_received(data)
        else:
            self._guarded(self._reader.feed, data, recv_ns, origin_ns)

    def _guarded(self, work: Any, *arguments: Any) -> bool:
        """Whether the native work was done; if not, the connection ends."""
        try:
            work(*arguments)
        except Exception as error:
            self.broken(error)
            return False
        return True

    def _short_way(self) -> None:
        """Let the loop's selector read the socket, if it is a plain one or TLS that we can take part in."""
        selector, reader = self._options.selector, self._reader
        if selector is None or reader is None:
            return
        fd = self.transport.get_extra_info("socket").fileno()
        tls = self.transport.get_extra_info("ssl_object")
        if tls is None:
            selector.read_frames(fd, reader)
        elif (incoming := _incoming.get(tls)) is not None:
            # The object inside, if it is there: the method of `tls` is a line of Python around it, and byte code is
            # what costs a lone message most.
            read = getattr(tls, "_sslobj", tls).read
            selector.read_tls(fd, reader, incoming, read, self.transport.is_closing, self._tls_ended)

    def _tls_ended(self, error: ssl.SSLError | None) -> None:
        """As asyncio's own does it."""
        if error is not None:
            self.set_connection_exc(error)
            self.transport.abort()
        else:
            self.eof_received()
            self.transport.close()

    # -- what the reader says (FrameOwner) ----------------------------------------------------------------------------

    def odd(self, data: bytes, recv_ns: int, origin_ns: int) -> None:
        self.recv_ns, self.origin_ns = recv_ns, origin_ns
        super().data_received(data)

    def message(self, payload: bytes, recv_ns: int, origin_ns: int) -> None:
        self._receiver.noted(recv_ns, payload)

    def lost(self, count: int) -> None:
        self._receiver.lost(count)

    def pay(self) -> bool:
        return self._receiver.pay()

    def broken(self, error: Exception) -> None:
        self._receiver.broken(error)
        self.set_connection_exc(error)
        self.transport.abort()

    # -- the protocol -------------------------------------------------------------------------------------------------

    def _failed(self, code: int, reason: str = "") -> None:
        """In place of the protocol's `fail`: what comes now is discarded."""
        if self._reader is not None:
            self._reader.stop()
        self._fail(code, reason)

    def _frame_parsed(self, frame: Frame) -> None:
        """In place of the protocol's `recv_frame`, from which it raises ProtocolError."""
        opcode = frame.opcode
        if opcode is _CLOSE and self._parts:
            # A control frame may stand between fragments (RFC 6455, 5.4), so this is a close like any other, answered
            # with its own code; `websockets` answers 1002. The message is given up first.
            self._parts.clear()
            self._check_frame(Frame(_CONT, b""))
            self.protocol.events.pop()
        self._check_frame(frame)
        if opcode is _TEXT or opcode is _BINARY or opcode is _CONT:
            self.protocol.events.pop()  # it has just put it there
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        """Raises UnicodeDecodeError, which the protocol answers with 1007."""
        if frame.opcode is not _CONT:
            self._text = frame.opcode is _TEXT
        self._parts.append(bytes(frame.data))
        if not frame.fin:
            return
        message = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        if self._text:
            message.decode()
        self._received(self.recv_ns, self.origin_ns, message)

    def process_event(self, event: Event) -> None:
        super().process_event(event)
        if not isinstance(event, Frame) and self.protocol.handshake_exc is None:
            # Here and not after `await connect()`: the venue's first messages, even its closing, may be in this read.
            self._opened = True
            self._reader = self._receiver.opened(self.recv_ns, self)
            self._short_way()

    # -- the end ------------------------------------------------------------------------------------------------------

    def eof_received(self) -> None:
        self._hand_on_rest()
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hand_on_rest()
        self._reader = None
        if self._opened:
            self._opened = False
            error = self.protocol.parser_exc
            if isinstance(error, PayloadTooBig):
                self._receiver.too_large(str(error))
            self._receiver.closed(time.time_ns())
        super().connection_lost(exc)

    def _hand_on_rest(self) -> None:
        """A frame that never became whole is the protocol's: its words name what is missing."""
        if self._reader is not None and (rest := self._reader.rest()) and not self.protocol.reader.eof:
            super().data_received(rest)


# What asyncio feeds with ciphertext, by the TLS object that decrypts it.
_incoming: WeakKeyDictionary[ssl.SSLObject, ssl.MemoryBIO] = WeakKeyDictionary()


def _tapped(context: ssl.SSLContext) -> ssl.SSLContext:
    """The context, telling us from now on what its TLS objects read from."""
    if "wrap_bio" not in vars(context):
        wrap_bio = context.wrap_bio

        def tap(incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **kwargs: Any) -> ssl.SSLObject:
            made = wrap_bio(incoming, outgoing, *args, **kwargs)
            _incoming[made] = incoming
            return made

        context.wrap_bio = tap  # type: ignore[method-assign]
    return context


async def open_socket(
    url: str,
    receiver: Receiver,
    *,
    context: ssl.SSLContext | None,
    compression: bool,
    max_message_bytes: int,
    ping_interval_s: float,
    transport: Transport,
) -> Socket:
    """Connect. Raises OSError, TimeoutError or websockets.exceptions.WebSocketException."""
    tls: dict[str, Any] = {}
    if url.startswith("wss:") and context is not None:
        # Inside the TLS of an https proxy the descriptor's bytes are not ours to decrypt.
        nested = any(proxy.startswith("https:") for proxy in urllib.request.getproxies().values())
        tls["ssl"] = context if nested or transport.selector is None else _tapped(context)
    factory = cast(type[ClientConnection], partial(Socket, receiver=receiver, transport_options=transport))
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
