"""--huge, --mlock and --numa of the real stages: what the kernel says of each process's rings."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from exchange.running import Running, running
from lob.memory import nodes_with_memory
from pipeline import BIN, STAGES, Pipeline, pipeline, unique_instance, wait_for

WISHES = ["--huge", "--mlock", *(["--numa", "0"] if nodes_with_memory() else [])]
HUGE_KB = 2048
UNLIMITED = os.getuid() == 0 or resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] >= 64 << 20


MAPS = {
    "connect": {"raw"},
    "parse": {"raw", "events"},
    "book": {"events", "book", "board"},
    "publish": {"book", "public"},
}


def options(venue: Running, wishes: list[str]) -> dict[str, list[str]]:
    small = ["--ring-bytes", "4M", *wishes]
    return {
        "connect": ["binance", "BTCUSDT", "--url", venue.ws, "--rest-url", venue.rest, *small],
        "parse": small,
        "book": ["--board-slots", "64", *small],
        "publish": ["--to", "shm:", *small],
    }


def venue() -> AbstractContextManager[Running]:
    return running("--rate", "200", "--symbols", "BTCUSDT")


def areas(pid: int, instance: str) -> dict[str, dict[str, str]]:
    """What of our rings a process has mapped: WHAT -> fields of smaps of its first mapping."""
    found: dict[str, dict[str, str]] = {}
    fields: dict[str, str] = {}
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-", line):
            fields = {}
            if (match := re.search(rf"lob\.{instance}\.([a-z]+)", line)) and "trace-" not in line:
                fields = found.setdefault(match[1], {})
        else:
            key, _, value = line.partition(":")
            fields.setdefault(key, value.strip())
    return found


def at_work(stages: Pipeline) -> bool:
    """Every stage has its rings, and the last one has read its way through them."""
    seen = {stage: set(areas(stages.processes[stage].pid, stages.instance)) for stage in STAGES}
    return seen == MAPS and all(ring["records"] for ring in rings(stages) if ring["kind"] != "board")


def rings(stages: Pipeline) -> list[dict[str, Any]]:
    command = [BIN / "lob-trace", "rings", "--instance", stages.instance, "--apart", "0.01", "--json"]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("named", [False, True])
def test_every_stage_has_its_rings_as_asked_on_both_sides(tmp_path: Path, named: bool) -> None:
    with venue() as exchange, pipeline(options(exchange, WISHES), tmp_path, named=named) as stages:
        wait_for(lambda: at_work(stages), 30, "records in all rings")
        said = "".join(stages.stderr(stage) for stage in STAGES)
        seen = {stage: areas(stages.processes[stage].pid, stages.instance) for stage in STAGES}
        for stage, found in seen.items():
            for what, fields in found.items():
                size_kb = int(fields["Size"].split()[0])
                if "--huge:" not in said:
                    assert int(fields["ShmemPmdMapped"].split()[0]) == size_kb and size_kb % HUGE_KB == 0, (stage, what)
                if UNLIMITED:
                    assert "lo" in fields["VmFlags"].split(), (stage, what)
        assert not UNLIMITED or "--mlock:" not in said
        assert "--numa:" not in said
        for ring in rings(stages):
            assert set(ring["memory"]) == {
                "huge_bytes", "locked_bytes", *(["node_bytes"] if nodes_with_memory() else [])
            }  # fmt: skip


def test_without_the_options_nothing_is_asked_of_the_kernel(tmp_path: Path) -> None:
    with venue() as exchange, pipeline(options(exchange, []), tmp_path) as stages:
        wait_for(lambda: at_work(stages), 30, "records in all rings")
        for stage in STAGES:
            for fields in areas(stages.processes[stage].pid, stages.instance).values():
                assert not {"lo", "hg"} & set(fields["VmFlags"].split())
        assert all("memory" not in ring for ring in rings(stages))


def test_a_node_that_is_not_there_is_exit_2_and_no_ring(tmp_path: Path) -> None:
    if nodes_with_memory() is None:
        pytest.skip("this kernel knows no NUMA nodes")
    instance = unique_instance()
    run = subprocess.run(
        [BIN / "lob-connect", "binance", "BTCUSDT", "--instance", instance, "--numa", "1023"],
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert run.returncode == 2 and run.stdout == ""
    assert re.fullmatch(
        r"lob-connect: Invalid value for '--numa': this host has no NUMA node 1023 with memory, only [\d, ]+ "
        r"\(see lob-connect --help\)\n",
        run.stderr,
    )
    assert not list(Path("/dev/shm").glob(f"lob.{instance}.*"))
