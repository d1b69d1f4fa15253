"""WebSocket to raw ring: messages a second, and latency from send to ring, against `websockets` and `picows`.

Usage: python tests/bench/socket_bench.py        (prints one JSON object a row; `make bench` makes the table)

The sender is a process of its own on another core, over loopback; it has its frames ready before it is asked to send.
All contenders write each message with both stamps into the same kind of ring, and what the ring holds is compared with
what was sent before a figure counts. The rate goes from the first message's stamp to the last one's commit; the
latency from the clock just before the send to the commit; of ours also the part after the read, where the rest is the
kernel's way and the wake-up. Not measured: a network, and whoever reads the ring.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import socket as sockets
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson
import trustme
from websockets.asyncio.client import connect

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.rows import row
from lob import _native
from lob._native import SpscWriter, mono_ns
from lob.records import RecordType
from lob.rings import InputRing, OutputRing
from lob.segments import Kind, RingState
from lob_connect._native import FrameReader, RawSink
from lob_connect.selector import FrameSelector
from lob_connect.socket import Socket, Transport, open_socket
from pipeline import unique_instance

try:
    import picows
except ImportError:
    picows = None  # type: ignore[assignment]

RING_BYTES = 128 << 20
FLOODS = ((200, 100_000), (1024, 50_000), (8192, 10_000))  # (bytes of a message, messages)
REPEATS = 3
PACED_PER_S, PACED_S, PACED_BYTES = 1000, 2, 250
FRAME = int(RecordType.RAW_FRAME)
ORIGIN, STAGE = struct.Struct("<q"), struct.Struct("<I")
ORIGIN_AT, STAGE_AT = _native.OFFSETS["RecordHeader.origin_ns"], _native.OFFSETS["RecordHeader.stage_ns"]
SIZE_AT = _native.SIZES["RecordHeader"] + _native.OFFSETS["RawBody.payload_bytes"]
TEXT_AT = _native.SIZES["RecordHeader"] + _native.SIZES["RawBody"]
DEADLINE_S = 30.0


# -- the sender ------------------------------------------------------------------------------------------------------


def message(number: int, sent_ns: int, size_bytes: int) -> bytes:
    head = f'{{"n":"{number:08d}","t":"{sent_ns:020d}","x":"'.encode()
    return head + b"x" * (size_bytes - len(head) - 2) + b'"}'


def framed(payload: bytes) -> bytes:
    size = len(payload)
    head = bytes([0x81, size]) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")
    return head + payload


def serve(certificate: str) -> None:
    """Send what the path of each request asks for; the port goes to stdout."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    listening = sockets.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    while True:
        plain, _ = listening.accept()
        plain.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        is_tls = plain.recv(1, sockets.MSG_PEEK) == b"\x16"
        with context.wrap_socket(plain, server_side=True) if is_tls else plain as link:
            request = b""
            while b"\r\n\r\n" not in request:
                request += link.recv(4096)
            lines = request.decode().split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
            key = next(line.split(": ", 1)[1] for line in lines if line.lower().startswith("sec-websocket-key"))
            assert fields["upgrade"] == "websocket"
            accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
            _, what, size, count = lines[0].split()[1].split("/")
            flood = b"".join(framed(message(n, 0, int(size))) for n in range(int(count))) if what == "flood" else b""
            answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            link.sendall(f"{answer}Sec-WebSocket-Accept: {accept.decode()}\r\n\r\n".encode())
            link.recv(100)  # the word to begin
            try:
                if what == "flood":
                    view = memoryview(flood)
                    for at in range(0, len(view), 1 << 20):
                        link.sendall(view[at : at + (1 << 20)])
                else:
                    send_paced(link, int(size), int(count))
                while link.recv(4096):
                    pass
            except OSError:
                pass


def send_paced(link: sockets.socket, size: int, count: int) -> None:
    begin_ns = mono_ns() + 10_000_000
    for number in range(count):
        due_ns = begin_ns + number * 1_000_000_000 // PACED_PER_S
        time.sleep(max(0.0, (due_ns - mono_ns() - 200_000) / 1e9))
        while mono_ns() < due_ns:
            pass
        link.sendall(framed(message(number, mono_ns(), size)))


@contextmanager
def sender() -> Iterator[tuple[int, ssl.SSLContext]]:
    authority = trustme.CA()
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "certificate.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
        command = [sys.executable, __file__, "--serve", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield int(process.stdout.readline()), trusted
            finally:
                process.kill()


# -- the contenders: each returns the seconds of CPU that it used, kernel included ------------------------------------


class Target:
    """A raw ring, with a reader that looks when all is over."""

    def __init__(self) -> None:
        self.name = f"/lob.{unique_instance('bench')}.raw"
        self.ring = OutputRing(self.name, Kind.SPSC, policy="drop", capacity_bytes=RING_BYTES)
        assert isinstance(self.ring.writer, SpscWriter)
        self.writer = self.ring.writer
        self.reader = InputRing(self.name, "bench")

    def drained(self) -> list[tuple[int, int, bytes]]:
        """(origin, commit, payload) of each record."""
        found = []
        while (record := self.reader.reader.read()) is not None:
            (origin_ns,) = ORIGIN.unpack_from(record, ORIGIN_AT)
            (elapsed_ns,) = STAGE.unpack_from(record, STAGE_AT)
            (size,) = STAGE.unpack_from(record, SIZE_AT)
            found.append((origin_ns, origin_ns + elapsed_ns, record[TEXT_AT : TEXT_AT + size]))
        return found

    def close(self) -> None:
        self.reader.close()
        self.ring.close(RingState.CLOSED, remove=True)


class Receiver:
    """What lob-connect's session is to its socket, without a venue."""

    def __init__(self, target: Target) -> None:
        self.sink = RawSink(target.writer, 0)

    def opened(self, recv_ns: int, socket: Socket) -> FrameReader:
        return FrameReader(socket, self.sink, 0, 1, 1 << 20, 512, ('"error"', '"code":', "serverShutdown"))

    def received(self, recv_ns: int, origin_ns: int, payload: bytes) -> None:
        raise AssertionError("a message went the long way")

    def noted(self, recv_ns: int, payload: bytes) -> None: ...
    def lost(self, count: int) -> None:
        raise AssertionError("the ring is too small")

    def pay(self) -> bool:
        return True

    def broken(self, error: Exception) -> None: ...
    def too_large(self, sentence: str) -> None: ...
    def closed(self, recv_ns: int) -> None: ...


def run_native(target: Target, url: str, context: ssl.SSLContext | None, count: int, busy: bool = False) -> float:
    selector = FrameSelector(busy=busy)

    async def body() -> float:
        receiver = Receiver(target)
        transport = Transport(selector=selector, busy_poll=busy)
        socket = await open_socket(
            url,
            receiver,
            context=context,
            compression=False,
            max_message_bytes=1 << 20,
            ping_interval_s=20,
            transport=transport,
        )
        begun_s = time.process_time()
        await socket.send("go")
        async with asyncio.timeout(DEADLINE_S):
            while receiver.sink.frames < count:
                await asyncio.sleep(0.01)
        used_s = time.process_time() - begun_s
        await socket.close()
        return used_s

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        return runner.run(body())


def run_busy(target: Target, url: str, context: ssl.SSLContext | None, count: int) -> float:
    return run_native(target, url, context, count, busy=True)


def run_websockets(target: Target, url: str, context: ssl.SSLContext | None, count: int) -> float:
    async def body() -> float:
        write = target.writer.write_raw
        tls = {"ssl": context} if context else {}
        async with connect(url, compression=None, close_timeout=1, **tls) as socket, asyncio.timeout(DEADLINE_S):
            begun_s = time.process_time()
            await socket.send("go")
            for _ in range(count):
                payload = await socket.recv(decode=False)
                write(FRAME, 0, 1, time.time_ns(), mono_ns(), b"", payload)
            return time.process_time() - begun_s

    return asyncio.run(body())


def run_picows(target: Target, url: str, context: ssl.SSLContext | None, count: int) -> float:
    write = target.writer.write_raw

    class Listener(picows.WSListener):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.left = count
            self.done = asyncio.Event()

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            if frame.msg_type == picows.WSMsgType.TEXT:
                write(FRAME, 0, 1, time.time_ns(), mono_ns(), b"", frame.get_payload_as_bytes())
                self.left -= 1
                if not self.left:
                    self.done.set()

    async def body() -> float:
        transport, listener = await picows.ws_connect(Listener, url, ssl_context=context)
        begun_s = time.process_time()
        transport.send(picows.WSMsgType.TEXT, b"go")
        await asyncio.wait_for(listener.done.wait(), DEADLINE_S)
        used_s = time.process_time() - begun_s
        transport.disconnect()
        return used_s

    return asyncio.run(body())


# -- the rows --------------------------------------------------------------------------------------------------------


def flood(
    run: Any, url: str, context: ssl.SSLContext | None, size: int, count: int, target: Target
) -> tuple[float, float]:
    """(messages a second, us of the receiver's CPU a message) of one run."""
    used_s = run(target, f"{url}/flood/{size}/{count}", context, count)
    found = target.drained()
    assert [payload for _, _, payload in found] == [message(n, 0, size) for n in range(count)], "not what was sent"
    return count / (found[-1][1] - found[0][0]) * 1e9, used_s / count * 1e6


def paced(run: Any, url: str, context: ssl.SSLContext | None, target: Target) -> tuple[float, float, float]:
    """(p50, p99) in us from send to ring, and p50 of what comes after the stamp: the work, without the wake-up."""
    count = PACED_PER_S * PACED_S
    run(target, f"{url}/paced/{PACED_BYTES}/{count}", context, count)
    found = target.drained()
    sent = [orjson.loads(payload) for _, _, payload in found]
    assert [int(entry["n"]) for entry in sent] == list(range(count)), "not what was sent"
    latency_ns = [commit - int(entry["t"]) for (_, commit, _), entry in zip(found, sent, strict=True)]
    p50, p99 = np.percentile(latency_ns[count // 10 :], [50, 99])
    work = np.median([commit - origin for origin, commit, _ in found[count // 10 :]])
    return p50 / 1e3, p99 / 1e3, work / 1e3


def main() -> None:
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
    contenders: dict[str, Any] = {"native": run_native, "websockets": run_websockets}
    if picows is None:
        print("socket_bench: picows is not installed (pip install crypto-lob[bench]); left out", file=sys.stderr)
    else:
        contenders["picows"] = run_picows
    with sender() as (port, trusted):
        links: tuple[tuple[str, str, ssl.SSLContext | None], ...] = (
            ("plain", f"ws://127.0.0.1:{port}", None),
            ("TLS", f"wss://127.0.0.1:{port}", trusted),
        )
        target = Target()
        try:
            for link, url, context in links:
                for size, count in FLOODS:
                    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
                    for turn in range(REPEATS + 1):
                        for name, run in contenders.items():
                            figure = flood(run, url, context, size, count, target)
                            if turn:  # the first warms the ring's pages up
                                figures[name].append(figure)
                    for what, unit, at, scale in (("rate", "k messages/s", 0, 1e3), ("CPU", "us/message", 1, 1)):
                        middle = {name: median(figure[at] for figure in found) for name, found in figures.items()}
                        for name, value in middle.items():
                            label = f"socket to ring, {size} B, {link}, {name}, {what}"
                            if name == "native":
                                row(label, value / scale, unit)
                            else:
                                better = middle["native"] / value if at == 0 else value / middle["native"]
                                row(label, value / scale, unit, better, "by native")
            for link, url, context in links:
                paces = {**contenders, "native --busy-poll": run_busy}
                paced_us: dict[str, list[tuple[float, float, float]]] = {name: [] for name in paces}
                for _ in range(REPEATS):  # by turns: what others do to this host meets all of them
                    for name, run in paces.items():
                        paced_us[name].append(paced(run, url, context, target))
                for name, found in paced_us.items():
                    p50, p99, work = (median(turn[at] for turn in found) for at in range(3))
                    # The stamp of the others is not that of the read.
                    also = {"of it read to ring": work} if name.startswith("native") else {}
                    row(f"send to ring at {PACED_PER_S}/s, {link}, {name}, p50", p50, "us", also=also)
                    row(f"send to ring at {PACED_PER_S}/s, {link}, {name}, p99", p99, "us")
        finally:
            target.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        main()
