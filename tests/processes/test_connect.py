"""lob-connect as a process against the simulated venue: real sockets, real rings."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trustme

from exchange.running import Running, running
from lob import recording
from lob.descriptor import Descriptor
from lob.names import list_rings
from lob.records import Outcome, Reason, Record, RecordType, RequestKind
from lob.rings import InputRing
from lob.segments import RingState, unlink
from lob.trace import list_traces
from pipeline import BIN, data_folder, unique_instance, wait_for
from processes.peer import read_all

DEADLINE_S = 15.0
DATA = data_folder()


class Connect:
    """A running lob-connect and, in this process, the reader of its ring. Ended by its pid, its rings removed."""

    LIVE: ClassVar[list[str]] = []  # further options of what is no replay

    def __init__(self, *arguments: str, named: bool = False) -> None:
        self.instance = unique_instance("connect")
        self.arguments = arguments
        self.found: list[Record] = []
        self.reader: InputRing | None = None
        self.named = f"/lob.{self.instance}.raw" if named else None
        self.start()

    def start(self) -> None:
        command = [str(BIN / "lob-connect"), *self.arguments, "--instance", self.instance]
        if "--replay" not in self.arguments:
            command += self.LIVE
        if self.named:
            command += ["--out", self.named]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._stderr: list[bytes] = []
        assert self.process.stderr is not None
        self._listener = threading.Thread(target=self._listen, args=(self.process.stderr,), daemon=True)
        self._listener.start()

    def _listen(self, stream: Any) -> None:
        for line in stream:
            self._stderr.append(line)

    @property
    def stderr(self) -> str:
        return b"".join(self._stderr).decode()

    def attach(self) -> InputRing:
        """Read the descriptor and become the reader."""
        if self.named:
            name = self.named
            wait_for(lambda: name in list_rings(), DEADLINE_S, "the ring")
        else:
            assert self.process.stdout is not None
            name = Descriptor.parse(self.process.stdout.readline()).ring
        self.reader = InputRing(name, "test")
        return self.reader

    def read(self) -> list[Record]:
        """All records so far."""
        if self.reader is None:
            self.attach()
        assert self.reader is not None
        self.found += read_all(self.reader.reader)
        return self.found

    def until(self, condition: Callable[[list[Record]], Any], what: str, timeout_s: float = DEADLINE_S) -> list[Record]:
        """Read until the records fulfil the condition."""
        try:
            wait_for(lambda: bool(condition(self.read())), timeout_s, what)
        except AssertionError as error:
            kinds = [record.type.name for record in self.found[-20:]]
            raise AssertionError(f"{error}; stderr:\n{self.stderr}\nlast records: {kinds}") from None
        return self.found

    def of(self, *kinds: RecordType) -> list[Record]:
        return [record for record in self.found if record.type in kinds]

    def ask(self, kind: RequestKind, symbol: str) -> None:
        assert self.reader is not None
        assert self.reader.request(kind, symbol)

    def answers(self) -> list[tuple[str, str, str]]:
        return [
            (RequestKind(int(r.body["kind"])).name, r.symbol, Outcome(int(r.body["outcome"])).name)
            for r in self.of(RecordType.ANSWER)
        ]

    def drain(self) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + DEADLINE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"does not end; stderr:\n{self.stderr}"
            self.read()
            time.sleep(0.005)
        self.read()
        self._listener.join(5)
        return int(self.process.returncode)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        if self.reader is not None:
            self.reader.close()
        for name in [*list_rings(self.instance), *list_traces(self.instance)]:
            unlink(name)


@contextlib.contextmanager
def connect(*arguments: str, named: bool = False) -> Iterator[Connect]:
    made = Connect(*arguments, named=named)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def shared_venue() -> Iterator[Running]:
    with running("--port", "0", "--symbols", "BTCUSDT,ETHUSDT", "--rate", "50", "--levels", "50") as started:
        yield started


@pytest.fixture(params=["native", "websockets"])
def venue(shared_venue: Running, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Running:
    """The simulated venue, well-behaved again; what connects to it does so by the one transport or the other."""
    shared_venue.get("control/clear")
    shared_venue.get("control/rate", rate=50)
    monkeypatch.setattr(Connect, "LIVE", ["--transport", request.param])
    return shared_venue


def binance(venue: Running, *symbols: str) -> list[str]:
    return ["binance", *(symbols or ("BTCUSDT", "ETHUSDT")), "--url", venue.ws, "--rest-url", venue.rest]


def links(found: list[Record]) -> list[tuple[int, int]]:
    return [(int(r.header["session"]), int(r.body["up"])) for r in found if r.type is RecordType.LINK]


def diffs(found: list[Record]) -> list[Record]:
    return [r for r in found if r.type is RecordType.RAW_FRAME and b"depthUpdate" in r.text]


def test_ring_holds_what_the_venue_sent_in_order_with_link_and_subscription_before_it(venue: Running) -> None:
    with connect(*binance(venue)) as tool:
        tool.until(lambda found: len(diffs(found)) > 20, "twenty diffs")
        found = tool.found
        kinds = [record.type for record in found[:3]]
        assert kinds == [RecordType.RAW_HTTP, RecordType.LINK, RecordType.RAW_SENT]
        assert b"exchangeInfo" in found[0].url
        assert json.loads(found[2].text)["method"] == "SUBSCRIBE"
        assert [int(record.header["ring_seq"]) for record in found] == list(range(1, len(found) + 1))
        chains: dict[str, int] = {}
        for record in diffs(found):
            data = json.loads(record.text)["data"]
            assert data["U"] == chains.get(data["s"], data["U"] - 1) + 1, "a diff is missing"
            chains[data["s"]] = data["u"]
            assert abs(int(record.header["recv_ns"]) - data["E"] * 1_000_000) < 2_000_000_000
        assert set(chains) == {"BTCUSDT", "ETHUSDT"}
        stamps = [int(record.header["recv_ns"]) for record in tool.of(RecordType.RAW_FRAME)]
        assert stamps == sorted(stamps)


def test_venue_counts_as_many_messages_as_the_ring_holds(venue: Running) -> None:
    with connect(*binance(venue, "BTCUSDT")) as tool:
        tool.until(lambda found: len(diffs(found)) > 5, "some diffs")
        venue.get("control/pause")
        (link,) = venue.get("control/connections")["connections"]
        wait_for(
            lambda: (
                len([r for r in tool.read() if r.type is RecordType.RAW_FRAME])
                == venue.get("control/connections")["connections"][0]["messages"]
            ),
            5,
            "as many frames as were sent",
        )
        assert link["messages"] > 5


def test_symbols_are_split_over_connections(venue: Running) -> None:
    with connect(*binance(venue), "--streams-per-connection", "1") as tool:
        tool.until(lambda found: {int(r.header["connection"]) for r in diffs(found)} == {0, 1}, "diffs of both")
        for record in diffs(tool.found):
            symbol = ("BTCUSDT", "ETHUSDT")[int(record.header["connection"])]
            assert json.loads(record.text)["data"]["s"] == symbol
        assert tool.reader is not None
        manifest = tool.reader.manifest
        assert [(c["label"], c["symbols"]) for c in manifest["connections"]] == [
            ("ws-0", ["BTCUSDT"]),
            ("ws-1", ["ETHUSDT"]),
        ]
        reader = tool.reader
        wait_for(lambda: all(c["ping_ms"] for c in reader.manifest["connections"]), 5, "ping times")


def test_cut_connection_comes_back_as_a_new_session(venue: Running) -> None:
    with connect(*binance(venue, "BTCUSDT")) as tool:
        tool.until(diffs, "a diff")
        venue.get("control/cut")
        tool.until(lambda found: any(int(r.header["session"]) == 2 for r in diffs(found)), "diffs of session 2")
        assert links(tool.found) == [(1, 1), (1, 0), (2, 1)]
        assert "closed with code 1006" in tool.stderr


def test_refused_connections_are_tried_again_with_growing_waits(venue: Running) -> None:
    venue.get("control/refuse", t=2.0)
    with connect(*binance(venue, "BTCUSDT")) as tool:
        tool.until(diffs, "a diff after the refusals")
        waits = [
            float(line.split("next attempt in ")[1].split()[0]) for line in tool.stderr.splitlines() if "next" in line
        ]
        assert len(waits) >= 2
        assert 0.5 <= waits[0] <= 1.0 <= waits[1] <= 2.0
        assert "HTTP 503" in tool.stderr
        assert links(tool.found) == [(1, 1)]


def test_requests_are_carried_out_and_each_id_is_answered(venue: Running) -> None:
    with connect(*binance(venue, "BTCUSDT")) as tool:
        tool.until(diffs, "a diff")
        tool.ask(RequestKind.RESYNC, "BTCUSDT")
        tool.ask(RequestKind.SNAPSHOT, "BTCUSDT")
        tool.ask(RequestKind.RESYNC, "DOGEUSDT")
        tool.ask(RequestKind.SUBSCRIBE, "NOSUCH")
        tool.ask(RequestKind.SUBSCRIBE, "ETHUSDT")
        tool.until(lambda _: len(tool.answers()) == 5, "five answers")
        assert sorted(tool.answers()) == [
            ("RESYNC", "BTCUSDT", "DONE"),
            ("RESYNC", "DOGEUSDT", "REFUSED"),
            ("SNAPSHOT", "BTCUSDT", "DONE"),
            ("SUBSCRIBE", "ETHUSDT", "DONE"),
            ("SUBSCRIBE", "NOSUCH", "REFUSED"),
        ]
        snapshots = [r for r in tool.of(RecordType.RAW_HTTP) if b"/depth" in r.url]
        assert len(snapshots) == 1, "duplicates are one"
        assert "lastUpdateId" in json.loads(snapshots[0].text)
        tool.until(lambda found: any(b'"s":"ETHUSDT"' in r.text for r in diffs(found)), "diffs of the new symbol")
        tool.ask(RequestKind.RECONNECT, "")
        tool.until(lambda found: (2, 1) in links(found), "session 2")
        tool.ask(RequestKind.UNSUBSCRIBE, "BTCUSDT")
        tool.until(lambda _: ("UNSUBSCRIBE", "BTCUSDT", "DONE") in tool.answers(), "an answer")
        assert tool.reader is not None
        assert tool.reader.manifest["connections"][0]["symbols"] == ["ETHUSDT"]


def test_resync_where_the_snapshot_is_in_the_stream_subscribes_that_one_symbol_anew(venue: Running) -> None:
    def snapshots(found: list[Record], pair: bytes) -> int:
        return sum(
            b'"type":"snapshot"' in r.text and pair in r.text and b'"channel":"book"' in r.text
            for r in found
            if r.type is RecordType.RAW_FRAME
        )

    with connect("kraken", "BTC/USD", "ETH/USD", "--url", venue.kraken_ws) as tool:
        tool.until(lambda f: snapshots(f, b"BTC/USD") == 1 and snapshots(f, b"ETH/USD") == 1, "both snapshots")
        tool.ask(RequestKind.RESYNC, "BTC/USD")
        tool.until(lambda f: snapshots(f, b"BTC/USD") == 2, "a second snapshot")
        assert snapshots(tool.found, b"ETH/USD") == 1
        tool.until(lambda _: tool.answers() == [("RESYNC", "BTC/USD", "DONE")], "the answer")


def test_429_pauses_requests_for_as_long_as_the_venue_says(venue: Running) -> None:
    with connect(*binance(venue, "BTCUSDT")) as tool:
        tool.until(diffs, "a diff")
        venue.get("control/error", status=429, n=1, retry_after=1)
        asked = time.monotonic()
        tool.ask(RequestKind.RESYNC, "BTCUSDT")
        tool.until(lambda _: tool.answers() == [("RESYNC", "BTCUSDT", "DONE")], "the answer")
        assert time.monotonic() - asked >= 1.0
        assert "too many requests (HTTP 429): none for 1 s" in tool.stderr


def test_error_500_is_tried_again(venue: Running) -> None:
    with connect(*binance(venue, "BTCUSDT")) as tool:
        tool.until(diffs, "a diff")
        venue.get("control/error", status=500, n=1)
        tool.ask(RequestKind.RESYNC, "BTCUSDT")
        tool.until(lambda _: tool.answers() == [("RESYNC", "BTCUSDT", "DONE")], "the answer")


def test_symbol_that_the_venue_does_not_list_is_one_sentence_and_exit_2(venue: Running) -> None:
    with connect(*binance(venue, "btcusdt", "NOSUCH")) as tool:
        assert tool.drain() == 2
        assert "binance does not accept btcusdt, NOSUCH" in tool.stderr
        assert "did you mean BTCUSDT?" in tool.stderr


def test_without_metadata_the_feed_runs_and_says_so(venue: Running) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with connect("binance", "BTCUSDT", "--url", venue.ws, "--rest-url", f"http://127.0.0.1:{port}") as tool:
        tool.until(diffs, "a diff")
        assert "no metadata of binance (Connection refused)" in tool.stderr


def test_full_ring_is_counted_and_told_when_there_is_room_again(venue: Running) -> None:
    venue.get("control/rate", rate=500)
    with connect(*binance(venue), "--ring-bytes", "64K") as tool:
        ring = tool.attach()
        wait_for(lambda: ring.segment.facts()["drops"] > 10, DEADLINE_S, "drops")
        tool.until(lambda _: tool.of(RecordType.LOST), "a lost record")
        (lost, *_) = tool.of(RecordType.LOST)
        assert int(lost.body["reason"]) == Reason.LOST
        before = tool.found[tool.found.index(lost) - 1]
        hole = int(lost.header["ring_seq"]) - int(before.header["ring_seq"]) - 1
        assert hole == int(lost.body["count"]) > 10


# -- ends --------------------------------------------------------------------------------------------------------------


def test_sigterm_in_a_pipe_ends_with_0_and_unlinks_the_ring(venue: Running) -> None:
    with connect(*binance(venue)) as tool:
        tool.until(diffs, "a diff")
        tool.process.send_signal(signal.SIGTERM)
        assert tool.drain() == 0
        assert links(tool.found) == [(1, 1), (1, 0)]
        assert list_rings(tool.instance) == []
        assert tool.reader is not None
        assert tool.reader.state is RingState.CLOSED
        assert "frames" in tool.stderr.splitlines()[-1]
        assert "next attempt" not in tool.stderr


def test_named_ring_stays_paused_after_sigterm_and_its_sessions_go_on_after_a_restart(venue: Running) -> None:
    with connect(*binance(venue, "BTCUSDT"), named=True) as tool:
        tool.until(diffs, "a diff")
        tool.process.send_signal(signal.SIGTERM)
        assert tool.drain() == 0
        assert list_rings(tool.instance) == [tool.named]
        assert tool.reader is not None
        assert tool.reader.state is RingState.PAUSED
        tool.start()
        tool.until(lambda found: any(int(r.header["session"]) == 2 for r in diffs(found)), "diffs of session 2")
        assert links(tool.found) == [(1, 1), (1, 0), (2, 1)]
        sequence = [int(record.header["ring_seq"]) for record in tool.found]
        assert sequence == list(range(1, len(sequence) + 1))


def test_reader_that_goes_away_ends_it_with_0(venue: Running) -> None:
    with connect(*binance(venue)) as tool:
        tool.until(diffs, "a diff")
        assert tool.process.stdout is not None
        tool.process.stdout.close()
        assert tool.process.wait(DEADLINE_S) == 0


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tls")
    paths = {name: folder / f"{name}.pem" for name in ("ca", "other", "cert", "key")}
    authority, other = trustme.CA(), trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(paths["ca"]))
    other.cert_pem.write_to_path(str(paths["other"]))
    issued.cert_chain_pems[0].write_to_path(str(paths["cert"]))
    issued.private_key_pem.write_to_path(str(paths["key"]))
    return paths


@pytest.mark.parametrize("transport", ["native", "websockets"])
def test_tls_is_verified_and_a_foreign_ca_refused_for_socket_and_rest(
    certificates: dict[str, Path], transport: str
) -> None:
    context = f"{certificates['cert']},{certificates['key']}"
    with tls_venue(context) as (ws, rest):
        base = ["binance", "BTCUSDT", "--url", ws, "--rest-url", rest, "--transport", transport]
        with connect(*base, "--ca", str(certificates["ca"])) as tool:
            tool.until(diffs, "a diff over TLS")
            assert tool.of(RecordType.RAW_HTTP)
        with connect(*base, "--ca", str(certificates["other"])) as tool:
            tool.attach()
            wait_for(lambda: "next attempt" in tool.stderr, DEADLINE_S, "a refusal")
            assert tool.stderr.count("its certificate is not trusted") >= 2
            assert tool.read() == []


def test_busy_poll_and_receive_buffer_change_nothing_that_arrives(venue: Running) -> None:
    if Connect.LIVE[1] == "websockets":
        pytest.skip("--busy-poll goes with --transport native")
    with connect(*binance(venue, "BTCUSDT"), "--busy-poll", "--rcvbuf", "1M") as tool:
        tool.until(lambda found: len(diffs(found)) > 5, "some diffs")
        tool.process.send_signal(signal.SIGTERM)
        assert tool.drain() == 0
        assert links(tool.found) == [(1, 1), (1, 0)]


@contextlib.contextmanager
def tls_venue(pair: str) -> Iterator[tuple[str, str]]:
    with running("--port", "0", "--symbols", "BTCUSDT", "--rate", "50", "--levels", "50", "--tls", pair) as venue:
        yield venue.ws, venue.rest


# -- recording ---------------------------------------------------------------------------------------------------------


def comparable(record: Record) -> tuple[Any, ...]:
    """All of a raw record but what belongs to the run: origin and stage stamps, ring sequence, epoch."""
    head = {name: record.header[name].item() for name in ("type", "flags", "recv_ns", "connection", "session")}
    return (*head.values(), record.body.tobytes(), record.url, record.text)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_replay_of_a_recording_gives_equal_raw_records(venue: Running, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"r.jsonl{suffix}"
    with connect(*binance(venue), "--streams-per-connection", "1", "--record", str(path)) as tool:
        tool.until(
            lambda found: [int(r.header["connection"]) for r in diffs(found)].count(1) > 3, "diffs of the second"
        )
        tool.ask(RequestKind.RESYNC, "ETHUSDT")
        tool.ask(RequestKind.RESYNC, "DOGEUSDT")
        tool.until(lambda _: len(tool.answers()) == 2, "answers")
        if not suffix:
            venue.get("control/cut")
            tool.until(lambda found: {(2, 1)} <= set(links(found)), "session 2")
        tool.process.send_signal(signal.SIGTERM)
        assert tool.drain() == 0, tool.stderr
        original = tool.found
    with connect("binance", "--replay", str(path)) as tool:
        assert tool.drain() == 0, tool.stderr
        replayed = tool.found
    assert len(original) > 10  # that there is something to compare
    assert list(map(comparable, replayed)) == list(map(comparable, original))


def test_recording_holds_what_the_ring_dropped(venue: Running, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    venue.get("control/rate", rate=500)
    with connect(*binance(venue), "--ring-bytes", "64K", "--record", str(path)) as tool:
        ring = tool.attach()
        wait_for(lambda: ring.segment.facts()["drops"] > 50, DEADLINE_S, "drops")
        tool.process.send_signal(signal.SIGTERM)
        assert tool.drain() == 0, tool.stderr
        dropped = ring.segment.facts()["drops"]
    with connect("binance", "--replay", str(path)) as again:
        assert again.drain() == 0, again.stderr
        assert again.of(RecordType.LOST) == []
    data = (RecordType.RAW_FRAME, RecordType.RAW_SENT, RecordType.RAW_HTTP)
    assert len(again.of(*data)) == len(tool.of(*data)) + dropped


def test_full_disk_ends_the_feed_with_one_sentence_and_1(venue: Running) -> None:
    with connect(*binance(venue), "--record", "/dev/full") as tool:
        assert tool.drain() == 1
        sentences = [line for line in tool.stderr.splitlines() if "No space left" in line]
        assert sentences == [
            "lob-connect: /dev/full: No space left on device; the recording ends here, and so does this feed"
        ]


def test_print_mode_asks_for_snapshots_itself_so_that_a_recording_has_them(venue: Running, tmp_path: Path) -> None:
    path = tmp_path / "r-%Y.jsonl"
    command = [str(BIN / "lob-connect"), *binance(venue), "--record", str(path), "--for", "2.5", "--print"]
    done = subprocess.run([*command, "--instance", unique_instance()], capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"raw_http", "link", "raw_sent", "raw_frame"} == {line["type"] for line in printed}
    (written,) = tmp_path.glob("r-2*.jsonl")
    urls = [line["url"] for line in recording.read(written) if line["dir"] == "http"]
    assert sum("/depth?" in url for url in urls) == 2


# -- replay ------------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "lob-connect"), *arguments, "--instance", unique_instance(), "--print"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def write_lines(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_corrupt_recording_is_one_sentence_with_file_and_line_and_1(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "bad.jsonl", {"ts_ns": 1, "conn": "a", "dir": "in", "raw": "x"})
    path.write_text(path.read_text() + "garbage\n")
    done = run("binance", "--replay", str(path))
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == f"lob-connect: {path}:2: no JSON; the replay ends here"
    assert done.stdout.count("raw_frame") == 1
    assert "Traceback" not in done.stderr


def test_missing_recording_is_one_sentence_and_1(tmp_path: Path) -> None:
    done = run("binance", "--replay", str(tmp_path / "none.jsonl"))
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == f"lob-connect: {tmp_path}/none.jsonl: No such file or directory"


def test_recording_of_another_venue_says_what_it_holds(tmp_path: Path) -> None:
    connected = {"ts_ns": 1, "conn": "a", "dir": "out", "url": "wss://ws.kraken.com/v2", "raw": "", "event": "connect"}
    done = run("binance", "--replay", str(write_lines(tmp_path / "k.jsonl", connected)))
    assert done.returncode == 1
    assert "nothing of binance in" in done.stderr
    assert "wss://ws.kraken.com/v2" in done.stderr


def test_real_speed_keeps_the_distances_and_n_divides_them(tmp_path: Path) -> None:
    frames = [{"ts_ns": n * 100_000_000, "conn": "a", "dir": "in", "raw": str(n)} for n in range(1, 12)]
    path = write_lines(tmp_path / "slow.jsonl", *frames)
    for speed, least in (("real", 1.0), ("4", 0.25)):
        with connect("binance", "--replay", str(path), "--speed", speed) as tool:
            assert tool.drain() == 0
            origins = [int(record.header["origin_ns"]) for record in tool.of(RecordType.RAW_FRAME)]
            assert least - 0.01 <= (origins[-1] - origins[0]) / 1e9 < least + 0.5  # the first may be late, too


def test_slow_reader_makes_a_replay_wait_and_nothing_is_dropped(tmp_path: Path) -> None:
    frames = [{"ts_ns": n, "conn": "a", "dir": "in", "raw": f"{n}:" + "x" * 500} for n in range(2000)]
    path = write_lines(tmp_path / "many.jsonl", *frames)
    with connect("binance", "--replay", str(path), "--ring-bytes", "64K") as tool:
        tool.attach()
        time.sleep(0.5)
        assert tool.drain() == 0
        assert [int(r.text.split(b":")[0]) for r in tool.of(RecordType.RAW_FRAME)] == list(range(2000))
        assert tool.of(RecordType.LOST) == []


@pytest.mark.skipif(DATA is None, reason="no real recordings here (set LOB_DATA to their folder)")
@pytest.mark.parametrize(
    ("name", "sent", "http", "frames", "venue_name"),
    [  # as the table beside the recordings counts them, less what goes to no connection of the venue
        ("binance-spot-1", 0, 5, 265, "binance"),
        ("binance-spot-4", 0, 10, 11357, "binance"),
        ("binance-usdm-2", 0, 4, 3259, "binance-usdm"),
        ("kraken-v2-2", 0, 0, 2104, "kraken"),
        ("coinbase-advanced-1-head", 5, 1, 593, "coinbase"),
    ],
)
def test_real_recordings_are_replayed_line_by_line(
    name: str, sent: int, http: int, frames: int, venue_name: str
) -> None:
    assert DATA is not None
    with connect(venue_name, "--replay", str(DATA / "recordings" / f"{name}.jsonl.gz")) as tool:
        assert tool.drain() == 0, tool.stderr
    counts = [len(tool.of(kind)) for kind in (RecordType.RAW_SENT, RecordType.RAW_HTTP, RecordType.RAW_FRAME)]
    assert counts == [sent, http, frames]
    assert len(tool.of(RecordType.LINK)) == 1
