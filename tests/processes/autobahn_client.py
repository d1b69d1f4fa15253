"""Runs the Autobahn test suite's fuzzing server against lob-connect's sockets, by both transports.

Usage: python tests/processes/autobahn_client.py WSTEST [CASE...]     (as the suite names them, e.g. "6.*"; else all)

WSTEST is the suite's command. It is Python 2.7 and needs an environment of its own: `virtualenv -p python2.7 DIR`, then
`DIR/bin/pip install autobahntestsuite`. The suite wants its messages back. We keep them, so each is taken from the raw
ring and sent from there: what the suite compares is what a reader of the ring would see.

Exit status: 0 every case passed by both transports, 1 some did not (they are listed), 2 wrong call.
"""

from __future__ import annotations

import asyncio
import json
import socket as sockets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from lob import records
from lob_connect._native import FrameReader
from lob_connect.selector import FrameSelector
from lob_connect.socket import Socket, Transport, open_socket

sys.path.insert(0, str(Path(__file__).parents[1]))

from raw_tape import RawTape, Taping

TRANSPORTS = ("native", "websockets")
# The ring does not say whether a message was text; the suite's own numbering does.
BINARY = ("1.2.", "9.2.", "9.4.", "9.6.", "9.8.", "12.2.", "12.3.", "12.5.")
MESSAGE_MAX_BYTES = 16 << 20
RING_BYTES = 8 * MESSAGE_MAX_BYTES
# Of the suite's verdicts those that count as passed. NON-STRICT: right, and another order of events was hoped for.
PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")


class Echo(Taping):
    """A receiver that sends back what it finds on the tape."""

    def __init__(self, tape: RawTape, native: bool, binary: bool) -> None:
        super().__init__(tape, native, MESSAGE_MAX_BYTES)
        self.messages: list[bytes] = []
        self._binary = binary
        self._socket: Socket | None = None

    def opened(self, recv_ns: int, socket: Socket) -> FrameReader | None:
        self._socket = socket
        self.tape.sink.copies = True  # so that we are called for each message
        return super().opened(recv_ns, socket)

    def received(self, recv_ns: int, origin_ns: int, payload: bytes) -> None:
        super().received(recv_ns, origin_ns, payload)
        self._echo()

    def noted(self, recv_ns: int, payload: bytes) -> None:
        self._echo()

    def _echo(self) -> None:
        record = self.tape.reader.read()
        assert record is not None
        payload = records.parse(record).text
        self.messages.append(payload)
        assert self._socket is not None
        protocol = self._socket.protocol
        # At once, and not by `send`: what follows in the same read may fail the connection.
        (protocol.send_binary if self._binary else protocol.send_text)(payload)
        self._socket.send_data()


async def visit(url: str, tape: RawTape, transport: Transport, *, binary: bool = False) -> list[bytes]:
    """Connect, send everything back until the connection ends; the messages."""
    echo = Echo(tape, transport.native, binary)
    socket = await open_socket(
        url,
        echo,
        context=None,
        compression=True,
        max_message_bytes=MESSAGE_MAX_BYTES,
        ping_interval_s=1000,
        transport=transport,
    )
    await socket.wait_closed()
    return echo.messages


def free_port() -> int:
    with sockets.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def fuzzing_server(wstest: str, cases: Sequence[str], folder: Path) -> Iterator[str]:
    """The suite's server, with reports in the folder; its address."""
    url = f"ws://127.0.0.1:{free_port()}"
    spec = {"url": url, "outdir": str(folder), "cases": list(cases), "exclude-cases": [], "exclude-agent-cases": {}}
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [wstest, "-m", "fuzzingserver", "-s", str(folder / "spec.json"), "-u", "0"]
    with (folder / "wstest.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            try:
                wait_until_it_listens(url, process)
            except TimeoutError as error:
                raise RuntimeError(f"{error}: {(folder / 'wstest.log').read_text()[-500:]}") from None
            yield url
        finally:
            process.kill()


def wait_until_it_listens(url: str, process: subprocess.Popen[bytes]) -> None:
    address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
    deadline_s = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline_s:
        try:
            sockets.create_connection(address).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise TimeoutError("the suite does not listen, or has ended")


def run_cases(wstest: str, cases: Sequence[str], folder: Path) -> dict[str, dict[str, Any]]:
    """transport -> case -> the suite's verdict (`behavior`, `behaviorClose`, `remoteCloseCode`)."""
    agents = {name: f"lob-connect_{name}" for name in TRANSPORTS}
    with fuzzing_server(wstest, cases, folder) as url, closing(RawTape(RING_BYTES)) as tape:
        for name, agent in agents.items():
            selector = FrameSelector() if name == "native" else None
            transport = Transport(native=name == "native", selector=selector)

            async def ask(path: str, transport: Transport = transport) -> Any:
                return json.loads((await visit(f"{url}/{path}", tape, transport))[0])

            async def run(agent: str = agent, transport: Transport = transport, ask: Any = ask) -> None:
                for number in range(1, await ask("getCaseCount") + 1):
                    case = (await ask(f"getCaseInfo?case={number}"))["id"]
                    address = f"{url}/runCase?case={number}&agent={agent}"
                    await visit(address, tape, transport, binary=case.startswith(BINARY))
                await visit(f"{url}/updateReports?agent={agent}", tape, transport)

            with asyncio.Runner(loop_factory=lambda selector=selector: asyncio.SelectorEventLoop(selector)) as runner:
                runner.run(run())
    found = json.loads((folder / "index.json").read_text())
    return {name: found[agent] for name, agent in agents.items()}


def failed(verdicts: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each case that did not pass."""
    return [
        f"{transport} {case}: {verdict['behavior']}, close {verdict['behaviorClose']} ({verdict['remoteCloseCode']})"
        for transport, cases in verdicts.items()
        for case, verdict in cases.items()
        if verdict["behavior"] not in PASSED or verdict["behaviorClose"] not in PASSED
    ]


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        verdicts = run_cases(arguments[0], arguments[1:] or ["*"], Path(folder))
    for transport, cases in verdicts.items():
        counted = Counter(verdict["behavior"] for verdict in cases.values())
        print(f"{transport}: {len(cases)} cases: {', '.join(f'{n} {word}' for word, n in sorted(counted.items()))}")
        for case, verdict in cases.items():
            if verdict["behavior"] == "NON-STRICT":
                print(f"  {case} NON-STRICT")
    found = failed(verdicts)
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
