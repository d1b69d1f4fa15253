"""The life of stages that are joined as a user joins them: by pipes, or by named rings."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lob.names import SHM, ring_name
from lob.rings import InputRing, OutputRing
from lob.roles import WRITER_ROLE, role_held
from lob.segments import Kind, RingState, open_segment
from processes.peer import eventually, own_instance, record

HERE = Path(__file__).parent
DEADLINE_S = 20.0


class Stages:
    """Starts stage programs of one instance; ends what is left of them."""

    def __init__(self, instance: str, folder: Path) -> None:
        self.instance = instance
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []
        self.stderrs: dict[int, Path] = {}

    def start(
        self, role: str, *options: str, env: dict[str, str] | None = None, **popen: Any
    ) -> subprocess.Popen[bytes]:
        log = self.folder / f"{role}-{len(self.started)}.err"
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent), **(env or {})}
        environment.pop("NOTIFY_SOCKET", None) if env is None else None
        popen.setdefault("stdin", subprocess.DEVNULL)
        popen.setdefault("stdout", subprocess.PIPE)
        command = [sys.executable, str(HERE / "stage_program.py"), role, "--instance", self.instance, *options]
        with log.open("wb") as stderr:
            process = subprocess.Popen(command, stderr=stderr, env=environment, **popen)
        self.started.append(process)
        self.stderrs[process.pid] = log
        return process

    def pipeline(self, *commands: list[str]) -> list[subprocess.Popen[bytes]]:
        """As a shell joins them; the last one's stdout is ours."""
        processes: list[subprocess.Popen[bytes]] = []
        for command in commands:
            stdin = processes[-1].stdout if processes else subprocess.DEVNULL
            processes.append(self.start(*command, stdin=stdin))
            if processes[:-1]:
                assert processes[-2].stdout is not None
                processes[-2].stdout.close()
        return processes

    def stderr(self, process: subprocess.Popen[bytes]) -> str:
        return self.stderrs[process.pid].read_text()

    def ends(self, process: subprocess.Popen[bytes]) -> int:
        return process.wait(DEADLINE_S)

    def ring(self, what: str) -> str:
        return ring_name(self.instance, what)

    def left(self) -> set[str]:
        return {path.name for path in SHM.glob(f"*lob.{self.instance}*")}

    def end(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait(DEADLINE_S)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


@pytest.fixture
def stages(tmp_path: Path) -> Iterator[Stages]:
    with own_instance() as instance, ExitStack() as stack:
        all_of_them = Stages(instance, tmp_path)
        stack.callback(all_of_them.end)
        yield all_of_them


def numbers(process: subprocess.Popen[bytes]) -> list[int]:
    assert process.stdout is not None
    return [int(line) for line in process.stdout.read().split()]


def first_number(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


# -- pipes --------------------------------------------------------------------------------------------------------


def test_a_closed_ring_is_drained_through_all_stages_and_nothing_stays_behind(stages: Stages) -> None:
    source, relay, sink = stages.pipeline(["source", "--count", "3000"], ["relay"], ["sink"])
    assert numbers(sink) == list(range(3000))
    assert [stages.ends(p) for p in (source, relay, sink)] == [0, 0, 0]
    assert stages.stderr(source) == "source: 3000 written\n"
    assert stages.stderr(relay) == "relay: 3000 passed\n"
    assert stages.stderr(sink) == "sink: 3000 read, closed\n"
    assert stages.left() == set()


def test_the_line_on_stdout_describes_the_ring_and_nothing_follows_it(stages: Stages) -> None:
    source = stages.start("source", "--count", "1", "--patience", "0.2")
    assert source.stdout is not None
    line, *rest = source.stdout.read().splitlines()
    assert json.loads(line) == {
        "lob": 1, "ring": stages.ring("raw"), "kind": "spsc", "venue": "test", "policy": "wait", "pid": source.pid
    }  # fmt: skip
    assert rest == [] and stages.ends(source) == 0


def test_eof_before_a_line_is_exit_1(stages: Stages) -> None:
    relay = stages.start("relay")
    assert stages.ends(relay) == 1
    assert stages.stderr(relay) == "relay: upstream ended before it announced a ring\n"
    assert stages.left() == set()


@pytest.mark.parametrize(
    "line", [b"hello\n", b'{"a":1}\n', b"x" * 70000, b'{"lob":1,"ring":"/etc"}\n', b"\xff\n", b"[]"]
)
def test_a_line_that_is_none_of_ours_is_exit_2(stages: Stages, line: bytes) -> None:
    relay = stages.start("relay", stdin=subprocess.PIPE)
    relay.communicate(line, DEADLINE_S)
    assert relay.returncode == 2
    assert stages.stderr(relay).startswith("relay: stdin: ") and stages.stderr(relay).count("\n") == 1


def test_a_terminal_on_stdin_is_exit_2(stages: Stages) -> None:
    ours, theirs = pty.openpty()
    relay = stages.start("relay", stdin=theirs)
    os.close(theirs)
    assert stages.ends(relay) == 2
    os.close(ours)
    assert "stdin is a terminal" in stages.stderr(relay)


def test_a_closed_stdin_is_exit_2(stages: Stages) -> None:
    relay = stages.start("relay", preexec_fn=lambda: os.close(0))
    assert stages.ends(relay) == 2
    assert stages.stderr(relay).count("\n") == 1


def test_a_killed_producer_is_drained_said_and_exit_1(stages: Stages) -> None:
    source, relay, sink = stages.pipeline(["source"], ["relay"], ["sink"])
    first_number(sink)
    relay.send_signal(signal.SIGSTOP)  # so that something is left to drain
    time.sleep(0.1)
    source.kill()
    source.wait()
    committed = open_segment(stages.ring("raw"), writable=False).facts()["records"]
    relay.send_signal(signal.SIGCONT)
    rest = numbers(sink)
    assert rest == list(range(1, committed))
    assert [stages.ends(relay), stages.ends(sink)] == [1, 1]
    sentence = f"relay: {stages.ring('raw')}: the stage before ended without closing its ring; what it left was read\n"
    assert stages.stderr(relay) == sentence + f"relay: {committed} passed\n"
    assert not any("book" in name for name in stages.left())


def test_a_producer_that_fails_leaves_no_ring_and_its_readers_say_so(stages: Stages) -> None:
    source, sink = stages.pipeline(["source", "--fail-after", "10"], ["sink"])
    assert stages.ends(source) == 1
    assert stages.stderr(source) == "source: failed as it was told\n"
    assert stages.ends(sink) == 1
    assert stages.left() <= {stages.ring("raw")[1:] + ".lock"}


def test_a_reader_that_goes_away_ends_the_stages_before_it_with_0(stages: Stages) -> None:
    source, relay, sink = stages.pipeline(["source"], ["relay"], ["sink"])
    first_number(sink)
    sink.kill()
    assert [stages.ends(relay), stages.ends(source)] == [0, 0]
    assert stages.left() == set()


def test_a_reader_that_is_gone_before_upstream_spoke_ends_a_stage_with_0(stages: Stages) -> None:
    relay = stages.start("relay", stdin=subprocess.PIPE)
    time.sleep(0.1)
    assert relay.stdout is not None
    relay.stdout.close()
    assert stages.ends(relay) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_source_and_the_others_drain(stages: Stages, number: signal.Signals) -> None:
    source, relay, sink = stages.pipeline(["source"], ["relay"], ["sink"])
    first_number(sink)
    source.send_signal(number)
    rest = numbers(sink)
    assert [stages.ends(p) for p in (source, relay, sink)] == [0, 0, 0]
    assert stages.stderr(source) == f"source: {len(rest) + 1} written\n"
    assert rest == list(range(1, len(rest) + 1))
    assert stages.left() == set()


def test_a_signal_to_all_stages_ends_all_with_0(stages: Stages) -> None:
    processes = stages.pipeline(["source"], ["relay"], ["sink"])
    first_number(processes[-1])
    for process in processes:
        process.send_signal(signal.SIGINT)
    assert [stages.ends(p) for p in processes] == [0, 0, 0]
    assert stages.left() == set()


def test_a_second_signal_leaves_at_once_and_takes_the_ring_along(stages: Stages) -> None:
    source, sink = stages.pipeline(["source"], ["sink"])
    first_number(sink)
    sink.send_signal(signal.SIGSTOP)
    time.sleep(0.05)
    source.send_signal(signal.SIGTERM)
    eventually(lambda: open_segment(stages.ring("raw"), writable=False).facts()["state"] == RingState.CLOSED, "closed")
    assert source.poll() is None  # waits for its reader
    source.send_signal(signal.SIGTERM)
    assert source.wait(2) == 128 + signal.SIGTERM
    assert stages.left() == set()


def test_a_reader_that_makes_no_progress_is_given_up(stages: Stages) -> None:
    source, sink = stages.pipeline(["source", "--patience", "0.3"], ["sink"])
    first_number(sink)
    sink.send_signal(signal.SIGSTOP)
    time.sleep(0.05)
    source.send_signal(signal.SIGTERM)
    assert stages.ends(source) == 0 and stages.left() == set()


def test_who_reads_the_pipe_himself_is_told_how_to_have_text(stages: Stages) -> None:
    source = stages.start("source", "--attach", "0.2", "--patience", "0.2")
    eventually(lambda: bool(stages.stderr(source)), "the hint")
    assert stages.stderr(source) == (
        f"source: nobody reads {stages.ring('raw')}, as the next stage would; "
        "for records as text on stdout give --print\n"
    )
    source.send_signal(signal.SIGTERM)
    assert stages.ends(source) == 0 and stages.left() == set()


def test_stages_that_are_joined_are_told_nothing(stages: Stages) -> None:
    source, sink = stages.pipeline(["source", "--attach", "0.5"], ["sink"])
    first_number(sink)
    time.sleep(1.2)
    assert stages.stderr(source) == ""
    source.send_signal(signal.SIGTERM)
    numbers(sink)
    assert [stages.ends(source), stages.ends(sink)] == [0, 0]


def test_for_so_long_and_no_longer(stages: Stages) -> None:
    started = time.monotonic()
    source, sink = stages.pipeline(["source", "--for", "400ms"], ["sink"])
    assert len(numbers(sink)) > 10
    assert [stages.ends(source), stages.ends(sink)] == [0, 0]
    assert 0.4 < time.monotonic() - started < 15


# -- named rings --------------------------------------------------------------------------------------------------


def test_a_named_ring_outlives_its_writer_and_the_reader_waits_for_the_next(stages: Stages) -> None:
    raw = stages.ring("raw")
    sink = stages.start("sink", "--in", raw)  # waits for the ring, too
    for round_ in range(3):
        source = stages.start("source", "--out", raw, "--count", "50")
        assert stages.ends(source) == 0
        segment = open_segment(raw, writable=False).facts()
        assert segment["state"] == RingState.PAUSED and segment["records"] == 50 * (round_ + 1)
        assert sink.poll() is None
    source = stages.start("source", "--out", raw)
    assert [first_number(sink) for _ in range(151)] == [*range(50)] * 3 + [0]
    source.kill()  # a crash neither
    source.wait()
    assert stages.left() == {raw[1:], raw[1:] + ".lock"} and sink.poll() is None
    sink.send_signal(signal.SIGTERM)
    assert stages.ends(sink) == 0 and stages.left() == {raw[1:], raw[1:] + ".lock"}


def test_a_named_reader_goes_on_where_it_was_killed(stages: Stages) -> None:
    raw = stages.ring("raw")
    stages.start("source", "--out", raw)
    first = stages.start("sink", "--in", raw)
    assert [first_number(first) for _ in range(20)] == list(range(20))
    first.kill()
    first.wait()
    last = (19, *numbers(first))[-1]
    second = stages.start("sink", "--in", raw)
    seen = first_number(second)
    assert seen <= last + 2  # but for the one it had in hand nothing was lost; what was not released is read again
    assert [first_number(second) for _ in range(50)] == list(range(seen + 1, seen + 51))


def test_with_names_stdin_is_not_read_and_stdout_not_written(stages: Stages) -> None:
    source = stages.start("source", "--out", stages.ring("raw"), "--count", "10")
    relay = stages.start(
        "relay", "--in", stages.ring("raw"), "--out", stages.ring("book"), "--for", "500ms", stdin=subprocess.PIPE
    )
    assert relay.stdin is not None
    relay.stdin.write(b"not ours\n")
    relay.stdin.close()
    for process in (source, relay):
        assert process.stdout is not None and process.stdout.read() == b""
        assert stages.ends(process) == 0
    assert stages.stderr(relay) == "relay: 10 passed\n"


def test_a_missing_named_ring_is_waited_for_and_then_named(stages: Stages) -> None:
    sink = stages.start("sink", "--in", stages.ring("raw"), "--ring-timeout", "300ms")
    assert stages.ends(sink) == 1
    assert stages.stderr(sink) == f"sink: no ring named {stages.ring('raw')}; is the stage that makes it running?\n"
    assert stages.left() == set()


def test_a_live_owner_is_exit_3_with_its_pid(stages: Stages) -> None:
    raw = stages.ring("raw")
    first = stages.start("source", "--out", raw)
    eventually(lambda: (SHM / raw[1:]).exists(), "the ring is there")
    second = stages.start("source", "--out", raw)
    assert stages.ends(second) == 3
    assert f"{raw} has a live owner (pid {first.pid})" in stages.stderr(second)


def test_a_ring_of_another_layout_is_exit_3(stages: Stages) -> None:
    raw = stages.ring("raw")
    (SHM / raw[1:]).write_bytes(b"\0" * 8192)
    for command in (["sink", "--in", raw], ["source", "--out", raw]):
        process = stages.start(*command)
        assert stages.ends(process) == 3
        assert "is no ring of ours" in stages.stderr(process) and stages.stderr(process).count("\n") == 1


def test_a_takeover_keeps_the_size_and_says_so(stages: Stages) -> None:
    raw = stages.ring("raw")
    assert stages.ends(stages.start("source", "--out", raw, "--count", "1", "--ring-bytes", "64K")) == 0
    source = stages.start("source", "--out", raw, "--count", "1", "--ring-bytes", "1M")
    assert stages.ends(source) == 0
    assert "keeps the 65536 bytes it was made with, not 1048576" in stages.stderr(source)


@pytest.mark.parametrize("also_lock", [False, True])
def test_a_named_ring_removed_and_made_anew_is_found_again(stages: Stages, also_lock: bool) -> None:
    raw = stages.ring("raw")
    first = stages.start("source", "--out", raw)
    sink = stages.start("sink", "--in", raw)
    first_number(sink)
    first.kill()
    first.wait()
    (SHM / raw[1:]).unlink()
    if also_lock:
        (SHM / (raw[1:] + ".lock")).unlink()
    second = stages.start("source", "--out", raw, "--count", "5")
    assert stages.ends(second) == 0, stages.stderr(second)
    eventually(lambda: "was made anew" in stages.stderr(sink), "the reader went over")
    sink.send_signal(signal.SIGTERM)
    assert numbers(sink)[-5:] == [0, 1, 2, 3, 4] and stages.ends(sink) == 0


def test_under_wait_a_named_writer_waits_for_the_reader_that_comes_back(stages: Stages) -> None:
    raw, book = stages.ring("raw"), stages.ring("book")
    stages.start("source", "--out", raw, "--count", "30000")
    stages.start("relay", "--in", raw, "--out", book)
    first = stages.start("sink", "--in", book)
    for _ in range(10):
        first_number(first)
    time.sleep(0.2)  # it stands still now: nobody reads what it prints
    first.kill()
    first.wait()
    ring = eventually(lambda: _full(book), "the ring is full and its writer waits")
    assert ring["records"] < 30000
    second = stages.start("sink", "--in", book)
    start = first_number(second)
    assert [first_number(second) for _ in range(29999 - start)] == list(range(start + 1, 30000))


def _full(name: str) -> dict[str, Any] | None:
    facts = open_segment(name, writable=False).facts()
    return facts if facts["full_waits"] else None


# -- print --------------------------------------------------------------------------------------------------------


def test_print_mode_writes_ndjson_and_leaves_no_ring(stages: Stages, tmp_path: Path) -> None:
    asked = stages.start("source", "--count", "700", "--print")
    assert asked.stdout is not None
    with (tmp_path / "out").open("wb") as file:
        into_a_file = stages.start("source", "--count", "700", stdout=file)
    piped = asked.stdout.read()
    assert stages.ends(into_a_file) == 0
    for text in (piped, (tmp_path / "out").read_bytes()):
        lines = text.splitlines()
        assert len(lines) == 700 and all(isinstance(json.loads(line), dict) for line in lines)
    assert stages.ends(asked) == 0 and stages.left() == set()


def test_print_mode_into_a_pipe_whose_reader_leaves_is_exit_0(stages: Stages) -> None:
    source = stages.start("source", "--print")
    assert source.stdout is not None
    source.stdout.readline()
    source.stdout.close()
    assert stages.ends(source) == 0
    assert "Traceback" not in stages.stderr(source) and stages.left() == set()


# -- the supervisor -----------------------------------------------------------------------------------------------


def test_the_supervisor_hears_ready_after_the_ring_exists_then_life_signs_and_the_end(
    stages: Stages, tmp_path: Path
) -> None:
    raw = stages.ring("raw")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        address = str(tmp_path / "notify")
        supervisor.bind(address)
        supervisor.settimeout(DEADLINE_S)
        source = stages.start("source", "--out", raw, env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"})
        assert supervisor.recv(4096) == f"READY=1\nSTATUS={raw} open".encode()
        assert role_held(raw, WRITER_ROLE)
        heard = [supervisor.recv(4096) for _ in range(12)]
        statuses = [text for text in heard if text != b"WATCHDOG=1"]
        assert 1 <= len(statuses) < 6
        for status in statuses:  # a line break in it is no command
            assert status.startswith(b"STATUS=") and status.endswith(b" records WATCHDOG=1")
        source.send_signal(signal.SIGTERM)
        assert stages.ends(source) == 0
        supervisor.setblocking(False)
        last = b""
        while True:
            try:
                last = supervisor.recv(4096)
            except BlockingIOError:
                break
        assert last == b"STOPPING=1"


def test_a_supervisor_that_does_not_listen_stops_nobody(stages: Stages, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    source = stages.start("source", "--out", stages.ring("raw"), "--count", "5", env={"NOTIFY_SOCKET": address})
    assert stages.ends(source) == 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(address)  # and never reads: its queue is full soon
        env = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"}
        source = stages.start("source", "--out", stages.ring("raw"), "--for", "1s", env=env)
        assert stages.ends(source) == 0
        supervisor.setblocking(False)
        assert supervisor.recv(4096).startswith(b"READY=1") and supervisor.recv(4096) == b"WATCHDOG=1"


def test_under_a_supervisor_a_missing_ring_is_waited_for_without_end(stages: Stages, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        sink = stages.start("sink", "--in", stages.ring("raw"), env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        supervisor.settimeout(DEADLINE_S)
        assert supervisor.recv(4096) == f"STATUS=waiting for {stages.ring('raw')}".encode()
        assert sink.poll() is None
        ring = OutputRing(stages.ring("raw"), Kind.SPSC, capacity_bytes=4096)
        ring.writer.write(record(b"7"))
        assert first_number(sink) == 7
        ring.close(RingState.CLOSED, remove=True)
        assert stages.ends(sink) == 0


def test_the_wait_for_a_ring_ends_at_a_signal(stages: Stages) -> None:
    sink = stages.start("sink", "--in", stages.ring("raw"))
    relay = stages.start("relay", stdin=subprocess.PIPE)
    for process in (sink, relay):
        eventually(partial(_catches_sigterm, process), "its signal handlers are there")
        process.send_signal(signal.SIGTERM)
        assert stages.ends(process) == 0
        assert stages.stderr(process).endswith("stopped before there was a ring to read\n")


def _catches_sigterm(process: subprocess.Popen[bytes]) -> bool:
    status = Path(f"/proc/{process.pid}/status").read_text()
    (caught,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def test_input_ring_of_a_test_is_left_alone_by_stages_of_another_instance(stages: Stages) -> None:
    raw = stages.ring("raw")
    ring = OutputRing(raw, Kind.SPSC, capacity_bytes=4096)
    reader = InputRing(raw, "test")
    with own_instance() as other:
        elsewhere = stages.start("source", "--count", "1", "--patience", "0.1", "--instance", other)
        assert stages.ends(elsewhere) == 0
    assert reader.writer_alive
    ring.close(RingState.CLOSED, remove=True)
