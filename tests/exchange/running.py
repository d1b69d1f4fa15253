"""Start the simulated venue as a process of its own, for tests: `with running("--seed", "3") as venue: ...`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STOP_S = 5.0


class Running:
    """A venue that listens. `ready` is the line it printed; its keys are also attributes: `venue.ws`, `venue.rest`."""

    def __init__(self, process: subprocess.Popen[str], ready: dict[str, Any]) -> None:
        self.process, self.ready = process, ready

    def __getattr__(self, name: str) -> Any:
        try:
            return self.ready[name]
        except KeyError as cause:
            raise AttributeError(name) from cause

    def get(self, path: str, **query: object) -> Any:
        """GET a path of the venue: `get("control/drop", n=1)`, `get("truth/last", symbol="BTC/USD")`."""
        return get(self.rest, path, **query)


def get(rest: str, path: str, **query: object) -> Any:
    """The JSON of a GET. Raises urllib.error.HTTPError for an error status."""
    plain = {k: v if isinstance(v, str | int | float) else json.dumps(v) for k, v in query.items()}
    text = urllib.parse.urlencode(plain)
    with urllib.request.urlopen(f"{rest}/{path.lstrip('/')}?{text}", timeout=10) as response:
        return json.load(response)


def search_path() -> str:
    """PYTHONPATH with this package's folder in front."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))


@contextmanager
def running(*options: str) -> Iterator[Running]:
    """Run `python -m exchange` with these options until the block ends; it is stopped by its pid also on failure."""
    process = subprocess.Popen(
        [sys.executable, "-m", "exchange", *options],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": search_path()},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the venue ended with status {process.wait(STOP_S)} before it listened")
        yield Running(process, json.loads(line))
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()
