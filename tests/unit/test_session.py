"""lob_connect/socket.py and session.py on a socket of this process: stamps, fragments, order, liveness.

By every way a message can take: natively within the loop's selector, natively on any loop, by `websockets`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode

from lob.venues.venue import Control, Limits, Venue
from lob_connect._native import FrameReader
from lob_connect.backoff import Budget
from lob_connect.raw import Connection
from lob_connect.selector import FrameSelector
from lob_connect.session import Session, Terms
from lob_connect.socket import Socket, Transport, open_socket
from raw_tape import RawTape

Handler = Callable[[ServerConnection], Awaitable[None]]
Live = Callable[[Handler, Venue, Callable[["Tape"], bool], list[str]], "Tape"]


class Notebook:
    """A receiver that writes down what it is told, and in its place what came into the ring."""

    def __init__(self, way: str = "websockets") -> None:
        self.way = way
        self.limit = 1 << 20
        self._raw = RawTape(1 << 22)
        self._events: list[Any] = []
        self._times: list[tuple[int, int]] = []

    def _collect(self) -> None:
        for record in self._raw.read():
            self._events.append(record.text)
            self._times.append((int(record.header["recv_ns"]), int(record.header["origin_ns"])))

    @property
    def events(self) -> list[Any]:
        self._collect()
        return self._events

    @property
    def times(self) -> list[tuple[int, int]]:
        self._collect()
        return self._times

    def opened(self, recv_ns: int, socket: Socket) -> FrameReader | None:
        self.events.append("opened")
        return None if self.way == "websockets" else FrameReader(socket, self._raw.sink, 0, 1, self.limit)

    def received(self, recv_ns: int, origin_ns: int, payload: bytes) -> None:
        self.events.append(payload)
        self._times.append((recv_ns, origin_ns))

    def noted(self, recv_ns: int, payload: bytes) -> None: ...
    def lost(self, count: int) -> None: ...
    def pay(self) -> bool:
        return True

    def broken(self, error: Exception) -> None:
        self.events.append(error)

    def too_large(self, sentence: str) -> None:
        self.events.append("too large")

    def closed(self, recv_ns: int) -> None:
        self.events.append("closed")

    def copies(self) -> None:
        self._raw.sink.copies = True

    def forget(self) -> None:
        self._raw.close()


WAYS = ("selector", "busy", "native", "websockets")
Body = Callable[[Notebook, Transport], Coroutine[Any, Any, None]]


def by_every_way(body: Body) -> None:
    """Run the body once for each way, on its loop."""
    for way in WAYS:
        selector = FrameSelector(busy=way == "busy") if way in ("selector", "busy") else None
        notebook = Notebook(way)
        try:
            with asyncio.Runner(loop_factory=partial(asyncio.SelectorEventLoop, selector)) as runner:
                runner.run(body(notebook, Transport(way != "websockets", selector)))
        except AssertionError as error:
            raise AssertionError(f"{way}: {error}") from error
        finally:
            notebook.forget()


@asynccontextmanager
async def server(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0, compression=None, close_timeout=1, ssl=context) as running:
        scheme = "ws" if context is None else "wss"
        yield f"{scheme}://127.0.0.1:{next(iter(running.sockets)).getsockname()[1]}"


async def connected(
    url: str, notebook: Notebook, transport: Transport, limit: int = 1 << 20, context: ssl.SSLContext | None = None
) -> Socket:
    notebook.limit = limit
    return await open_socket(
        url,
        notebook,
        context=context,
        compression=False,
        max_message_bytes=limit,
        ping_interval_s=20,
        transport=transport,
    )


def test_the_stamp_is_taken_before_the_protocol_works(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook()

    async def body() -> None:
        async def greet(websocket: ServerConnection) -> None:
            await websocket.send("hello")
            await websocket.wait_closed()

        worked_at: list[int] = []
        receive_data = ClientProtocol.receive_data

        def slow(self: ClientProtocol, data: bytes) -> None:
            time.sleep(0.02)  # a protocol that takes its time
            worked_at.append(time.monotonic_ns())
            receive_data(self, data)

        monkeypatch.setattr(ClientProtocol, "receive_data", slow)
        async with server(greet) as url:
            socket = await connected(url, notebook, Transport(native=False))
            async with asyncio.timeout(5):
                while not notebook.times:
                    await asyncio.sleep(0.01)
            await socket.close()
        recv_ns, origin_ns = notebook.times[0]
        assert min(abs(at - origin_ns - 20_000_000) for at in worked_at) < 15_000_000
        assert abs(time.time_ns() - recv_ns) < 5_000_000_000

    try:
        asyncio.run(body())
    finally:
        notebook.forget()


def test_messages_that_come_with_the_handshake_follow_the_opening_and_precede_the_close() -> None:
    async def body(notebook: Notebook, transport: Transport) -> None:
        async def burst(websocket: ServerConnection) -> None:
            for number in range(3):
                await websocket.send(f"m{number}")
            await websocket.send(b"\x00\xff")
            await websocket.close()

        async with server(burst) as url:
            await (await connected(url, notebook, transport)).wait_closed()
        assert notebook.events == ["opened", b"m0", b"m1", b"m2", b"\x00\xff", "closed"]

    by_every_way(body)


def test_first_message_of_a_burst_is_handed_on_before_the_last_is_parsed() -> None:
    notebook = Notebook()

    async def body() -> None:
        async with server(_quiet) as url:
            socket = await connected(url, notebook, Transport(native=False))
            seen_while_parsing: list[int] = []
            receive_data = socket.protocol.receive_data

            def watched(data: bytes | bytearray) -> None:
                receive_data(data)
                seen_while_parsing.append(len(notebook.times))

            socket.protocol.receive_data = watched  # type: ignore[method-assign]
            socket.data_received(Frame(Opcode.TEXT, b"whole").serialize(mask=False) * 3)
            await socket.close()
        assert seen_while_parsing[0] == 3
        assert notebook.events[1:4] == [b"whole"] * 3

    try:
        asyncio.run(body())
    finally:
        notebook.forget()


def test_fragments_are_one_message_also_with_a_ping_between_them() -> None:
    async def body(notebook: Notebook, transport: Transport) -> None:
        async def fragments(websocket: ServerConnection) -> None:
            async def parts() -> AsyncIterator[str]:
                yield "one, "
                await websocket.ping()
                yield "two, "
                yield "three"

            await websocket.send(parts())
            await websocket.send("next")
            await websocket.close()

        async with server(fragments) as url:
            await (await connected(url, notebook, transport)).wait_closed()
        assert notebook.events == ["opened", b"one, two, three", b"next", "closed"]

    by_every_way(body)


def test_message_above_the_limit_is_told_and_ends_the_connection() -> None:
    async def body(notebook: Notebook, transport: Transport) -> None:
        async def large(websocket: ServerConnection) -> None:
            await websocket.send("x" * 2000)
            await websocket.wait_closed()

        async with server(large) as url:
            await (await connected(url, notebook, transport, limit=1000)).wait_closed()
        assert notebook.events == ["opened", "too large", "closed"]

    by_every_way(body)


def test_refused_handshake_is_no_opening() -> None:
    async def body(notebook: Notebook, transport: Transport) -> None:
        async with serve(
            lambda _: asyncio.sleep(0), "127.0.0.1", 0, process_request=lambda c, _: c.respond(503, "no")
        ) as running:
            port = next(iter(running.sockets)).getsockname()[1]
            with pytest.raises(Exception, match="503"):
                await connected(f"ws://127.0.0.1:{port}", notebook, transport)
        assert notebook.events == []

    by_every_way(body)


def test_the_stamp_of_the_native_way_is_that_of_its_read() -> None:
    async def body(notebook: Notebook, transport: Transport) -> None:
        async def greet(websocket: ServerConnection) -> None:
            await websocket.send("first")
            await websocket.recv()
            await websocket.send("second")
            await websocket.wait_closed()

        async with server(greet) as url:
            socket = await connected(url, notebook, transport)
            await asyncio.sleep(0.1)
            before, before_unix = time.monotonic_ns(), time.time_ns()
            await socket.send("go on")
            async with asyncio.timeout(5):
                while len(notebook.times) < 2:
                    await asyncio.sleep(0.01)
            await socket.close()
        recv_ns, origin_ns = notebook.times[1]
        assert before < origin_ns < time.monotonic_ns()
        assert before_unix < recv_ns < time.time_ns()

    by_every_way(body)


def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(the server's, the client's)"""
    authority = trustme.CA()
    serving, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    authority.configure_trust(trusting)
    return serving, trusting


def test_over_tls_in_pieces_of_any_size_nothing_is_lost_and_the_end_is_seen() -> None:
    serving, trusting = tls_contexts()
    sent = [secrets.token_bytes(size) for size in (1, 200, 16_384, 70_000, 400_000, 5)] * 3

    async def body(notebook: Notebook, transport: Transport) -> None:
        async def burst(websocket: ServerConnection) -> None:
            for number, payload in enumerate(sent):
                await websocket.send(payload)
                if number % 3 == 0:
                    await websocket.ping()
            assert await websocket.recv() == "still here"
            await websocket.send("last")
            await websocket.close()

        async with server(burst, serving) as url:
            socket = await connected(url, notebook, transport, context=trusting)
            async with asyncio.timeout(5):
                while len(notebook.times) < len(sent):
                    await asyncio.sleep(0.01)
                await socket.send("still here")
                await socket.wait_closed()
        assert notebook.events == ["opened", *sent, b"last", "closed"]
        assert socket.close_code == 1000

    by_every_way(body)


@pytest.mark.parametrize("tls", [False, True])
def test_within_the_selector_no_message_passes_through_asyncio(tls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    serving, trusting = tls_contexts()
    seen: list[bytes] = []
    data_received = Socket.data_received

    def watched(self: Socket, data: bytes) -> None:
        seen.append(data)
        data_received(self, data)

    monkeypatch.setattr(Socket, "data_received", watched)

    async def body(notebook: Notebook, transport: Transport) -> None:
        async def answer(websocket: ServerConnection) -> None:
            await websocket.recv()
            for number in range(100):
                await websocket.send(f"number {number}")
            await websocket.wait_closed()

        async with server(answer, serving if tls else None) as url:
            socket = await connected(url, notebook, transport, context=trusting if tls else None)
            await socket.send("begin")
            async with asyncio.timeout(5):
                while len(notebook.times) < 100:
                    await asyncio.sleep(0.01)
            await socket.close()

    selector = FrameSelector()
    notebook = Notebook("selector")
    try:
        with asyncio.Runner(loop_factory=partial(asyncio.SelectorEventLoop, selector)) as runner:
            runner.run(body(notebook, Transport(True, selector)))
    finally:
        notebook.forget()
    assert b"HTTP/1.1 101" in seen[0]
    assert not any(b"number" in data for data in seen)


def test_ring_that_cannot_be_written_is_told_and_ends_the_connection() -> None:
    async def body(notebook: Notebook, transport: Transport) -> None:
        async def greet(websocket: ServerConnection) -> None:
            await websocket.recv()
            await websocket.send("message")
            await websocket.wait_closed()

        def raises(recv_ns: int, *_: Any) -> None:
            raise ValueError("no room in here")

        notebook.noted = notebook.received = raises  # type: ignore[method-assign]
        notebook.copies()
        async with server(greet) as url:
            socket = await connected(url, notebook, transport)
            await socket.send("begin")
            await asyncio.wait_for(socket.wait_closed(), 5)
        if notebook.way != "websockets":  # there it is the session that remembers, see Session.received
            assert str(notebook.events[-2]) == "no room in here"
        assert notebook.events[-1] == "closed"

    by_every_way(body)


@pytest.mark.parametrize("tls", [False, True])
def test_connection_that_is_cut_inside_a_frame_ends_with_1006(tls: bool) -> None:
    serving, trusting = tls_contexts() if tls else (None, None)

    async def body(notebook: Notebook, transport: Transport) -> None:
        async def cut(websocket: ServerConnection) -> None:
            await websocket.send("whole")
            websocket.transport.write(b"\x81\x05ha")
            websocket.transport.close()

        async with server(cut, serving) as url:
            socket = await connected(url, notebook, transport, context=trusting)
            await asyncio.wait_for(socket.wait_closed(), 5)
        assert notebook.events == ["opened", b"whole", "closed"]
        assert socket.close_code == 1006
        assert "stream ends after 2 bytes, expected 5 bytes" in str(socket.protocol.parser_exc)

    by_every_way(body)


def test_bytes_that_are_no_tls_end_the_connection_and_what_came_before_is_kept() -> None:
    serving, trusting = tls_contexts()

    async def body(notebook: Notebook, transport: Transport) -> None:
        async def spoil(websocket: ServerConnection) -> None:
            await websocket.send("whole")
            await websocket.recv()
            os.write(websocket.transport.get_extra_info("socket").fileno(), b"\x17\x03\x03\x00\x20" + b"forged" * 6)
            await websocket.wait_closed()

        async with server(spoil, serving) as url:
            socket = await connected(url, notebook, transport, context=trusting)
            async with asyncio.timeout(5):
                while len(notebook.times) < 1:
                    await asyncio.sleep(0.01)
                await socket.send("go on")
                await socket.wait_closed()
        assert notebook.events == ["opened", b"whole", "closed"]
        assert socket.close_code == 1006

    by_every_way(body)


def test_text_that_is_no_utf8_is_refused_with_1007_and_what_came_before_is_kept() -> None:
    async def body(notebook: Notebook, transport: Transport) -> None:
        codes: list[Any] = []

        async def broken(websocket: ServerConnection) -> None:
            await websocket.send("good")
            websocket.transport.write(Frame(Opcode.TEXT, b"\xff").serialize(mask=False))
            await websocket.wait_closed()
            codes.append(websocket.close_code)

        async with server(broken) as url:
            await asyncio.wait_for((await connected(url, notebook, transport)).wait_closed(), 5)
        assert notebook.events == ["opened", b"good", "closed"]
        assert codes == [1007]

    by_every_way(body)


def test_a_flood_leaves_the_loop_time_for_its_other_work() -> None:
    async def body(notebook: Notebook, transport: Transport) -> None:
        frames = Frame(Opcode.BINARY, b"x" * 100).serialize(mask=False) * 500

        async def flood(websocket: ServerConnection) -> None:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                while not websocket.transport.is_closing():
                    websocket.transport.write(frames)
                    await asyncio.sleep(0.001)

        async with server(flood) as url:
            socket = await connected(url, notebook, transport)
            started, turns = time.monotonic(), 0
            while time.monotonic() - started < 0.3:
                await asyncio.sleep(0.005)
                turns += 1
                notebook.events.clear()
            assert turns >= 3  # it had its turn every 100 ms, also on a busy machine: signs of life are due every 500
            socket.transport.abort()

    by_every_way(body)


class Toy(Venue):
    """A venue with short times."""

    name = "toy"
    snapshot = "stream"
    silence_s = 0.3
    max_age_s = 3600.0
    ping_interval_s = 0.1
    limits = Limits(messages_per_s=20.0)

    def subscribe(self, symbols: Any, depth: int, request_id: int) -> list[str]:
        return [f"subscribe {symbol} {depth} {request_id}" for symbol in symbols]

    def keep_alive(self, request_id: int) -> str | None:
        return f"alive {request_id}"

    def control(self, frame: bytes) -> Control | None:
        if b"serverShutdown" in frame:
            return Control("reconnect")
        return Control("error", error="no such book", symbol="B") if b'"error"' in frame else None


class Tape:
    """In place of the raw ring: the order of everything."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.writer = SimpleNamespace(record_max_bytes=1 << 20)
        self.stub = RawTape(1 << 22)

    def frame_reader(
        self, connection: Connection, owner: Any, message_max_bytes: int, mark_size_max: int, marks: Sequence[str]
    ) -> FrameReader:
        return FrameReader(owner, self.stub.sink, 0, 1, message_max_bytes, mark_size_max, marks)

    def record(self, connection: Connection, recv_ns: int, payload: bytes) -> None:
        self.events.append(payload)

    def link_up(self, connection: Connection, url: str, recv_ns: int) -> None:
        connection.session += 1
        self.events.append(f"up {connection.session}")

    def link_down(self, connection: Connection, url: str, recv_ns: int) -> None:
        self.events.append(f"down {connection.session}")

    def frame(self, connection: Connection, recv_ns: int, origin_ns: int, payload: bytes) -> None:
        self.events.append(payload)

    def sent(self, connection: Connection, recv_ns: int, url: str, text: str) -> None:
        self.events.append(text)


@pytest.fixture(params=["native", "websockets"])
def live(request: pytest.FixtureRequest) -> Live:
    """Runs a session of one connection with two symbols until `until`, ticking as the feed does."""

    def run(handler: Handler, venue: Venue, until: Callable[[Tape], bool], said: list[str]) -> Tape:
        native = request.param == "native"
        selector = FrameSelector() if native else None
        tape = Tape()
        try:
            with asyncio.Runner(loop_factory=partial(asyncio.SelectorEventLoop, selector)) as runner:
                runner.run(_live(handler, venue, until, said, tape, Transport(native, selector)))
        finally:
            tape.stub.close()
        return tape

    return run


async def _live(
    handler: Handler,
    venue: Venue,
    until: Callable[[Tape], bool],
    said: list[str],
    tape: Tape,
    transport: Transport,
) -> None:
    async with server(handler) as url:
        terms = Terms(venue, url, 25, None, Budget(100), said.append, transport)
        session = Session(Connection(0, "ws-0", symbols=["A", "B"]), terms, tape)  # type: ignore[arg-type]
        running = asyncio.create_task(session.run())
        try:
            async with asyncio.timeout(8):
                while not until(tape):
                    session.tick()
                    await asyncio.sleep(0.01)
        finally:
            await session.close()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def _quiet(websocket: ServerConnection) -> None:
    await websocket.wait_closed()


def test_subscribes_once_open_and_keeps_alive_and_at_the_venues_pace(live: Live) -> None:
    said: list[str] = []
    started = time.monotonic()
    tape = live(_quiet, Toy(), lambda tape: any("alive" in str(e) for e in tape.events), said)
    assert tape.events[:3] == ["up 1", "subscribe A 25 1", "subscribe B 25 1"]
    assert tape.events[3].startswith("alive ")
    assert time.monotonic() - started > 0.1  # three messages, 20 a second


def test_silence_ends_the_connection_and_the_next_session_follows(live: Live) -> None:
    said: list[str] = []
    tape = live(_quiet, Toy(), lambda tape: "up 2" in tape.events, said)
    assert tape.events.index("down 1") < tape.events.index("up 2")
    assert any("no message for" in sentence for sentence in said)


def test_server_that_announces_its_end_is_left_at_once_and_without_backoff(live: Live) -> None:
    async def shutdown(websocket: ServerConnection) -> None:
        await asyncio.sleep(1.1)
        await websocket.send('{"e":"serverShutdown"}')
        await websocket.wait_closed()

    class Patient(Toy):
        silence_s = 60.0

    said: list[str] = []
    tape = live(shutdown, Patient(), lambda tape: "up 2" in tape.events, said)
    assert "down 1" in tape.events
    assert said[0] == "ws-0: the server is going away; connecting anew"
    assert not any("next attempt" in sentence for sentence in said)


def test_old_connection_is_left_before_the_venue_cuts_it(live: Live) -> None:
    class Short(Toy):
        silence_s = 60.0
        max_age_s = 1.2

    said: list[str] = []
    live(_quiet, Short(), lambda tape: "up 2" in tape.events, said)
    assert "the connection is old" in said[0]


def test_error_of_the_venue_is_said_in_its_own_words(live: Live) -> None:
    async def complain(websocket: ServerConnection) -> None:
        await websocket.send('{"error":"no such book"}')
        await websocket.wait_closed()

    said: list[str] = []
    live(complain, Toy(), lambda _: bool(said), said)
    assert said[0] == "ws-0: B: toy answers: no such book"
