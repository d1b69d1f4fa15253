"""In the steady state nothing is allocated: counted over 100,000 messages, from the second pass of a recording on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RECORDING = HERE.parent / "recordings" / "kraken-seed7.jsonl.gz"
MESSAGES = 100_000


@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="a sanitizer counts the allocations already")
def test_parse_book_publish_and_rings_allocate_nothing_after_the_first_pass(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not RECORDING.exists():
        pytest.skip("no C compiler, or no recordings")
    counter = tmp_path / "malloc_counter.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", HERE / "malloc_counter.c", "-o", counter], check=True)
    run = subprocess.run(
        [sys.executable, HERE / "malloc_program.py", "kraken", RECORDING, str(MESSAGES), counter],
        env={**os.environ, "LD_PRELOAD": str(counter), "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stderr
    counted = json.loads(run.stdout)
    print(counted)
    assert counted["messages"] >= MESSAGES and counted["records"] > MESSAGES, "the books were at work"
    assert counted["lines"] == 2 * [counted["records"]], "and their lines were written"
    assert counted["warm_up"] > 0, "the counter counts"
    assert counted["steady"] == 0 and counted["idle"] == 0
