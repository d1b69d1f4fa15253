"""Other processes for the tests: exec'ed, told what to do line by line, killed at will.

`python peer.py` reads JSON strings of Python from stdin, runs each with the names of the ring modules in reach,
and answers with one JSON line: {"value": ...} of an expression, or {"error": kind, "text": sentence}.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lob import _native, errors, memory, names, records, rings, roles, segments
from lob.names import SHM

DEADLINE_S = 20.0


class PeerError(Exception):
    """What the other process raised; `kind` is the name of its exception."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind, self.text = kind, text


class Peer:
    """A process that does what it is told."""

    def __init__(self, **popen: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **popen
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(self, code: str) -> None:
        """Tell it without waiting for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()

    def do(self, code: str) -> Any:
        self.start(code)
        return self.answer()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the other process ended with {self.process.wait()}"
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"], answer["text"])
        return answer["value"]

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(DEADLINE_S)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass


@contextmanager
def peers(count: int, **popen: Any) -> Iterator[list[Peer]]:
    started = [Peer(**popen) for _ in range(count)]
    try:
        yield started
    finally:
        for peer in started:
            peer.kill()


@contextmanager
def own_instance() -> Iterator[str]:
    """An instance name that nobody else has; whatever carries it in shared memory is removed afterwards."""
    instance = f"test-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        yield instance
    finally:
        remove_all(instance)


def remove_all(instance: str) -> None:
    """Everything in shared memory that belongs to instances of this name, or whose name begins so."""
    for pattern in (f"lob.{instance}*", f".lob.{instance}*"):
        for path in SHM.glob(pattern):
            path.unlink(missing_ok=True)


def eventually(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """The first true value of `condition`; fails after the deadline."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {deadline_s} s: {what}")


def in_own_shm(size: str, program: str) -> subprocess.CompletedProcess[str]:
    """Runs Python text where /dev/shm is empty and has this size (as mount takes it); skips if that cannot be."""
    import pytest  # here: the other processes need not load it

    mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if "unshare" in run.stderr or "mount:" in run.stderr:
        pytest.skip("no mount namespaces here")
    return run


def record(text: bytes = b"", **header: Any) -> bytes:
    """A raw frame with this payload."""
    return records.build(records.RecordType.RAW_FRAME, text=text, **header)


def read_all(reader: _native.SpscReader | _native.BroadcastReader) -> list[records.Record]:
    found = []
    while (data := reader.read()) is not None:
        found.append(records.parse(data))
    return found


def _serve() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    known: dict[str, Any] = {
        "time": time,
        "record": record,
        "read_all": read_all,
        "records": records,
        "native": _native,
    }
    for module in (errors, names, roles, memory, segments, rings):
        known.update({name: value for name, value in vars(module).items() if not name.startswith("__")})
    for line in sys.stdin:
        code = json.loads(line)
        answer: dict[str, Any]
        try:
            try:
                answer = {"value": eval(compile(code, "<told>", "eval"), known)}
            except SyntaxError:
                exec(compile(code, "<told>", "exec"), known)
                answer = {"value": None}
        except Exception as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
