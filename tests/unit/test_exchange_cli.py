"""`python -m exchange` as a process."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
import subprocess
import sys
import urllib.request

import pytest
from websockets.asyncio.client import connect as asyncio_connect

from exchange.running import running, search_path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_json_line_then_nothing_and_a_signal_ends_it_with_0(number):
    with running("--seed", "3", "--symbols", "BTCUSDT", "--levels", "50") as venue:
        assert venue.pid == venue.process.pid and venue.ws == f"ws://127.0.0.1:{venue.port}"
        assert venue.kraken_ws == f"ws://127.0.0.1:{venue.port}/kraken/v2"
        assert venue.get("truth/stats")["seed"] == 3
        os.kill(venue.pid, number)
        assert venue.process.wait(5) == 0
        assert venue.process.stdout.read() == ""


def test_it_ends_by_itself_after_the_given_time():
    with running("--for", "0.2", "--levels", "50") as venue:
        assert venue.process.wait(5) == 0


@pytest.mark.parametrize(
    "options", ["--symbols BTCXYZ", "--symbols BTCUSDT,BTCUSDC", "--rate -1", "--tls x", "--levels 5"]
)
def test_wrong_options_exit_2(options):
    done = subprocess.run(
        [sys.executable, "-m", "exchange", *options.split()],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
        env=os.environ | {"PYTHONPATH": search_path()},
    )
    assert done.returncode == 2 and done.stdout == "" and done.stderr


def test_taken_port_exits_1():
    with (
        running("--levels", "50") as venue,
        pytest.raises(RuntimeError, match="status 1"),
        running("--levels", "50", "--port", str(venue.port)),
    ):
        pass


def test_one_seed_gives_one_book_at_one_id():
    books = []
    for _ in range(2):
        with running("--seed", "5", "--levels", "50", "--rate", "0") as venue:
            venue.get("control/step", n=500)
            books.append(venue.get("truth/book", symbol="BTCUSDT"))
    assert books[0] == books[1]


def test_nothing_but_loopback_is_bound_by_default():
    with running("--levels", "50") as venue:
        assert venue.rest.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(venue.rest + "/api/v3/ping", timeout=5) as answer:
            assert answer.read() == b"{}"


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed: no certificate to serve")
def test_tls_serves_https_and_wss(tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}".split(),
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(cafile=str(cert))
    with running("--levels", "50", "--rate", "1000", "--tls", f"{cert},{key}") as venue:
        with urllib.request.urlopen(venue.rest + "/api/v3/ping", timeout=5, context=context) as answer:
            assert answer.read() == b"{}"

        async def first_message() -> str:
            # Not the threaded client: its two threads on one TLS socket now and then wait for each other for ever.
            async with asyncio_connect(venue.ws + "/ws/btcusdt@depth@0ms", ssl=context) as client:
                return str(await asyncio.wait_for(client.recv(), 10))

        assert '"e":"depthUpdate"' in asyncio.run(first_message())
