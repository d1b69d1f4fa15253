"""Starts the real tools as a user would, for tests: in pipes, or as separate processes on named rings."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lob.names import list_rings
from lob.segments import unlink
from lob.trace import list_traces

BIN = Path(sys.executable).parent
STAGES = ("connect", "parse", "book", "publish")
REPOSITORY = Path(__file__).resolve().parent.parent


def data_folder() -> Path | None:
    """The folder of real recordings, if it is there: LOB_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("LOB_DATA", REPOSITORY.parent / "shared" / "data"))
    return folder if (folder / "truth.json").exists() else None


def unique_instance(stem: str = "t") -> str:
    return f"{stem}-{os.getpid()}-{secrets.token_hex(3)}"


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Seconds until the condition held; AssertionError after the deadline."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > timeout_s:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.01)
    return time.monotonic() - start


class Pipeline:
    """The four stages. `options[stage]` are its extra arguments; the venue and symbols belong to connect's."""

    def __init__(self, options: dict[str, list[str]], *, named: bool = False, logs: Path) -> None:
        self.instance = unique_instance("named" if named else "pipe")
        self.options = options
        self.named = named
        self.logs = logs
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for stage in STAGES:
            self.start(stage)

    def command(self, stage: str) -> list[str]:
        command = [str(BIN / f"lob-{stage}"), *self.options.get(stage, []), "--instance", self.instance]
        if self.named:
            ring = {"connect": "raw", "parse": "events", "book": "book"}
            if stage in ring:
                command += ["--out", f"/lob.{self.instance}.{ring[stage]}"]
            if stage != "connect":
                before = STAGES[STAGES.index(stage) - 1]
                command += ["--in", f"/lob.{self.instance}.{ring[before]}"]
        return command

    def start(self, stage: str) -> None:
        """Start a stage, joined to the one before by a pipe unless the rings are named."""
        piped = not self.named
        before = STAGES[STAGES.index(stage) - 1] if stage != "connect" else None
        stdin = self.processes[before].stdout if piped and before else subprocess.DEVNULL
        last = stage == STAGES[-1]
        with (self.logs / f"{stage}.err").open("ab") as stderr, (self.logs / "publish.out").open("ab") as stdout:
            self.processes[stage] = subprocess.Popen(
                self.command(stage),
                stdin=stdin,
                stdout=stdout if last else subprocess.PIPE if piped else subprocess.DEVNULL,
                stderr=stderr,
            )
        if piped and before:
            assert self.processes[before].stdout is not None
            self.processes[before].stdout.close()

    def signal(self, stage: str, number: int) -> None:
        self.processes[stage].send_signal(number)

    def stderr(self, stage: str) -> str:
        return (self.logs / f"{stage}.err").read_text()

    @property
    def stdout(self) -> Path:
        return self.logs / "publish.out"

    def wait(self, timeout_s: float = 60.0) -> dict[str, int]:
        """Exit codes when all have ended by themselves."""
        deadline = time.monotonic() + timeout_s
        return {stage: p.wait(max(0.1, deadline - time.monotonic())) for stage, p in self.processes.items()}

    def stop(self) -> None:
        """End all, whatever state they are in, and remove their rings."""
        for process in self.processes.values():
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                    process.terminate()
        for process in self.processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name in [*list_rings(self.instance), *list_traces(self.instance)]:
            unlink(name)


@contextlib.contextmanager
def pipeline(options: dict[str, list[str]], logs: Path, *, named: bool = False) -> Iterator[Pipeline]:
    """A running pipeline, ended and cleaned up at the end also when the test fails."""
    running = Pipeline(options, named=named, logs=logs)
    try:
        yield running
    finally:
        running.stop()


def replay(
    venue: str,
    files: list[Path],
    logs: Path,
    *,
    to: str = "ndjson:-",
    book: list[str] | None = None,
    timeout_s: float = 100.0,
) -> Pipeline:
    """Replay recordings through all four at full speed; asserts that all end with 0."""
    options = {
        "connect": [venue, "--replay", *map(str, files), "--speed", "max"],
        "book": ["--summary", str(logs / "summary.json"), *(book or [])],
        "publish": ["--to", to],
    }
    with pipeline(options, logs) as running:
        codes = running.wait(timeout_s)
        errors = {stage: running.stderr(stage) for stage in STAGES}
        assert set(codes.values()) == {0}, (codes, errors)
    return running
