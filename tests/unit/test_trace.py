"""The pure parts of lob-trace: stamps to latency, looks to rows, rows to text."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lob.records import HEADER, Flag
from lob.rings import Kind
from lob_trace import show
from lob_trace.latency import END_TO_END, Histogram, Latency, headers_of
from lob_trace.rings import Look, row


def headers(*stamps: tuple[int, int, int, int], origin_ns: int = 1, flags: int = 0) -> npt.NDArray[np.void]:
    made = np.zeros(len(stamps), HEADER)
    made["stage_ns"] = stamps
    made["origin_ns"], made["flags"] = origin_ns, flags
    return made


def rows(latency: Latency) -> dict[str, tuple[int, float | None]]:
    """Count and maximum by stage."""
    return {one.stage: (one.count, one.max_us) for one in latency.rows()}


def test_a_stage_is_the_difference_to_the_stage_before_and_end_to_end_the_last_stamp() -> None:
    latency = Latency()
    latency.add(headers((1000, 3000, 7000, 15000), (2000, 2500, 2600, 2650)))
    assert rows(latency) == {
        "connect": (2, 2.0), "parse": (2, 2.0), "book": (2, 4.0), "publish": (2, 8.0), END_TO_END: (2, 15.0)
    }  # fmt: skip


def test_stages_that_were_not_passed_have_no_row() -> None:
    latency = Latency()
    latency.add(headers((1000, 3000, 7000, 0)))
    assert rows(latency) == {"connect": (1, 1.0), "parse": (1, 2.0), "book": (1, 4.0), END_TO_END: (1, 7.0)}


def test_a_record_that_skipped_a_stage_counts_only_where_both_ends_are_known() -> None:
    latency = Latency()
    latency.add(headers((0, 0, 7000, 0), (1000, 0, 9000, 0)))
    assert rows(latency) == {"connect": (1, 1.0), END_TO_END: (2, 9.0)}


def test_records_of_no_message_and_repeated_snapshots_are_left_out_but_counted() -> None:
    latency = Latency()
    latency.add(headers((1, 1, 1, 1), origin_ns=0))
    latency.add(headers((1, 1, 1, 1), flags=int(Flag.REFRESH)))
    latency.add(headers((0, 0, 0, 0)))
    assert latency.records == 3 and rows(latency) == {END_TO_END: (0, None)}
    assert asdict(latency.rows()[0])["p50_us"] is None


def test_stamps_at_the_end_of_their_range_are_counted() -> None:
    latency = Latency()
    latency.add(headers((1, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)))
    assert rows(latency)[END_TO_END] == (1, 0xFFFFFFFF / 1000)


@given(st.lists(st.integers(1, 0xFFFFFFFF), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.99, 0.999]))
def test_quantiles_are_those_of_a_sorted_list_but_for_the_width_of_a_bucket(
    durations: list[int], quantile: float
) -> None:
    histogram = Histogram()
    half = len(durations) // 2
    histogram.add(np.array(durations[:half], np.int64))
    histogram.add(np.array(durations[half:], np.int64))
    exact = sorted(durations)[max(1, math.ceil(quantile * len(durations))) - 1]
    found = histogram.quantile_ns(quantile)
    assert found is not None and exact <= found <= exact * (1 + 1 / 128)
    assert histogram.max_ns == max(durations) and histogram.count == len(durations)


def test_headers_are_read_as_they_lie_in_the_ring() -> None:
    made = headers((1, 2, 3, 4), (5, 6, 7, 8))
    assert headers_of(made.tobytes()).tobytes() == made.tobytes()


# -- looks --------------------------------------------------------------------------------------------------------


def look(at_ns: int, *, kind: Kind = Kind.SPSC, manifest: dict[str, Any] | None = None, **facts: Any) -> Look:
    known: dict[str, Any] = {
        "kind": int(kind), "policy": 1, "capacity_bytes": 4096, "nonce": 1, "epoch": 5, "state": 0, "writer_pid": 7,
        "heartbeat_ns": at_ns - 80_000_000, "tail": 2048, "records": 10, "bytes": 2048, "drops": 0, "full_waits": 0,
        "readers": [{"name": "lob-parse", "slot": 0, "position": 1024, "pid": 8, "lost": 0, "seq": 1}],
    }  # fmt: skip
    return Look("/lob.binance.raw", at_ns, {**known, **facts}, manifest or {}, True, (True,))


CONNECTIONS = {
    "venue": "binance",
    "connections": [
        {"id": 0, "url": "wss://x/ws", "up": True, "session": 3, "ping_ms": 12.34, "symbols": ["A"]},
        "odd",
    ],
}


def test_two_looks_give_rates_fill_and_connections() -> None:
    seen = row(look(0), look(500_000_000, records=110, bytes=12048, manifest=CONNECTIONS))
    assert (seen["records_per_s"], seen["bytes_per_s"], seen["fill_pct"]) == (200.0, 20000.0, 25.0)
    assert (seen["kind"], seen["policy"], seen["state"], seen["venue"]) == ("spsc", "drop", "open", "binance")
    assert (seen["owner_pid"], seen["owner_alive"], seen["heartbeat_ms"], seen["epoch"]) == (7, True, 80.0, 5)
    assert seen["readers"] == [{"name": "lob-parse", "pid": 8, "alive": True, "behind_bytes": 1024, "lost": 0}]
    assert seen["connections"] == [{"id": 0, "url": "wss://x/ws", "up": True, "session": 3, "ping_ms": 12.34}]


def test_a_ring_made_anew_between_the_looks_has_no_rate() -> None:
    assert row(look(0), look(500_000_000, nonce=2, records=0))["records_per_s"] is None


def test_a_ring_without_readers_has_no_fill() -> None:
    lonely = look(0, readers=[])
    assert row(lonely, Look(**{**vars(look(1)), "facts": lonely.facts, "readers_alive": ()}))["fill_pct"] is None


def test_what_a_person_sees_is_under_80_wide_with_units_in_the_headings() -> None:
    url = {**CONNECTIONS["connections"][0], "url": "wss://" + "x" * 200}  # type: ignore[dict-item]
    manifest = {"connections": [url, {**url, "ping_ms": None, "up": False}]}
    huge: dict[str, Any] = {"records": 10**12, "drops": 10**9, "writer_pid": 4194304, "kind": int(Kind.BROADCAST)}
    huge["readers"] = [{**look(0).facts["readers"][0], "lost": 10**10, "name": "n" * 31}]
    lines = show.rings([row(look(0), look(10**9, manifest=manifest)), row(look(0), look(10**9, **huge))])
    assert max(map(len, lines)) < 80
    assert lines[0] == "binance"
    assert lines[1].split() == [
        "RING", "KIND", "POLICY", "STATE", "FILL_%", "REC/S", "DROPS", "LOST", "OWNER", "BEAT_MS"
    ]  # fmt: skip
    assert lines[2].split() == ["raw", "spsc", "drop", "open", "25.0", "0", "0", "0", "7", "80"]
    assert any("connection 0 up, session 3, ping_ms 12.3, wss://x" in line for line in lines)


def test_the_latency_table_is_aligned_and_says_when_it_is_a_sample() -> None:
    latency = Latency()
    latency.add(headers((1000, 3000, 7000, 4_000_000_000)))
    table = [{"records": 1, "lost": 17, **asdict(one)} for one in latency.rows()]
    lines = show.latency("/lob.binance.public", table, 1.0)
    assert lines[0] == "/lob.binance.public: 1 records in 1.0 s"
    assert "17 records were not seen" in lines[1]
    assert lines[2].split() == ["STAGE", "COUNT", "P50_US", "P90_US", "P99_US", "P99.9_US", "MAX_US"]
    assert max(map(len, lines)) < 80 and len({len(line) for line in lines[2:]}) == 1


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"),
        (0, "0"),
        (99999, "99999"),
        (100000, "100k"),
        (10**8 - 10**5, "99900k"),
        (10**8, "100M"),
        (10**12, "1000G"),
    ],
)
def test_short_numbers_stay_short(number: float | None, text: str) -> None:
    assert show._short(number) == text
