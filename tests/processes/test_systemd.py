"""The unit files under a real systemd: stages are ready, watched, restarted alone, and cleaned up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from exchange.running import running
from lob import _native
from lob.errors import RingError
from lob.names import SHM, list_rings, ring_name
from lob.records import BOARD_ENTRY, BookState
from lob.segments import open_segment
from processes.peer import eventually, own_instance
from processes.systemd_namespace import Manager, manager, missing

REPOSITORY = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent
STAGES = ("connect", "parse", "book", "publish")
SYMBOLS = ("BTCUSDT", "ETHUSDT")
GO_ON_S = 10.0  # a restarted pipeline is live again within

needs_systemd = pytest.mark.skipif(missing() is not None, reason=f"systemd in namespaces {missing()}")


def installed(folder: Path) -> tuple[Path, Path]:
    """(units, settings) as systemd/install leaves them, with the commands of this Python."""
    units, etc = folder / "units", folder / "etc"
    subprocess.run([str(REPOSITORY / "systemd" / "install"), str(BIN), str(etc), str(units)], check=True, timeout=30)
    return units, etc


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_analyze_verify_is_silent_on_the_installed_units(tmp_path: Path) -> None:
    units, _etc = installed(tmp_path)
    files = sorted(map(str, units.iterdir()))
    assert len(files) == 6
    result = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True, timeout=60)
    assert result.stdout + result.stderr == "" and result.returncode == 0


def test_install_names_a_folder_without_commands_and_keeps_existing_settings(tmp_path: Path) -> None:
    install = str(REPOSITORY / "systemd" / "install")
    result = subprocess.run([install, str(tmp_path)], capture_output=True, text=True, timeout=30)
    assert result.returncode == 2 and f"no lob-connect in {tmp_path}" in result.stderr
    _units, etc = installed(tmp_path)
    (etc / "binance.env").write_text("LOB_SYMBOLS=MINE\n")
    installed(tmp_path)
    assert (etc / "binance.env").read_text() == "LOB_SYMBOLS=MINE\n"
    for unit in (tmp_path / "units").iterdir():
        assert "@" not in unit.read_text().replace("@%i", "").replace("@binance", ""), unit


class Services:
    """One pipeline under a manager of its own, on a simulated venue."""

    def __init__(self, inside: Manager, etc: Path, instance: str) -> None:
        self.inside = inside
        self.etc = etc
        self.instance = instance

    def unit(self, stage: str) -> str:
        return f"lob-{stage}@{self.instance}.service"

    def of(self, stage: str, name: str) -> str:
        return self.inside.properties(self.unit(stage), name)[name]

    def updates(self) -> dict[str, int]:
        """Board slot updates of the books that are live now, by symbol."""
        try:
            segment = open_segment(ring_name(self.instance, "board"), writable=False)
        except RingError:
            return {}
        if time.monotonic_ns() - segment.heartbeat_ns > 1_000_000_000:
            return {}
        board = _native.Board(segment)
        live = {}
        for slot in range(board.slots):
            read = board.read(slot)
            if read is None:
                continue
            entry = np.frombuffer(read[0], BOARD_ENTRY, 1)[0]
            if entry["updates"] == 0:
                break
            if entry["state"] == BookState.LIVE and entry["bid_count"] and entry["ask_count"]:
                live[bytes(entry["symbol"]).decode()] = int(entry["updates"])
        return live

    def goes_on(self, deadline_s: float = GO_ON_S) -> None:
        """All books are live, and then change."""
        start = time.monotonic()
        before = eventually(self._all_live, f"all books live\n{self.inside.journal()}", deadline_s)
        left_s = deadline_s - (time.monotonic() - start)
        eventually(lambda: self._changed_since(before), "the live books change", left_s)

    def _changed_since(self, before: dict[str, int]) -> bool:
        now = self._all_live()
        return bool(now) and all(updates > before[symbol] for symbol, updates in now.items())

    def _all_live(self) -> dict[str, int]:
        live = self.updates()
        return live if set(live) == set(SYMBOLS) else {}

    def is_(self, stage: str, **properties: str) -> bool:
        return self.inside.properties(self.unit(stage), *properties) == properties


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("systemd")
    units, etc = installed(folder)
    with own_instance() as instance, running("--port", "0", "--symbols", ",".join(SYMBOLS)) as venue:
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        (etc / f"{instance}.env").write_text(
            f'LOB_VENUE=binance\nLOB_SYMBOLS="{" ".join(SYMBOLS)}"\n'
            f'LOB_CONNECT_OPTIONS="--url {venue.ws} --rest-url {venue.rest}"\n'
            f"LOB_PARSE_CPU={cores.split(',')[-1]}\n"
        )
        try:
            with manager(folder, units) as inside:
                one = Services(inside, etc, instance)
                inside.ctl("start", f"lob@{instance}.target")
                one.goes_on(20)
                yield one
        except OSError as error:
            pytest.skip(str(error))


@needs_systemd
def test_all_stages_are_ready_in_order_and_say_what_they_do(services: Services) -> None:
    entered = []
    for stage in STAGES:
        seen = services.inside.properties(
            services.unit(stage), "ActiveState", "NRestarts", "StatusText", "ActiveEnterTimestampMonotonic"
        )
        assert (seen["ActiveState"], seen["NRestarts"]) == ("active", "0"), services.inside.journal()
        assert seen["StatusText"]
        entered.append(int(seen["ActiveEnterTimestampMonotonic"]))
    assert entered == sorted(entered)
    assert {name.rsplit(".", 1)[1] for name in list_rings(services.instance)} >= {
        "raw",
        "events",
        "book",
        "board",
        "public",
    }


@needs_systemd
def test_the_cores_of_the_settings_are_those_of_the_process(services: Services) -> None:
    last = max(os.sched_getaffinity(0))
    pid = services.of("parse", "MainPID")
    assert services.inside.run("taskset", "-pc", pid).stdout.split(":")[1].strip() == str(last)


@needs_systemd
@pytest.mark.parametrize("stage", ["parse", "book", "connect", "publish"])
def test_a_killed_stage_is_restarted_alone_and_the_books_go_on(services: Services, stage: str) -> None:
    pids = {other: services.of(other, "MainPID") for other in STAGES}
    before = int(services.of(stage, "NRestarts"))
    services.inside.kill(services.unit(stage), signal.SIGKILL)
    restarted = partial(services.is_, stage, ActiveState="active", NRestarts=str(before + 1))
    eventually(restarted, f"{stage} restarted")
    services.goes_on()
    for other in STAGES:
        assert (services.of(other, "MainPID") == pids[other]) is (other != stage)


@needs_systemd
def test_a_stage_that_hangs_is_restarted_by_the_watchdog(services: Services) -> None:
    before = int(services.of("book", "NRestarts"))
    services.inside.kill(services.unit("book"), signal.SIGSTOP)
    restarted = partial(services.is_, "book", ActiveState="active", NRestarts=str(before + 1))
    eventually(restarted, "lob-book restarted")
    assert "Watchdog timeout" in services.inside.journal(services.unit("book"))
    services.goes_on()


@needs_systemd
def test_a_stage_restarted_by_hand_goes_on_with_its_rings(services: Services) -> None:
    name = ring_name(services.instance, "events")
    before = open_segment(name, writable=False).facts()
    services.inside.ctl("restart", services.unit("parse"))
    after = open_segment(name, writable=False).facts()
    assert (after["nonce"], after["epoch"]) == (before["nonce"], before["epoch"] + 1)
    assert after["records"] >= before["records"]
    services.goes_on()


@needs_systemd
def test_stopping_the_target_ends_all_processes_and_removes_the_rings(services: Services) -> None:
    services.inside.ctl("stop", f"lob@{services.instance}.target")
    for stage in (*STAGES, "clean"):  # systemctl waits for the target only
        gone = partial(services.is_, stage, ActiveState="inactive", Result="success")
        eventually(gone, f"{stage} stopped\n{services.inside.journal(services.unit(stage))}", 10)
    assert not [line for line in services.inside.processes() if "lob-" in line and "lob-test" not in line]
    assert list(SHM.glob(f"*lob.{services.instance}*")) == []


@needs_systemd
def test_a_wrong_option_is_not_tried_again(services: Services) -> None:
    wrong = services.unit("connect").replace("@", "@wrong-")
    settings = services.etc / f"wrong-{services.instance}.env"
    settings.write_text("LOB_VENUE=no-such-venue\nLOB_SYMBOLS=X\n")
    assert services.inside.run("systemctl", "start", wrong).returncode != 0
    seen = services.inside.properties(wrong, "ActiveState", "NRestarts", "ExecMainStatus")
    assert seen == {"ActiveState": "failed", "NRestarts": "0", "ExecMainStatus": "2"}
