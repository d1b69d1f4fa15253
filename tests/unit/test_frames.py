"""native/frames.hpp and socket.py: whatever the frames and however they are cut, the same as `websockets` alone."""

from __future__ import annotations

import asyncio
import secrets
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from lob_connect._native import FrameReader, RawSink
from lob_connect.socket import Socket, Transport
from processes.autobahn_cases import BINARY, CONT, PING, PONG, TEXT, close_frame, fragments, frame
from raw_tape import RawTape, Taping

LIMIT = 70_000
URI = parse_uri("ws://localhost/")


@pytest.fixture(scope="module")
def ring() -> Iterator[RawTape]:
    made = RawTape()
    yield made
    made.close()


class Outcome:
    """What came of a stream of bytes: messages, what was answered, how it ended."""

    def __init__(self, messages: list[bytes], protocol: ClientProtocol, sent: bytes) -> None:
        self.messages = messages
        self.close_sent = protocol.close_sent and (protocol.close_sent.code, protocol.close_sent.reason)
        self.close_received = protocol.close_rcvd and (protocol.close_rcvd.code, protocol.close_rcvd.reason)
        self.answers = frames_of(sent)

    def facts(self) -> tuple[Any, ...]:
        return self.messages, self.answers, self.close_sent, self.close_received


def frames_of(sent: bytes) -> list[tuple[int, bytes]]:
    """(opcode, payload) of the frames that a client sent, its masks taken off."""
    found = []
    while sent:
        size, mask, payload = sent[1] & 0x7F, sent[2:6], sent[6 : 6 + (sent[1] & 0x7F)]
        assert sent[1] & 0x80
        assert size < 126
        found.append((sent[0] & 15, bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))))
        sent = sent[6 + size :]
    return found


def close_between_fragments(protocol: ClientProtocol) -> ClientProtocol:
    """The one thing that we answer otherwise: a close inside a message is a close, and no error (RFC 6455, 5.4)."""
    take, inside = protocol.recv_frame, False

    def recv_frame(frame: Frame) -> None:
        nonlocal inside
        if frame.opcode is Opcode.CLOSE and inside:
            take(Frame(Opcode.CONT, b""))
            protocol.events.pop()
        take(frame)
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            inside = not frame.fin

    protocol.recv_frame = recv_frame  # type: ignore[method-assign]
    return protocol


def by_websockets(stream: bytes, deflate: bool = False) -> Outcome:
    """The reference: the Sans-I/O protocol byte by byte, its messages made as its `recv` makes them."""
    protocol = close_between_fragments(ClientProtocol(URI, state=OPEN, max_size=LIMIT))
    if deflate:
        protocol.extensions = [PerMessageDeflate(False, False, 15, 15)]
    messages, parts, sent = [], [], b""
    for at in range(len(stream)):
        protocol.receive_data(stream[at : at + 1])
        for event in protocol.events_received():
            assert isinstance(event, Frame)
            if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                parts.append(event)
                if event.fin:
                    message = b"".join(part.data for part in parts)
                    is_text, parts = parts[0].opcode is Opcode.TEXT, []
                    try:
                        if is_text:
                            message.decode()
                        messages.append(message)
                    except UnicodeDecodeError as error:
                        protocol.fail(1007, f"{error.reason} at position {error.start}")
        sent += b"".join(protocol.data_to_send())
    return Outcome(messages, protocol, sent)


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def abort(self) -> None: ...


class Receiver(Taping):
    """One that has messages with a mark shown to it."""

    def __init__(self, tape: RawTape, native: bool) -> None:
        super().__init__(tape, native, LIMIT)
        self.sink = RawSink(tape.writer, 0)  # with counts of its own
        self.noted_payloads: list[bytes] = []

    def opened(self, recv_ns: int, socket: Socket) -> FrameReader | None:
        return FrameReader(socket, self.sink, 0, 1, LIMIT, 50, ("mark",)) if self.native else None

    def noted(self, recv_ns: int, payload: bytes) -> None:
        self.noted_payloads.append(payload)


@contextmanager
def running_loop() -> Iterator[None]:
    """websockets' connection asks for the running loop when it is made; nothing here ever runs on it."""
    loop = asyncio.new_event_loop()
    asyncio._set_running_loop(loop)
    try:
        yield
    finally:
        asyncio._set_running_loop(None)
        loop.close()


def by_us(
    ring: RawTape, pieces: Sequence[bytes], *, native: bool = True, deflate: bool = False
) -> tuple[Outcome, Receiver]:
    protocol = ClientProtocol(URI, state=OPEN, max_size=LIMIT)
    if deflate:
        protocol.extensions = [PerMessageDeflate(False, False, 15, 15)]
    receiver = Receiver(ring, native)
    wire = Wire()
    with running_loop():
        socket = Socket(protocol, receiver, Transport(native=native), ping_interval=None)
        socket.response = object()  # type: ignore[assignment]  # the handshake is over
        super(Socket, socket).connection_made(wire)
        socket._reader = receiver.opened(1, socket)
        for piece in pieces:
            socket.data_received(piece)
    messages = [record.text for record in ring.read()]
    return Outcome(messages, protocol, wire.sent), receiver


def check(ring: RawTape, stream: bytes, cuts: Sequence[int] = (), *, deflate: bool = False) -> Outcome:
    """Both transports against the reference; the outcome."""
    places = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    pieces = [stream[a:b] for a, b in pairwise(places)]
    expected = by_websockets(stream, deflate)
    for native in (True, False):
        found, _ = by_us(ring, pieces, native=native, deflate=deflate)
        assert found.facts() == expected.facts(), f"native={native}"
    return expected


# -- any mix, any cut --------------------------------------------------------------------------------------------------

PAYLOADS = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(str.encode),
    st.sampled_from(
        [b"", b"x" * 125, b"x" * 126, b"y" * 65535, b"z" * 65536, b"w" * (LIMIT + 1), b"\xc3", b"\xed\xa0\x80"]
    ),
)
FRAMES = st.one_of(
    st.builds(lambda text: frame(TEXT, text.encode()), st.text(max_size=150)),
    st.builds(lambda data: frame(BINARY, data), st.binary(max_size=150)),
    st.builds(lambda data: frame(BINARY, data * 600), st.binary(max_size=100)),
    st.builds(
        lambda opcode, parts: b"".join(
            frame(opcode if i == 0 else CONT, part, fin=i == len(parts) - 1) for i, part in enumerate(parts)
        ),
        st.sampled_from([TEXT, BINARY]),
        st.lists(st.text(max_size=20).map(str.encode), min_size=2, max_size=4),
    ),
    st.builds(lambda data: frame(PING, data), st.binary(max_size=125)),
    st.builds(lambda data: frame(PONG, data), st.binary(max_size=125)),
)
# These may end the connection, so they are rarer.
ODD = st.one_of(
    st.builds(
        frame,
        st.integers(0, 15),
        PAYLOADS,
        fin=st.booleans(),
        rsv=st.integers(0, 7),
        mask=st.sampled_from([False] * 3 + [True]),
    ),
    st.builds(frame, st.sampled_from([TEXT, BINARY, CONT]), PAYLOADS, fin=st.booleans()),
    st.builds(close_frame, st.integers(0, 5100), st.binary(max_size=20)),
    st.binary(max_size=20),
)


@settings(max_examples=250, deadline=None)
@given(
    st.lists(FRAMES, max_size=12),
    st.lists(st.one_of(FRAMES, ODD), max_size=6),
    st.lists(st.integers(0, 1 << 20), max_size=12),
)
def test_any_mix_of_frames_however_cut_gives_the_messages_answers_and_close_of_websockets(
    ring: RawTape, good: list[bytes], mixed: list[bytes], cuts: list[int]
) -> None:
    check(ring, b"".join(good + mixed), cuts)


def test_a_close_between_fragments_is_answered_with_its_own_code_and_the_message_is_given_up(ring: RawTape) -> None:
    stream = frame(TEXT, b"whole") + frame(TEXT, b"first", fin=False) + close_frame(1001) + frame(CONT, b"last")
    outcome = check(ring, stream, range(len(stream)))
    assert outcome.messages == [b"whole"]
    assert outcome.close_sent == (1001, "")


def test_a_stream_cut_at_every_single_byte_gives_the_same(ring: RawTape) -> None:
    stream = b"".join(
        [
            frame(TEXT, b"one"),
            frame(PING, b"are you there"),
            frame(BINARY, b"\xff" * 300),
            frame(TEXT, b"fr", fin=False),
            frame(PING),
            frame(CONT, b"ag", fin=False),
            frame(CONT, b"ments"),
            frame(TEXT, "größer".encode()),
            close_frame(1001, b"bye"),
            frame(TEXT, b"too late"),
        ]
    )
    outcome = check(ring, stream, range(len(stream)))
    assert outcome.messages == [b"one", b"\xff" * 300, b"fragments", "größer".encode()]
    assert outcome.close_received == (1001, "bye")
    for at in range(len(stream)):
        check(ring, stream, [at])


@given(
    st.binary(max_size=12) | st.text(max_size=12).map(lambda t: t.encode("utf-8", "surrogatepass")), st.integers(0, 130)
)
def test_text_is_taken_exactly_when_python_can_decode_it(ring: RawTape, odd: bytes, at: int) -> None:
    payload = b"a" * at + odd + b"b" * 70
    try:
        payload.decode()
        good = True
    except UnicodeDecodeError:
        good = False
    outcome, receiver = by_us(ring, [frame(TEXT, payload)])
    assert outcome.messages == ([payload] if good else [])
    assert receiver.sink.frames == good
    assert outcome.close_sent is None if good else outcome.close_sent is not None and outcome.close_sent[0] == 1007


def test_compressed_messages_go_through_the_extension_between_plain_ones(ring: RawTape) -> None:
    packer = zlib.compressobj(wbits=-15)

    def packed(text: bytes) -> bytes:
        return (packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]

    stream = frame(TEXT, b"plain") + frame(TEXT, packed(b"packed " * 30), rsv=4) + frame(TEXT, b"plain again")
    outcome = check(ring, stream, range(0, len(stream), 3), deflate=True)
    assert outcome.messages == [b"plain", b"packed " * 30, b"plain again"]


def test_usual_frames_take_the_short_way_and_marked_ones_are_shown(ring: RawTape) -> None:
    _, receiver = by_us(ring, [frame(TEXT, b"a") + frame(TEXT, b"a mark") + frame(TEXT, b"mark" * 20) + frame(PING)])
    assert receiver.sink.frames == 3
    assert receiver.noted_payloads == [b"a mark"]  # the other is too long to be looked at


# -- the ring's side ---------------------------------------------------------------------------------------------------


class Owner:
    """Writes down what the reader asks of it; pays when told to."""

    def __init__(self, sink: RawSink) -> None:
        self.sink = sink
        self.calls: list[Any] = []
        self.pays = True

    def odd(self, data: bytes, recv_ns: int, origin_ns: int) -> None:
        self.calls.append(("odd", data))

    def message(self, payload: bytes, recv_ns: int, origin_ns: int) -> None:
        self.calls.append(("message", payload))

    def lost(self, count: int) -> None:
        self.calls.append(("lost", count))

    def broken(self, error: Exception) -> None:
        self.calls.append(("broken", error))

    def pay(self) -> bool:
        self.calls.append("pay")
        self.sink.owing = not self.pays
        return self.pays


@pytest.fixture
def small() -> Iterator[RawTape]:
    made = RawTape(1 << 14)
    yield made
    made.close()


def test_full_ring_skips_numbers_and_tells_how_many_before_anything_else(small: RawTape) -> None:
    sink = RawSink(small.writer, 1 << 13)
    owner = Owner(sink)
    reader = FrameReader(owner, sink, 3, 7, 1 << 20)
    reader.feed(frame(BINARY, b"x" * 1000) * 20 + frame(PING), 11, 12)
    assert owner.calls[0][0] == "lost"
    assert owner.calls[1] == ("odd", frame(PING))
    found = small.read()
    assert len(found) + owner.calls[0][1] == 20
    head = found[0].header
    assert [int(head[name]) for name in ("connection", "session", "recv_ns", "origin_ns")] == [3, 7, 11, 12]
    reader.feed(frame(BINARY, b"after"), 13, 14)
    assert owner.calls[2] == "pay"
    (after,) = small.read()
    assert int(after.header["ring_seq"]) == 21
    assert reader.last_ns == 14


def test_nothing_passes_what_is_owed_and_cannot_be_paid(small: RawTape) -> None:
    sink = RawSink(small.writer, 1 << 10)
    owner = Owner(sink)
    owner.pays, sink.owing = False, True
    reader = FrameReader(owner, sink, 0, 1, 1 << 20)
    reader.feed(frame(BINARY, b"x") * 2, 1, 1)
    assert owner.calls == ["pay", ("lost", 1), "pay", ("lost", 1)]
    assert small.read() == []


def test_message_larger_than_the_ring_takes_goes_to_the_owner_whole(small: RawTape) -> None:
    sink = RawSink(small.writer, 1 << 10)
    owner = Owner(sink)
    reader = FrameReader(owner, sink, 0, 1, 1 << 20)
    large = frame(BINARY, b"x" * 5000)
    reader.feed(frame(BINARY, b"before") + large + frame(BINARY, b"after"), 1, 1)
    assert [record.text for record in small.read()] == [b"before", b"after"]
    assert owner.calls == [("odd", large)]


def test_with_copies_every_message_is_shown_also_one_that_was_lost(small: RawTape) -> None:
    sink = RawSink(small.writer, 1 << 13)
    sink.copies = True
    owner = Owner(sink)
    FrameReader(owner, sink, 0, 1, 1 << 20).feed(frame(BINARY, b"x" * 1000) * 20, 1, 1)
    assert sum(call[0] == "message" for call in owner.calls) == 20
    assert sum(call[1] for call in owner.calls if call[0] == "lost") > 0


def test_frame_of_several_megabytes_is_taken_and_its_room_given_back() -> None:
    ring = RawTape(1 << 25)
    try:
        sink = RawSink(ring.writer, 0)
        reader = FrameReader(Owner(sink), sink, 0, 1, 1 << 24)
        payload = secrets.token_bytes(5 << 20)
        stream = frame(BINARY, payload)
        for at in range(0, len(stream), 100_000):
            reader.feed(stream[at : at + 100_000], 1, 1)
        reader.feed(frame(BINARY, b"next"), 1, 1)
        assert [record.text for record in ring.read()] == [payload, b"next"]
        assert len(reader.room()) <= 1 << 20
    finally:
        ring.close()


def test_rest_gives_up_a_frame_that_is_not_whole(small: RawTape) -> None:
    sink = RawSink(small.writer, 0)
    reader = FrameReader(Owner(sink), sink, 0, 1, 1 << 20)
    reader.feed(frame(TEXT, b"whole") + b"\x81\x05ha", 1, 1)
    assert reader.rest() == b"\x81\x05ha"
    assert reader.rest() == b""


def test_what_the_owner_raises_comes_out_of_feed(small: RawTape) -> None:
    class Raises(Owner):
        def odd(self, data: bytes, recv_ns: int, origin_ns: int) -> None:
            raise ProtocolError("no")

    sink = RawSink(small.writer, 0)
    with pytest.raises(ProtocolError, match="no"):
        FrameReader(Raises(sink), sink, 0, 1, 1 << 20).feed(frame(PING), 1, 1)


# -- bad frames; tests/processes/test_autobahn.py has the published cases ---------------------------------------------


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (frame(TEXT, b"masked", mask=True), 1002),
        (frame(BINARY, b"x", rsv=2), 1002),
        (frame(TEXT, b"compressed without being asked for", rsv=4), 1002),
        (b"\x82\x7f" + (LIMIT + 1).to_bytes(8, "big"), 1009),
        (b"\x82\x7f" + b"\xff" * 8, 1009),
        (b"".join(fragments(BINARY, b"x" * 40_000, b"x" * 40_000)), 1009),
        (b"\x83\x7e", 1002),  # answered before the header is whole
        (b"\x89\x7f", None),  # waits for its length
        (b"\x89\x7f" + (126).to_bytes(8, "big") + b"x" * 126, 1002),
    ],
)
def test_bad_frame_is_answered_with_its_close_code_after_what_came_before(
    ring: RawTape, stream: bytes, code: int | None
) -> None:
    outcome = check(ring, frame(TEXT, b"before") + stream + frame(TEXT, b"after"), (8, 9, 11))
    if code is not None:
        assert outcome.messages == [b"before"]
        assert outcome.close_sent is not None
        assert outcome.close_sent[0] == code


def test_lengths_need_not_be_minimal_as_websockets_has_it(ring: RawTape) -> None:
    stream = b"\x81\x7e\x00\x02hi" + b"\x82\x7f" + (2).to_bytes(8, "big") + b"ho"
    assert check(ring, stream, (3, 8)).messages == [b"hi", b"ho"]
