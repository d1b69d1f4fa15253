"""The published cases of the Autobahn test suite, as frames that a server sends and what must come of them.

https://github.com/crossbario/autobahn-testsuite (autobahntestsuite/case), for a client that only receives. Cases that
differ in nothing but how their bytes are cut stand here once, by both numbers. Left to the suite itself
(autobahn_client.py): round-trip times (9.7, 9.8) and the long runs of 12 and 13.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
HELLO = b"Hello, world!"
KOSME = "κ\u1f79σμε".encode()  # with the letter that takes three bytes, as the suite has it
GERMAN = "Hello-µ@ßöäüàá-UTF-8!!".encode()
NO_CODE = 1005  # a close frame without a code


@dataclass(frozen=True)
class Case:
    """`code`: of the close frame by which the client ends, or None if it stays until we close with 1000."""

    name: str
    frames: tuple[bytes, ...]
    messages: tuple[bytes, ...] = ()
    pongs: tuple[bytes, ...] = ()
    code: int | None = None
    deflate: str | None = None  # the server's answer to the offer of permessage-deflate
    chop_bytes: int = 0  # cut only so; 0: by every usual way


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool = False) -> bytes:
    """Any frame, also one that must not be."""
    size = len(payload)
    short = size if size < 126 else 126 if size < 1 << 16 else 127
    extended = b"" if size < 126 else size.to_bytes(2 if short == 126 else 8, "big")
    head = bytes([fin << 7 | rsv << 4 | opcode, mask << 7 | short]) + extended
    return head + b"\0\0\0\0" * mask + payload


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


def fragments(opcode: int, *parts: bytes) -> tuple[bytes, ...]:
    return tuple(frame(opcode if i == 0 else CONT, part, fin=i == len(parts) - 1) for i, part in enumerate(parts))


def fragmented(opcode: int, payload: bytes, size: int) -> tuple[bytes, ...]:
    """As the suite sends a message in fragments of a size: an empty one ends it."""
    return fragments(opcode, payload) if len(payload) <= size else fragments(opcode, *pieces(payload, size), b"")


def pieces(payload: bytes, size: int) -> list[bytes]:
    return [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]


def cases() -> Iterator[Case]:
    yield from framing()
    yield from pings()
    yield from reserved()
    yield from fragmentation()
    yield from utf8()
    yield from closing()
    yield from limits()
    yield from compression()


def framing() -> Iterator[Case]:
    for section, opcode, letter in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for number, size in enumerate((0, 125, 126, 127, 128, 65535), 1):
            yield Case(f"1.{section}.{number}", (frame(opcode, letter * size),), (letter * size,))
        yield Case(f"1.{section}.7, 8", (frame(opcode, letter * 65536),), (letter * 65536,))


def pings() -> Iterator[Case]:
    payloads = (b"", HELLO, b"\0\xff\xfe\xfd\xfc\xfb\0\xff", b"\xfe" * 125)
    for name, payload in zip(("2.1", "2.2", "2.3", "2.4, 6"), payloads, strict=True):
        yield Case(name, (frame(PING, payload),), pongs=(payload,))
    yield Case("2.5", (frame(PING, b"\xfe" * 126),), code=1002)
    yield Case("2.7", (frame(PONG),))
    pong = frame(PONG, b"unsolicited pong payload")
    yield Case("2.8", (pong,))
    yield Case("2.9", (pong, frame(PING, b"ping payload")), pongs=(b"ping payload",))
    ten = tuple(b"payload-%d" % n for n in range(10))
    yield Case("2.10, 11", tuple(frame(PING, payload) for payload in ten), pongs=ten)


def reserved() -> Iterator[Case]:
    hello, ping = frame(TEXT, HELLO), frame(PING)
    yield Case("3.1", (frame(TEXT, HELLO, rsv=1),), code=1002)
    for rsv in (2, 3, 4):
        yield Case(f"3.{rsv}", (hello, frame(TEXT, HELLO, rsv=rsv), ping), (HELLO,), code=1002)
    yield Case("3.5", (frame(BINARY, b"\0\xff\xfe\xfd\xfc\xfb\0\xff", rsv=5),), code=1002)
    yield Case("3.6", (frame(BINARY, HELLO, rsv=6),), code=1002)
    yield Case("3.7", (frame(CLOSE, rsv=7),), code=1002)
    for section, first in ((1, 3), (2, 11)):
        name = f"4.{section}."
        yield Case(f"{name}1", (frame(first),), code=1002)
        yield Case(f"{name}2", (frame(first + 1, b"reserved opcode payload"),), code=1002)
        yield Case(f"{name}3", (hello, frame(first + 2), ping), (HELLO,), code=1002)
        for number in (3, 4):
            stream = (hello, frame(first + number, HELLO), ping)
            yield Case(f"{name}{number + 1}", stream, (HELLO,), code=1002)


def fragmentation() -> Iterator[Case]:
    one, two = b"fragment1", b"fragment2"
    yield Case("5.1", fragments(PING, one, two), code=1002)
    yield Case("5.2", fragments(PONG, one, two), code=1002)
    yield Case("5.3, 4, 5", fragments(TEXT, one, two), (one + two,))
    first, last = fragments(TEXT, one, two)
    yield Case("5.6, 7, 8", (first, frame(PING, b"ping payload"), last), (one + two,), (b"ping payload",))
    hello, lone = frame(TEXT, HELLO), b"non-continuation payload"
    yield Case("5.9, 10, 11", (frame(CONT, lone), hello), code=1002)
    yield Case("5.12, 13, 14", (frame(CONT, lone, fin=False), hello), code=1002)
    more = (frame(CONT, b"fragment3", fin=False), frame(TEXT, b"fragment4"))
    yield Case("5.15", (first, last, *more), (one + two,), code=1002)
    opened, ended = frame(TEXT, two, fin=False), frame(CONT, b"fragment3")
    yield Case("5.16", (frame(CONT, one, fin=False), opened, ended) * 2, code=1002)
    yield Case("5.17", (frame(CONT, one), opened, ended) * 2, code=1002)
    yield Case("5.18", (first, frame(TEXT, two)), code=1002)
    five = fragments(TEXT, *(b"fragment%d" % n for n in range(1, 6)))
    pongs = (b"pongme 1!", b"pongme 2!")
    stream = (*five[:2], frame(PING, pongs[0]), *five[2:4], frame(PING, pongs[1]), five[4])
    yield Case("5.19, 20", stream, (b"".join(b"fragment%d" % n for n in range(1, 6)),), pongs)


def utf8() -> Iterator[Case]:
    yield Case("6.1.1", (frame(TEXT),), (b"",))
    yield Case("6.1.2", fragments(TEXT, b"", b"", b""), (b"",))
    yield Case("6.1.3", fragments(TEXT, b"", b"middle frame payload", b""), (b"middle frame payload",))
    yield Case("6.2.1", (frame(TEXT, GERMAN),), (GERMAN,))
    yield Case("6.2.2", fragments(TEXT, GERMAN[:15], GERMAN[15:]), (GERMAN,))
    yield Case("6.2.3", fragmented(TEXT, GERMAN, 1), (GERMAN,))
    yield Case("6.2.4", fragmented(TEXT, KOSME, 1), (KOSME,))
    bad = KOSME + b"\xed\xa0\x80edited"
    yield Case("6.3.1", (frame(TEXT, bad),), code=1007)
    yield Case("6.3.2", fragmented(TEXT, bad, 1), code=1007)
    high = KOSME + b"\xf4\x90\x80\x80edited"
    yield Case("6.4.1", fragments(TEXT, high[:11], high[11:15], high[15:]), code=1007)
    yield Case("6.4.2", fragments(TEXT, high[:12], high[12:13], high[13:]), code=1007)
    yield Case("6.4.3, 4", fragments(TEXT, high, b""), code=1007)
    for section, sequences in enumerate(UTF8, 5):
        for number, (good, text) in enumerate(sequences, 1):
            messages = (text,) if good else ()
            yield Case(f"6.{section}.{number}", (frame(TEXT, text),), messages, code=None if good else 1007)


def starts(first: int, last: int) -> bytes:
    """Start bytes with a space after each; the suite leaves the last one out."""
    return b"".join(bytes([byte]) + b" " for byte in range(first, last))


CUT_SHORT = [b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80"]
CUT_SHORT += [b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf"]
NONCHARACTERS = [0xFFFE, 0xFFFF, *(plane << 16 | low for plane in range(1, 17) for low in (0xFFFE, 0xFFFF))]
HIGH, LOW = (b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf"), (b"\xed\xb0\x80", b"\xed\xbf\xbf")


def _utf8() -> Iterator[list[tuple[bool, bytes]]]:
    """Sections 6.5 to 6.23: (whether it is UTF-8, the bytes). From Markus Kuhn's decoder stress test."""

    def good(*texts: bytes) -> list[tuple[bool, bytes]]:
        return [(True, text) for text in texts]

    def bad(*texts: bytes) -> list[tuple[bool, bytes]]:
        return [(False, text) for text in texts]

    yield good(*(f"hello{letter}world".encode() for letter in "$¢€\U00024b62"), KOSME)
    whole = {2, 5, 7, 9, 11}  # KOSME, cut after each byte
    yield [(size in whole, KOSME[:size]) for size in range(1, 12)]
    yield good(b"\0", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80")
    yield bad(b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80")
    yield good(b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf")
    yield bad(b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf")
    yield good(b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf") + bad(b"\xf4\x90\x80\x80")
    yield bad(b"\x80", b"\xbf", *((b"\x80\xbf" * 3)[:n] for n in range(2, 7)), bytes(range(0x80, 0xBF)))
    ranges = ((0xC0, 0xDF), (0xE0, 0xEF), (0xF0, 0xF7), (0xF8, 0xFB), (0xFC, 0xFD))
    yield bad(*(starts(*each) for each in ranges))
    yield bad(*CUT_SHORT)
    yield bad(b"".join(CUT_SHORT))
    yield bad(b"\xfe", b"\xff", b"\xfe\xfe\xff\xff")
    yield bad(*(lead + b"\x80" * n + b"\xaf" for n, lead in enumerate((b"\xc0", b"\xe0", b"\xf0", b"\xf8", b"\xfc"))))
    yield bad(b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf")
    yield bad(*(lead + b"\x80" * n for n, lead in enumerate((b"\xc0", b"\xe0", b"\xf0", b"\xf8", b"\xfc"), 1)))
    yield bad(*HIGH, b"\xed\xb0\x80", b"\xed\xbe\x80", b"\xed\xbf\xbf")
    yield bad(*(high + low for high in HIGH for low in LOW))
    yield good(*(chr(code).encode() for code in NONCHARACTERS))
    yield good(*(chr(code).encode() for code in range(0xFFF9, 0x10000)))


UTF8 = list(_utf8())


def closing() -> Iterator[Case]:
    hello = frame(TEXT, b"Hello World!")
    yield Case("7.1.1", (hello, close_frame(1000)), (b"Hello World!",), code=1000)
    yield Case("7.1.2", (close_frame(1000), frame(CLOSE)), code=1000)
    yield Case("7.1.3", (close_frame(1000), frame(PING)), code=1000)
    yield Case("7.1.4", (close_frame(1000), hello), code=1000)
    first, last = fragments(TEXT, b"fragment1", b"fragment2")
    yield Case("7.1.5", (first, close_frame(1000), last), code=1000)
    large = (b"BAsd7&jh23" * 26215)[: 256 << 10]
    stream = (frame(TEXT, large), hello, close_frame(1000), frame(PING))
    yield Case("7.1.6", stream, (large, b"Hello World!"), code=1000)
    yield Case("7.3.1", (frame(CLOSE),), code=NO_CODE)
    yield Case("7.3.2", (frame(CLOSE, b"a"),), code=1002)
    yield Case("7.3.3", (close_frame(1000),), code=1000)
    yield Case("7.3.4", (close_frame(1000, b"Hello World!"),), code=1000)
    yield Case("7.3.5", (close_frame(1000, b"*" * 123),), code=1000)
    yield Case("7.3.6", (close_frame(1000, b"*" * 124),), code=1002)
    yield Case("7.5.1", (close_frame(1000, KOSME + b"\xed\xa0\x80edited"),), code=1007)
    codes = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    for number, code in enumerate(codes, 1):
        yield Case(f"7.7.{number}", (close_frame(code),), code=code)
    for number, code in enumerate((0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999), 1):
        yield Case(f"7.9.{number}", (close_frame(code),), code=1002)
    yield Case("7.13.1", (close_frame(5000),), code=1002)
    yield Case("7.13.2", (close_frame(65535),), code=1002)


def limits() -> Iterator[Case]:
    for section, opcode, letters in ((0, TEXT, b"BAsd7&jh23"), (1, BINARY, b"\0\xfe\x23\xfa\xf0")):
        for number, size in enumerate((64 << 10, 256 << 10, 1 << 20, 4 << 20, 8 << 20, 16 << 20), 1):
            payload = (letters * (size // len(letters) + 1))[:size]
            yield Case(f"9.{1 + section}.{number}", (frame(opcode, payload),), (payload,), chop_bytes=1 << 30)
        for number in range(1, 10):
            payload = (b"\xfe" if opcode == BINARY and number == 1 else b"*") * (4 << 20)
            stream = fragmented(opcode, payload, 64 << 2 * (number - 1))
            yield Case(f"9.{3 + section}.{number}", stream, (payload,), chop_bytes=1 << 30)
        payload = (letters * (1 << 20))[: 1 << 20]
        for number in range(1, 7):
            chop_bytes = 64 << number - 1
            yield Case(f"9.{5 + section}.{number}", (frame(opcode, payload),), (payload,), chop_bytes=chop_bytes)
    stars = b"*" * 65536
    yield Case("10.1.1", fragments(TEXT, *pieces(stars, 1300)), (stars,))


# (size of a message, size of a fragment), as in the suite's MSG_SIZES.
SIZES = [(16 << 2 * n if n < 4 else 4096 << n - 4, 0) for n in range(10)]
SIZES += [(8192 << n, 256) for n in range(5)] + [(131072, size) for size in (1024, 4096, 32768)]
# What the server of section 13 asks of the client, and what it may say of its own side.
ANSWERS = (
    "permessage-deflate",
    "permessage-deflate; client_no_context_takeover",
    "permessage-deflate; client_max_window_bits=9",
    "permessage-deflate; client_max_window_bits=15",
    "permessage-deflate; client_no_context_takeover; client_max_window_bits=9",
    "permessage-deflate; client_no_context_takeover; client_max_window_bits=15",
    "permessage-deflate; server_no_context_takeover; server_max_window_bits=9",
)
MESSAGES = 5  # the suite sends 1,000


def compression() -> Iterator[Case]:
    rows = b'{"e":"depthUpdate","E":%d,"s":"BTCUSDT","b":[["%d.10","0.5"]],"a":[]}'
    text = b"[" + b",".join(rows % (1700000000000 + n * 7919, 97000 + n * n % 1009) for n in range(4000)) + b"]"
    noise = b"".join(zlib.crc32(b"%d" % n).to_bytes(4, "big") for n in range(1 << 16))
    for section, (opcode, data) in enumerate(((TEXT, text), (BINARY, noise), (BINARY, text)), 1):
        for number, (size, part) in enumerate(SIZES, 1):
            yield compressed(f"12.{section}.{number}", opcode, data, size, part, ANSWERS[0])
    for section, answer in enumerate(ANSWERS, 1):
        for number, (size, part) in enumerate(SIZES, 1):
            yield compressed(f"13.{section}.{number}", TEXT, text, size, part, answer)


def compressed(name: str, opcode: int, data: bytes, size: int, part: int, answer: str) -> Case:
    forgets, bits = "server_no_context_takeover" in answer, 9 if "server_max_window_bits=9" in answer else 15
    packer = zlib.compressobj(wbits=-bits)
    stream, messages = [], []
    for at in range(MESSAGES):
        message = (data + data)[at * size % len(data) :][:size]
        if forgets:
            packer = zlib.compressobj(wbits=-bits)
        packed = (packer.compress(message) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
        parts = pieces(packed, part or len(packed))
        for i, each in enumerate(parts):
            stream.append(frame(opcode if i == 0 else CONT, each, fin=i == len(parts) - 1, rsv=4 if i == 0 else 0))
        # What is not worth packing may be sent plain on the same connection: the native way, between the others.
        stream.append(frame(opcode, b"plain"))
        messages += [message, b"plain"]
    return Case(name, tuple(stream), tuple(messages), deflate=answer)
