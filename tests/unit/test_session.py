"""lob_connect/socket.py and session.py on a socket of this process: stamps, fragments, order, liveness."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode

from lob.venues.venue import Control, Limits, Venue
from lob_connect.backoff import Budget
from lob_connect.raw import Connection
from lob_connect.session import Session, Terms
from lob_connect.socket import Socket, open_socket

Handler = Callable[[ServerConnection], Awaitable[None]]


class Notebook:
    """A receiver that writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.times: list[tuple[int, int]] = []

    def opened(self, recv_ns: int) -> None:
        self.events.append("opened")

    def received(self, recv_ns: int, origin_ns: int, payload: bytes) -> None:
        self.events.append(payload)
        self.times.append((recv_ns, origin_ns))

    def too_large(self, sentence: str) -> None:
        self.events.append("too large")

    def closed(self, recv_ns: int) -> None:
        self.events.append("closed")


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0, compression=None, close_timeout=1) as running:
        yield f"ws://127.0.0.1:{next(iter(running.sockets)).getsockname()[1]}"


async def connected(url: str, notebook: Notebook, limit: int = 1 << 20) -> Socket:
    return await open_socket(
        url, notebook, context=None, compression=False, max_message_bytes=limit, ping_interval_s=20
    )


def test_the_stamp_is_taken_before_the_protocol_works(monkeypatch: pytest.MonkeyPatch) -> None:
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
        notebook = Notebook()
        async with server(greet) as url:
            socket = await connected(url, notebook)
            async with asyncio.timeout(5):
                while not notebook.times:
                    await asyncio.sleep(0.01)
            await socket.close()
        recv_ns, origin_ns = notebook.times[0]
        assert min(abs(at - origin_ns - 20_000_000) for at in worked_at) < 15_000_000
        assert abs(time.time_ns() - recv_ns) < 5_000_000_000

    asyncio.run(body())


def test_messages_that_come_with_the_handshake_follow_the_opening_and_precede_the_close() -> None:
    async def body() -> None:
        async def burst(websocket: ServerConnection) -> None:
            for number in range(3):
                await websocket.send(f"m{number}")
            await websocket.send(b"\x00\xff")
            await websocket.close()

        notebook = Notebook()
        async with server(burst) as url:
            await (await connected(url, notebook)).wait_closed()
        assert notebook.events == ["opened", b"m0", b"m1", b"m2", b"\x00\xff", "closed"]

    asyncio.run(body())


def test_first_message_of_a_burst_is_handed_on_before_the_last_is_parsed() -> None:
    async def body() -> None:
        notebook = Notebook()
        async with server(_quiet) as url:
            socket = await connected(url, notebook)
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

    asyncio.run(body())


def test_fragments_are_one_message_also_with_a_ping_between_them() -> None:
    async def body() -> None:
        async def fragments(websocket: ServerConnection) -> None:
            async def parts() -> AsyncIterator[str]:
                yield "one, "
                await websocket.ping()
                yield "two, "
                yield "three"

            await websocket.send(parts())
            await websocket.send("next")
            await websocket.close()

        notebook = Notebook()
        async with server(fragments) as url:
            await (await connected(url, notebook)).wait_closed()
        assert notebook.events == ["opened", b"one, two, three", b"next", "closed"]

    asyncio.run(body())


def test_message_above_the_limit_is_told_and_ends_the_connection() -> None:
    async def body() -> None:
        async def large(websocket: ServerConnection) -> None:
            await websocket.send("x" * 2000)
            await websocket.wait_closed()

        notebook = Notebook()
        async with server(large) as url:
            await (await connected(url, notebook, limit=1000)).wait_closed()
        assert notebook.events == ["opened", "too large", "closed"]

    asyncio.run(body())


def test_refused_handshake_is_no_opening() -> None:
    async def body() -> None:
        notebook = Notebook()
        async with serve(
            lambda _: asyncio.sleep(0), "127.0.0.1", 0, process_request=lambda c, _: c.respond(503, "no")
        ) as running:
            port = next(iter(running.sockets)).getsockname()[1]
            with pytest.raises(Exception, match="503"):
                await connected(f"ws://127.0.0.1:{port}", notebook)
        assert notebook.events == []

    asyncio.run(body())


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

    def link_up(self, connection: Connection, url: str, recv_ns: int) -> None:
        connection.session += 1
        self.events.append(f"up {connection.session}")

    def link_down(self, connection: Connection, url: str, recv_ns: int) -> None:
        self.events.append(f"down {connection.session}")

    def frame(self, connection: Connection, recv_ns: int, origin_ns: int, payload: bytes) -> None:
        self.events.append(payload)

    def sent(self, connection: Connection, recv_ns: int, url: str, text: str) -> None:
        self.events.append(text)


async def live(handler: Handler, venue: Venue, until: Callable[[Tape], bool], said: list[str]) -> Tape:
    """Run a session of one connection with two symbols until `until`, ticking as the feed does."""
    tape = Tape()
    async with server(handler) as url:
        terms = Terms(venue, url, 25, None, Budget(100), said.append)
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
    return tape


async def _quiet(websocket: ServerConnection) -> None:
    await websocket.wait_closed()


def test_subscribes_once_open_and_keeps_alive_and_at_the_venues_pace() -> None:
    said: list[str] = []
    started = time.monotonic()
    tape = asyncio.run(live(_quiet, Toy(), lambda tape: any("alive" in str(e) for e in tape.events), said))
    assert tape.events[:3] == ["up 1", "subscribe A 25 1", "subscribe B 25 1"]
    assert tape.events[3].startswith("alive ")
    assert time.monotonic() - started > 0.1  # three messages, 20 a second


def test_silence_ends_the_connection_and_the_next_session_follows() -> None:
    said: list[str] = []
    tape = asyncio.run(live(_quiet, Toy(), lambda tape: "up 2" in tape.events, said))
    assert tape.events.index("down 1") < tape.events.index("up 2")
    assert any("no message for" in sentence for sentence in said)


def test_server_that_announces_its_end_is_left_at_once_and_without_backoff() -> None:
    async def shutdown(websocket: ServerConnection) -> None:
        await asyncio.sleep(1.1)
        await websocket.send('{"e":"serverShutdown"}')
        await websocket.wait_closed()

    class Patient(Toy):
        silence_s = 60.0

    said: list[str] = []
    tape = asyncio.run(live(shutdown, Patient(), lambda tape: "up 2" in tape.events, said))
    assert "down 1" in tape.events
    assert said[0] == "ws-0: the server is going away; connecting anew"
    assert not any("next attempt" in sentence for sentence in said)


def test_old_connection_is_left_before_the_venue_cuts_it() -> None:
    class Short(Toy):
        silence_s = 60.0
        max_age_s = 1.2

    said: list[str] = []
    asyncio.run(live(_quiet, Short(), lambda tape: "up 2" in tape.events, said))
    assert "the connection is old" in said[0]


def test_error_of_the_venue_is_said_in_its_own_words() -> None:
    async def complain(websocket: ServerConnection) -> None:
        await websocket.send('{"error":"no such book"}')
        await websocket.wait_closed()

    said: list[str] = []
    asyncio.run(live(complain, Toy(), lambda _: bool(said), said))
    assert said[0] == "ws-0: B: toy answers: no such book"
