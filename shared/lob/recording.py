"""Recordings: one JSON object a line, what a venue sent and what was sent to it, in the order of receipt.

Every line has `ts_ns` (Unix time of receipt; null: not known), `conn` (a label) and `dir`:

    in    `raw` is a message of the venue. A frame that is no text has `raw` "", `enc` "binary" and `wire_b64`.
    out   `raw` was sent to `url`; with `event` "connect" or "close" the connection to `url` was opened or is gone
    http  `raw` is the answer to a GET of `url`
    note  what lob-connect itself had to say, by `event`: "connection" (`connection` id, `venue`, `url`, `symbols`,
          `session` before the first connect), "answer" to a request (`id`, `kind`, `outcome`, `symbol`, `detail`),
          "lost" (`count`, `scope`, `reason`)

`session` on connect and close lines numbers the sessions of a connection. Recordings of other programs have no notes
and no sessions. Files may be plain or compressed by gzip or zstandard; writing goes by the suffix (.gz, .zst), reading
by the first bytes.
"""

from __future__ import annotations

import base64
import stat
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, Protocol, TypeAlias

import orjson
import zstandard

Line: TypeAlias = dict[str, Any]

DIRECTIONS = ("in", "out", "http", "note")
READ_BYTES = 1 << 17  # compressed; about 1 MiB of lines
PLAIN_BYTES = 1 << 18  # not compressed; stays in a core's cache until it has been played
QUEUE_BYTES = 64 << 20
# The thread that writes holds the interpreter for so many lines at most (about 0.1 ms): the socket waits as long.
BATCH_LINES = 64
FLUSH_S = 1.0


class RecordingError(Exception):
    """A recording that cannot be read or written, in one sentence. `line` counts from 1; 0: none in particular."""

    def __init__(self, path: Path | str, line: int, why: str) -> None:
        super().__init__(f"{path}:{line}: {why}" if line else f"{path}: {why}")
        self.path, self.line = path, line


# -- reading ----------------------------------------------------------------------------------------------------------


class _Decoder(Protocol):
    def decompress(self, data: bytes, /) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


def _gzip_decoder() -> _Decoder:
    return zlib.decompressobj(wbits=31)


def _zstd_decoder() -> _Decoder:
    return zstandard.ZstdDecompressor().decompressobj()


_MAGIC: tuple[tuple[bytes, Callable[[], _Decoder]], ...] = (
    (b"\x1f\x8b", _gzip_decoder),
    (b"\x28\xb5\x2f\xfd", _zstd_decoder),
)


def _blocks(path: Path) -> Iterator[bytes]:
    """The file's text in blocks of any length, several compressed parts one after the other."""
    try:
        with path.open("rb") as file:
            chunk = file.read(READ_BYTES)
            make = next((make for magic, make in _MAGIC if chunk.startswith(magic)), None)
            if make is None:
                while chunk:
                    yield chunk
                    chunk = file.read(PLAIN_BYTES)
                return
            decoder = make()
            while chunk:
                while chunk:
                    if decoder.eof:
                        decoder = make()
                    block = decoder.decompress(chunk)
                    chunk = decoder.unused_data if decoder.eof else b""
                    if block:
                        yield block
                chunk = file.read(READ_BYTES)
    except OSError as error:
        raise RecordingError(path, 0, error.strerror or str(error)) from None
    except (zlib.error, zstandard.ZstdError) as error:
        raise RecordingError(path, 0, f"the compressed data are damaged: {error}") from None
    if not decoder.eof:
        raise RecordingError(path, 0, "the compressed data are cut short; what there was has been read")


def blocks_of_text(path: Path) -> Iterator[bytes]:
    """The text of a recording, many whole lines at a time, each with its newline. Raises RecordingError.

    What can be read of a damaged file comes first, then the error.
    """
    parts: list[bytes] = []
    for block in _blocks(path):
        end = block.rfind(b"\n") + 1
        if end:
            yield b"".join((*parts, block[:end]))
            parts = [block[end:]]
        else:
            parts.append(block)
    rest = b"".join(parts)
    if rest:
        yield rest + b"\n"


def check(line: bytes) -> str | None:
    """Why these bytes are no line of a recording, in a few words; None if they are one."""
    try:
        message = orjson.loads(line)
    except orjson.JSONDecodeError:
        return "no JSON"
    if not isinstance(message, dict):
        return "no JSON object"
    if message.get("dir") not in DIRECTIONS:
        return f"dir is none of {', '.join(DIRECTIONS)}"
    for key, kinds in (("ts_ns", (int, type(None))), ("conn", str)):
        if key not in message or not isinstance(message[key], kinds):
            return f"{key} is missing or of another kind"
    if message["dir"] != "note" and not isinstance(message.get("raw"), str):
        return "raw is missing or no text"
    if message["dir"] == "http" and not isinstance(message.get("url"), str):
        return "an http line without url"
    return None


def read(path: Path | str) -> Iterator[Line]:
    """Each line of a recording, decoded and checked. Raises RecordingError, naming file and line."""
    path = Path(path)
    number = 0
    for text in blocks_of_text(path):
        for line in text[:-1].split(b"\n"):
            number += 1
            why = check(line)
            if why is not None:
                raise RecordingError(path, number, why)
            yield orjson.loads(line)


def payload(line: Line) -> bytes:
    """The bytes of a message as they go into a ring: the text, or what was on the wire if it was none."""
    if line.get("enc") == "binary":
        return base64.b64decode(line.get("wire_b64", ""))
    return str(line["raw"]).encode()


# -- writing ----------------------------------------------------------------------------------------------------------


class _Encoder(Protocol):
    def write(self, data: bytes) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class _Plain:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:  # an unbuffered file may take less than all
            view = view[self._file.write(view) :]

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()


class _Gzip(_Plain):
    """Level 1: a recorder that cannot keep up loses lines, disk space is cheaper."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._deflate = zlib.compressobj(1, zlib.DEFLATED, 31)

    def write(self, data: bytes) -> None:
        super().write(self._deflate.compress(data))

    def flush(self) -> None:
        super().write(self._deflate.flush(zlib.Z_SYNC_FLUSH))

    def close(self) -> None:
        super().write(self._deflate.flush())
        super().close()


class _Zstd(_Plain):
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._compress = zstandard.ZstdCompressor(level=3).compressobj()

    def write(self, data: bytes) -> None:
        super().write(self._compress.compress(data))

    def flush(self) -> None:
        super().write(self._compress.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))

    def close(self) -> None:
        super().write(self._compress.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH))
        super().close()


_ENCODERS: dict[str, Callable[[IO[bytes]], _Encoder]] = {".gz": _Gzip, ".zst": _Zstd}


class Recorder:
    """Writes a recording from a thread of its own; `frame` and `line` never wait for the disk.

    Memory is bounded: when the disk is `queue_bytes` behind, lines are left out, counted in `lines_lost`, and the
    recording says so itself by a "lost" note at that place. After an error of the disk `failure` is its sentence and
    nothing more is written; what is on the disk by then can be read. It is flushed once a second.
    """

    def __init__(self, path: Path | str, *, queue_bytes: int = QUEUE_BYTES) -> None:
        """Raises RecordingError if the file cannot be made, or is there already and holds something."""
        self.path = Path(path)
        self.failure: str | None = None
        self.lines = 0
        self.lines_lost = 0
        try:
            if self.path.exists() and stat.S_ISREG(self.path.stat().st_mode) and self.path.stat().st_size:
                raise RecordingError(path, 0, "exists already; a recording never overwrites one")
            file = self.path.open("wb", buffering=0)
        except OSError as error:
            raise RecordingError(path, 0, error.strerror or str(error)) from None
        self._encoder = _ENCODERS.get(self.path.suffix, _Plain)(file)
        self._queue: SimpleQueue[tuple[int, str, bytes] | Line | None] = SimpleQueue()
        self._queue_bytes = queue_bytes
        self._bytes_in = 0  # changed by the caller's thread only
        self._bytes_out = 0  # changed by the writing thread only
        self._hole = 0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def frame(self, ts_ns: int, conn: str, payload: bytes) -> None:
        """A message of the venue."""
        size = len(payload) + 128
        if self._take(size, ts_ns, conn):
            self._queue.put((ts_ns, conn, payload))

    def line(self, line: Line) -> None:
        """Any other line, whole."""
        if self._take(len(line.get("raw", "")) + 256, line["ts_ns"], line["conn"]):
            self._queue.put(line)

    def _take(self, size: int, ts_ns: int, conn: str) -> bool:
        if self.failure is not None:
            return False
        if self._bytes_in - self._bytes_out + size > self._queue_bytes:
            self._hole += 1
            self.lines_lost += 1
            return False
        if self._hole:
            hole = {"event": "lost", "count": self._hole, "scope": "all", "reason": "lost"}
            self._queue.put({"ts_ns": ts_ns, "conn": conn, "dir": "note", **hole})
            self._bytes_in += 256
            self._hole = 0
        self._bytes_in += size
        return True

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what is waiting and close the file; `failure` and `lines` are final then."""
        self._queue.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive() and self.failure is None:
            self.failure = f"{self.path}: the disk is too slow; the end of the recording is missing"

    def _run(self) -> None:
        try:
            next_flush, flushed = time.monotonic() + FLUSH_S, 0
            open_ = True
            while open_:
                open_ = self._write_some()
                if self.lines != flushed and time.monotonic() >= next_flush:
                    self._encoder.flush()
                    next_flush, flushed = time.monotonic() + FLUSH_S, self.lines
            self._encoder.close()
        except OSError as error:
            self.failure = f"{self.path}: {error.strerror or error}"

    def _write_some(self) -> bool:
        """Wait for lines and write a batch of them; False at the end."""
        batch: list[bytes] = []
        taken = 0
        item: tuple[int, str, bytes] | Line | None
        try:
            item = self._queue.get(timeout=FLUSH_S / 4)
            while item is not None:
                if isinstance(item, tuple):
                    taken += len(item[2]) + 128
                    item = frame_line(*item)
                else:
                    taken += len(item.get("raw", "")) + 256
                batch.append(orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE))
                if len(batch) == BATCH_LINES:
                    break
                item = self._queue.get_nowait()
        except Empty:
            item = {}
        if batch:
            self._encoder.write(b"".join(batch))
            self.lines += len(batch)
            self._bytes_out += taken
        return item is not None


def frame_line(ts_ns: int, conn: str, payload: bytes) -> Line:
    """The line of a message of the venue."""
    try:
        return {"ts_ns": ts_ns, "conn": conn, "dir": "in", "raw": payload.decode()}
    except UnicodeDecodeError:
        wire = base64.b64encode(payload).decode()
        return {"ts_ns": ts_ns, "conn": conn, "dir": "in", "raw": "", "enc": "binary", "wire_b64": wire}
