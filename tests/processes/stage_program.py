"""Stages with nothing in them but `lob.stage`: a source of numbered records, a relay, a sink.

python stage_program.py source --count 100 | python stage_program.py relay | python stage_program.py sink
"""

from __future__ import annotations

import sys
import time
from typing import Any

import click

import lob.stage
from lob import _native
from lob.options import common, common_options, run_cli
from lob.rings import InputRing, OutputRing
from lob.segments import Kind
from lob.stage import Stage
from processes.peer import record

CAPACITY = 1 << 16


def put(stage: Stage, ring: OutputRing, data: bytes) -> bool:
    """Write, waiting for room while the stage runs."""
    while not ring.writer.write(data):
        ring.writer.wait_free(len(data), "block", 20)
        if not stage.running():
            return False
    return True


def read(stage: Stage, ring: InputRing) -> bytes | None:
    data = ring.reader.read()
    if data is None:
        ring.reader.wait("block", 20)
    return data


@click.group()
def cli() -> None:
    pass


@cli.command()
@common_options(reads=False)
@click.option("--count", type=int, default=None)
@click.option("--policy", default="wait")
@click.option("--patience", type=float, default=10.0)
@click.option("--attach", type=float, default=5.0)
@click.option("--fail-after", type=int, default=None)
def source(
    count: int | None, policy: Any, patience: float, attach: float, fail_after: int | None, **options: Any
) -> int:
    lob.stage.DRAIN_PATIENCE_S, lob.stage.ATTACH_S = patience, attach
    stage = Stage("source", common(options))
    ring = stage.open_output(
        "raw", Kind.SPSC, venue="test", policy=policy, capacity_bytes=CAPACITY, manifest={"venue": "test"}
    )
    stage.status_with(lambda: f"{written} records\nWATCHDOG=1")
    written = 0
    while stage.running():
        if written == count:
            break
        if written == fail_after:
            raise _native.CorruptRing("failed as it was told")
        if count is None:
            time.sleep(0.0005)
        written += put(stage, ring, record(b"%d" % written, origin_ns=_native.mono_ns()))
    return stage.finish(f"{written} written")


@cli.command()
@common_options()
def relay(**options: Any) -> int:
    stage = Stage("relay", common(options))
    upstream = stage.open_input("relay")
    ring = stage.open_output(
        "book", Kind.BROADCAST, venue="test", policy=upstream.policy, capacity_bytes=CAPACITY, manifest={}
    )
    passed = 0
    while stage.running():
        while (data := read(stage, upstream)) is not None and put(stage, ring, data):
            passed += 1
            if passed % 64 == 0:
                break
    return stage.finish(f"{passed} passed")


@cli.command()
@common_options(writes=False)
def sink(**options: Any) -> int:
    stage = Stage("sink", common(options), writes=False)
    upstream = stage.open_input("sink")
    texts: list[bytes] = []
    while stage.running():
        for _ in range(64):
            data = read(stage, upstream)
            if data is None:
                break
            texts.append(data[88:].rstrip(b"\0"))
            print(texts[-1].decode(), flush=True)
    return stage.finish(f"{len(texts)} read, {'closed' if stage.input_ended else 'stopped'}")


if __name__ == "__main__":
    run_cli(sys.argv[1] if len(sys.argv) > 1 else "stage_program", cli)
