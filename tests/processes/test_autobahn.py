"""The Autobahn test suite's cases on real sockets, by both transports: what reaches the ring, what the server gets.

The published list is rebuilt in autobahn_cases.py. The suite itself runs where LOB_WSTEST names its command.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from lob_connect.selector import FrameSelector
from lob_connect.socket import Transport, open_socket
from processes import autobahn_client
from processes.autobahn_cases import CLOSE, NO_CODE, PING, PONG, Case, cases, close_frame
from raw_tape import RawTape, Taping

MESSAGE_MAX_BYTES = 16 << 20
CASES = list(cases())
WSTEST = os.environ.get("LOB_WSTEST")
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
WHOLE = 1 << 30


@pytest.fixture(scope="module")
def tape() -> Iterator[RawTape]:
    with closing(RawTape(8 * MESSAGE_MAX_BYTES)) as made:
        yield made


@dataclass
class Seen:
    """What the server got."""

    pongs: tuple[bytes, ...] = ()
    code: int | None = None  # of the client's first close frame
    other: list[int] = field(default_factory=list)  # opcodes of anything else


def pieces_of(case: Case, size: int) -> list[bytes]:
    """The case's bytes, cut; size 0: frame by frame."""
    stream = b"".join(case.frames)
    return [stream[at : at + size] for at in range(0, len(stream), size)] if size else list(case.frames)


class Server:
    """Plays one case after the other: shakes hands, sends the bytes as they are cut, reads to the end."""

    def __init__(self) -> None:
        self.case = CASES[0]
        self.chop_bytes = WHOLE
        self.seen: asyncio.Future[Seen] | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self.seen is not None
        try:
            self.seen.set_result(await self._play(reader, writer))
        except Exception as error:
            self.seen.set_exception(error)
        finally:
            writer.close()

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Seen:
        request = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:] if b": " in line)
        accept = base64.b64encode(hashlib.sha1(fields[b"Sec-WebSocket-Key"] + GUID).digest())
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        answer += b"Sec-WebSocket-Accept: " + accept + b"\r\n"
        if self.case.deflate is not None:
            assert b"permessage-deflate" in fields[b"Sec-WebSocket-Extensions"]
            answer += b"Sec-WebSocket-Extensions: " + self.case.deflate.encode() + b"\r\n"
        writer.write(answer + b"\r\n")
        seen = Seen()
        reading = asyncio.create_task(self._read(reader, seen))
        for piece in pieces_of(self.case, self.chop_bytes):
            writer.write(piece)
            await asyncio.sleep(0)  # a turn of the loop, in which the client reads it
            if len(piece) > 1 << 16:
                await writer.drain()
        if self.case.code is None:
            writer.write(close_frame(1000))
        await reading
        return seen

    async def _read(self, reader: asyncio.StreamReader, seen: Seen) -> None:
        """The client's frames, to its close or the end."""
        while seen.code is None:
            try:
                head = await reader.readexactly(2)
            except (asyncio.IncompleteReadError, ConnectionResetError):
                return
            assert head[0] & 0x80, "our frames are whole"
            assert head[1] & 0x80, "a client masks"
            size = head[1] & 0x7F
            assert size < 126
            mask = await reader.readexactly(4)
            payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(await reader.readexactly(size)))
            opcode = head[0] & 0x0F
            if opcode == PONG:
                seen.pongs += (payload,)
            elif opcode == CLOSE:
                seen.code = int.from_bytes(payload[:2], "big") if payload else NO_CODE
            elif opcode != PING:
                seen.other.append(opcode)


def play(tape: RawTape, server: Server, case: Case, chops: Sequence[int], *, native: bool) -> list[tuple[object, ...]]:
    """(messages in the ring, pongs, close code, other frames) of each way to cut the case."""
    selector = FrameSelector() if native else None
    transport = Transport(native, selector)
    receiver = Taping(tape, native, MESSAGE_MAX_BYTES)
    found: list[tuple[object, ...]] = []

    async def body() -> None:
        async with asyncio.timeout(20), await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
            url = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
            for chop_bytes in chops:
                server.case, server.chop_bytes = case, chop_bytes
                server.seen = asyncio.get_running_loop().create_future()
                socket = await open_socket(
                    url,
                    receiver,
                    context=None,
                    compression=case.deflate is not None,
                    max_message_bytes=MESSAGE_MAX_BYTES,
                    ping_interval_s=1000,
                    transport=transport,
                )
                await socket.wait_closed()
                seen = await server.seen
                found.append((tuple(record.text for record in tape.read()), seen.pongs, seen.code, seen.other))

    with asyncio.Runner(loop_factory=partial(asyncio.SelectorEventLoop, selector)) as runner:
        runner.run(body())
    return found


def chops_of(case: Case) -> list[int]:
    """In one piece, frame by frame, octet by octet; large ones in chops of 997, as the suite does it."""
    if case.chop_bytes:
        return [case.chop_bytes]
    size = sum(map(len, case.frames))
    return [WHOLE, 0, 1 if size < 500 else 997 if size < 500_000 else 1 << 14]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case_gives_its_messages_and_close_code_by_both_transports_however_it_is_cut(tape: RawTape, case: Case) -> None:
    expected = (case.messages, case.pongs, 1000 if case.code is None else case.code, [])
    chops = chops_of(case)
    for native in (True, False):
        before = tape.sink.frames
        for chop_bytes, found in zip(chops, play(tape, Server(), case, chops, native=native), strict=True):
            assert found == expected, f"native={native}, chops of {chop_bytes}"
        if native and case.name.startswith(("1.", "9.1.", "9.2.")):
            assert tape.sink.frames - before == len(chops), "not the short way"


@pytest.mark.slow
@pytest.mark.skipif(WSTEST is None, reason="no Autobahn test suite here (set LOB_WSTEST to its wstest)")
@pytest.mark.timeout(900)
def test_the_suite_itself_passes_every_case_by_both_transports(tmp_path: Path) -> None:
    assert WSTEST is not None
    sections = [f"{number}.*" for number in (1, 2, 3, 4, 5, 6, 7, 9, 10)]
    short = [f"{section}.{number}" for section in ("12.1", "13.2", "13.5") for number in (1, 2, 3)]
    verdicts = autobahn_client.run_cases(WSTEST, [*sections, *short], tmp_path)
    assert all(len(found) >= 310 for found in verdicts.values())
    assert autobahn_client.failed(verdicts) == []
