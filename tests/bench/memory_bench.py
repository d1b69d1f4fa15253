"""Memory of a pipeline of 100 symbols x 1,000 levels a side, and what many symbols and deep books cost a level update.

Usage: python tests/bench/memory_bench.py        (prints one JSON object a row; `make bench` makes the table)

Memory: all four processes on a generated recording, once every book is live and has taken its messages. A stage is its
proportional set size without the rings (smaps: what it shares with the others is divided among them); the rings are
what their files occupy, whoever has them mapped.
Throughput: decode and book on real rings, one after the other in this process (book_bench.py), best of five.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import orjson

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.book_bench import Chain
from bench.flow import PlainBook
from bench.rows import row
from bench.scheduled import RAW_FRAME, RAW_HTTP, Flow, connected
from lob.names import list_rings
from lob.records import RecordType

SYMBOLS = 100
DEPTH = 1000
MESSAGES = 20  # a symbol
STAMP_NS = 1_700_000_000_000_000_000
STAY_S = 600  # the recording's last message comes so much later: the pipeline is ended before
LEVELS = 20
DISTINCT = 4000
BATCH = 200
REPEATS = 5


def flows(count: int) -> list[Flow]:
    """So many symbols; as many different messages in all, whatever their number: none is learnt by heart."""
    distinct = max(DISTINCT // count, 20)
    return [Flow(f"SYM{number}USDT", LEVELS, distinct=distinct, seed=number) for number in range(count)]


def write_recording(path: Path, symbols: list[Flow]) -> int:
    """A recording of all symbols; how many diffs reach the public ring."""
    with path.open("wb") as file:

        def line(after_s: int = 0, **entry: str) -> None:
            file.write(orjson.dumps({"ts_ns": STAMP_NS + after_s * 10**9, "conn": "ws", **entry}) + b"\n")

        for flow in symbols:
            line(dir="in", raw=flow.message().decode())
            flow.oracle = PlainBook()
            url, answer = flow.snapshot(DEPTH)
            line(dir="http", url=url.decode(), raw=answer.decode())
        for _ in range(MESSAGES):
            for flow in symbols:
                line(dir="in", raw=flow.message().decode())
        line(STAY_S, dir="in", raw='{"result":null,"id":1}')
    return MESSAGES * len(symbols)


def own_pss_bytes(pid: int) -> int:
    """Proportional set size of a process but for its rings."""
    total, ring = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ring = "/dev/shm/" in line
        elif line.startswith("Pss:") and not ring:
            total += int(line.split()[1]) << 10
    return total


def memory() -> None:
    with tempfile.TemporaryDirectory() as folder:
        symbols = flows(SYMBOLS)
        path = Path(folder) / "recording.jsonl"
        diffs = write_recording(path, symbols)
        with connected({"connect": ["binance", "--replay", str(path), "--speed", "1"]}) as running:
            running.attach()
            running.headers(diffs)
            for flow in symbols:
                running.check(flow)
            running.reader = None
            stages = {stage: own_pss_bytes(pid) for stage, pid in running.pids.items()}
            files = [Path("/dev/shm") / name[1:] for name in list_rings(running.instance)]
            rings = {path.name.rsplit(".", 1)[1]: path.stat().st_blocks * 512 for path in files}
    what = f"{SYMBOLS} symbols x {DEPTH} levels a side"
    for stage, size in stages.items():
        row(f"memory, {what}: lob-{stage} without its rings", size / 2**20, "MiB")
    for name, size in sorted(rings.items()):
        row(f"memory, {what}: ring {name}", size / 2**20, "MiB")
    row(f"memory, {what}: all stages and rings", (sum(stages.values()) + sum(rings.values())) / 2**20, "MiB")


def level_ns(symbols: int, depth: int, messages: int = 20_000) -> float:
    """ns a level update, decode and book, over so many books of this depth a side."""
    chain = Chain("binance")
    try:
        all_flows = flows(symbols)
        for flow in all_flows:
            chain.put(RecordType(RAW_FRAME), b"", flow.message())
            url, answer = flow.snapshot(depth)
            chain.put(RecordType(RAW_HTTP), url, answer)
            chain.parse()
            chain.apply()
        spent_ns = 0
        for number in range(messages):
            chain.put(RecordType(RAW_FRAME), b"", all_flows[number % symbols].message())
            if number % BATCH == BATCH - 1:
                spent_ns += chain.parse() + chain.apply()
        for book, flow in zip(chain.books.describe(0), all_flows, strict=True):
            assert book["state"] == 1 and book["last_seq"] == flow.seq, (book, flow.seq)
        return spent_ns / (messages * LEVELS)
    finally:
        chain.close()


def compared(kinds: tuple[tuple[int, int], tuple[int, int]]) -> tuple[float, float]:
    """The best of each (symbols, depth), taken in turns: what else runs on this host then slows both."""
    rounds = [[level_ns(*kind) for kind in kinds] for _ in range(REPEATS)]
    return min(first for first, _ in rounds), min(second for _, second in rounds)


def throughput() -> None:
    one, many = compared(((1, DEPTH), (SYMBOLS, DEPTH)))
    row("decode+book a level update, 1 symbol", one, "ns")
    row(f"decode+book a level update, {SYMBOLS} symbols in turn", many, "ns", many / one, "1 symbol")
    shallow, deep = compared(((1, 10), (1, 5000)))
    row("decode+book a level update, book of 10 levels a side and what the messages add", shallow, "ns")
    row("decode+book a level update, book of 5,000 levels a side", deep, "ns", deep / shallow, "10 levels")


def main() -> None:
    memory()
    throughput()


if __name__ == "__main__":
    main()
