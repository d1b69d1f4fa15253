"""shared/lob/recording.py: what is written is read back, and damage is named."""

from __future__ import annotations

import errno
import gzip
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

from lob import recording
from lob.recording import Recorder, RecordingError

LINES: list[dict[str, Any]] = [
    {"ts_ns": 1, "conn": "ws", "dir": "out", "url": "wss://x", "raw": "", "event": "connect", "session": 1},
    {"ts_ns": 2, "conn": "ws", "dir": "in", "raw": '{"e":"é \\n"}'},
    {"ts_ns": None, "conn": "ws", "dir": "in", "raw": "plain"},
    {"ts_ns": 3, "conn": "ws", "dir": "http", "url": "https://x", "raw": "{}"},
]


def text_of(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)


def test_plain_gzip_and_zstandard_are_read_alike_whatever_the_name(tmp_path: Path) -> None:
    text = text_of(LINES)
    for name, data in {"a": text, "b": gzip.compress(text), "c": zstandard.compress(text)}.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert list(recording.read(path)) == LINES


def test_compressed_parts_one_after_the_other_are_one_recording(tmp_path: Path) -> None:
    for compress in (gzip.compress, zstandard.compress):
        path = tmp_path / "parts"
        path.write_bytes(compress(text_of(LINES[:2])) + compress(text_of(LINES[2:])))
        assert list(recording.read(path)) == LINES


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_what_a_recorder_wrote_is_read_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"r.jsonl{suffix}"
    recorder = Recorder(path)
    recorder.line(LINES[0])
    frames = [b'{"n":%d}' % n for n in range(1000)]
    for number, frame in enumerate(frames):
        recorder.frame(number, "ws", frame)
    recorder.close()
    assert recorder.failure is None
    assert (recorder.lines, recorder.lines_lost) == (1001, 0)
    read = list(recording.read(path))
    assert read[0] == LINES[0]
    assert [recording.payload(line) for line in read[1:]] == frames
    assert [line["ts_ns"] for line in read[1:]] == list(range(1000))


def test_a_frame_that_is_no_text_keeps_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    recorder = Recorder(path)
    recorder.frame(1, "ws", b"\xff\x00\xfe")
    recorder.close()
    (line,) = recording.read(path)
    assert line["raw"] == ""
    assert recording.payload(line) == b"\xff\x00\xfe"


def test_recorder_that_falls_behind_counts_and_leaves_a_note_at_the_hole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    write = recording._Plain.write

    def slow(self: recording._Plain, data: bytes) -> None:
        gate.wait(10)
        write(self, data)

    monkeypatch.setattr(recording._Plain, "write", slow)
    recorder = Recorder(tmp_path / "r.jsonl", queue_bytes=2000)
    for number in range(20):
        recorder.frame(number, "ws", b"x" * 72)
    assert recorder.lines_lost == 10
    gate.set()
    deadline = time.monotonic() + 5
    while recorder.lines < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    recorder.frame(20, "ws", b"after")
    recorder.close()
    lines = list(recording.read(tmp_path / "r.jsonl"))
    assert len(lines) == 12
    assert (lines[10]["event"], lines[10]["count"], lines[10]["scope"]) == ("lost", 10, "all")
    assert lines[11]["raw"] == "after"


def test_full_disk_is_a_failure_in_one_sentence_and_takes_nothing_more() -> None:
    recorder = Recorder("/dev/full")
    recorder.frame(1, "ws", b"x")
    deadline = time.monotonic() + 5
    while recorder.failure is None and time.monotonic() < deadline:
        time.sleep(0.01)
    recorder.frame(2, "ws", b"x")
    recorder.close()
    assert recorder.failure == "/dev/full: No space left on device"
    assert recorder.lines == 0


def test_recording_over_a_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(text_of(LINES))
    with pytest.raises(RecordingError, match=r"r\.jsonl: exists already"):
        Recorder(path)
    assert path.read_bytes() == text_of(LINES)


def test_recording_into_a_missing_folder_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"no/r\.jsonl: No such file"):
        Recorder(tmp_path / "no" / "r.jsonl")


def test_missing_recording_is_named() -> None:
    with pytest.raises(RecordingError, match=r"/no/such\.jsonl: No such file or directory"):
        list(recording.read("/no/such.jsonl"))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "no JSON"),
        (b"[]", "no JSON object"),
        (b'{"ts_ns":1,"conn":"a","dir":"sideways","raw":""}', "dir is none of"),
        (b'{"ts_ns":"1","conn":"a","dir":"in","raw":""}', "ts_ns"),
        (b'{"ts_ns":1,"dir":"in","raw":""}', "conn"),
        (b'{"ts_ns":1,"conn":"a","dir":"in"}', "raw"),
        (b'{"ts_ns":1,"conn":"a","dir":"http","raw":""}', "url"),
    ],
)
def test_corrupt_line_is_named_by_file_and_line(tmp_path: Path, line: bytes, why: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(text_of(LINES) + line + b"\n" + text_of(LINES))
    with pytest.raises(RecordingError, match=rf"bad\.jsonl:5: .*{why}"):
        list(recording.read(path))


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_cut_recording_gives_what_there_is_and_then_the_error(tmp_path: Path, compress: Any) -> None:
    path = tmp_path / "cut"
    data = compress(text_of([{**LINES[1], "raw": str(n) * 50} for n in range(20000)]))
    path.write_bytes(data[: len(data) // 2])
    count = 0
    with pytest.raises(RecordingError, match="cut"):
        for _ in recording.read(path):
            count += 1
    assert count > 0 or compress is zstandard.compress  # zstandard gives whole blocks of 128 KiB


def test_garbage_after_a_gzip_part_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "bad.gz"
    path.write_bytes(gzip.compress(text_of(LINES)) + b"garbage")
    with pytest.raises(RecordingError, match="damaged"):
        list(recording.read(path))


def test_error_of_the_disk_later_on_leaves_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.jsonl.gz"
    recorder = Recorder(path)
    recorder.frame(1, "ws", b"first")
    deadline = time.monotonic() + 5
    while path.stat().st_size < 20 and time.monotonic() < deadline:  # flushed within a second
        time.sleep(0.01)

    def full(self: object, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(recording._Gzip, "write", full)
    recorder.frame(2, "ws", b"second")
    while recorder.failure is None and time.monotonic() < deadline:
        time.sleep(0.01)
    recorder.close()
    assert recorder.failure is not None
    lines = []
    with pytest.raises(RecordingError, match="cut short"):
        for line in recording.read(path):
            lines.append(line["raw"])
    assert lines == ["first"]
