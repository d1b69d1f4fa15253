"""The words to systemd."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lob.supervisor import Supervisor


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    address = str(tmp_path / "notify") if request.param == "path" else f"@lob-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address.replace("@", "\0"))
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield listener


def heard(manager: socket.socket) -> list[str]:
    manager.setblocking(False)
    texts = []
    while True:
        try:
            texts.append(manager.recv(4096).decode())
        except BlockingIOError:
            return texts


def test_it_says_what_sd_notify_defines(manager: socket.socket) -> None:
    supervisor = Supervisor()
    assert supervisor.present
    supervisor.ready("open")
    supervisor.status("3 books\nMAINPID=1")
    supervisor.alive()  # no watchdog was asked for
    supervisor.stopping()
    assert heard(manager) == ["READY=1\nSTATUS=open", "STATUS=3 books MAINPID=1", "STOPPING=1"]


def test_life_signs_come_twice_in_the_time_out_and_not_at_every_turn(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    clock = iter([0.5, 0.6, 1.49, 1.51, 1.6])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    supervisor = Supervisor()
    for _ in range(5):
        supervisor.alive()
    assert heard(manager) == ["WATCHDOG=1"] * 2


def test_a_watchdog_meant_for_another_process_is_not_ours(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    Supervisor().alive()
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    Supervisor().alive()
    assert heard(manager) == ["WATCHDOG=1"]


def test_a_full_queue_holds_nobody_up(manager: socket.socket) -> None:
    supervisor = Supervisor()
    for _ in range(1000):
        supervisor.status("x" * 1000)
    assert 0 < len(heard(manager)) < 1000


@pytest.mark.parametrize("address", ["", "/nonexistent/notify", "@lob-nobody-listens-here"])
def test_without_a_supervisor_all_of_it_is_silence(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    supervisor = Supervisor()
    assert not supervisor.present
    supervisor.ready("open")
    supervisor.status("x")
    supervisor.alive()
    supervisor.stopping()
