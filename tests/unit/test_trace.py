"""The pure parts of lob-trace: counts and trace points to rows, looks to rows, rows to text."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lob.segments import Kind
from lob_trace import latency, perfetto, report, show
from lob_trace.capture import Capture, NotACapture, Pipeline, load, save
from lob_trace.latency import END_TO_END, Measured
from lob_trace.messages import STEPS, Messages, Point, Rate, histogram, join
from lob_trace.page import page
from lob_trace.rings import Look, row
from lob_trace.screen import sparkline


def measured(*pairs: tuple[int, int]) -> Measured:
    """Of (share, receipt to here), in ns."""
    share, here = np.array(pairs, np.float64).reshape(-1, 2).T
    return Measured(histogram(share), histogram(here))


# -- latency ------------------------------------------------------------------------------------------------------


def test_a_row_a_stage_in_order_and_end_to_end_is_the_last_stage_that_counted() -> None:
    stages = {"publish": measured(), "book": measured((40, 70)), "parse": measured((20, 30))}
    stages["connect"] = measured((10, 10))
    rows = latency.rows(stages)
    assert [(row.stage, row.count, row.max_us) for row in rows] == [
        ("connect", 1, 0.01), ("parse", 1, 0.02), ("book", 1, 0.04), ("publish", 0, None), (END_TO_END, 1, 0.07)
    ]  # fmt: skip
    assert rows[3].p50_us is None


def test_without_any_stage_there_is_one_row_of_nothing() -> None:
    assert [(row.stage, row.count) for row in latency.rows({})] == [(END_TO_END, 0)]


def test_a_table_of_latency_is_under_80_wide() -> None:
    huge = [asdict(latency.row(END_TO_END, histogram(np.full(10**6, 4e9))))]
    assert max(map(len, show.latency("i" * 64, huge, 100.0))) < 80


# -- messages -----------------------------------------------------------------------------------------------------

RATE = Rate(1000, 0, 0.5)


def events(*listed: tuple[int, int, Point]) -> npt.NDArray[np.uint64]:
    """Of (ns since the start, raw_seq, point)."""
    made = [(1000 + 2 * ns, raw_seq << 8 | point) for ns, raw_seq, point in listed]
    return np.array(made, np.uint64).reshape(-1, 2)


def joined(*listed: tuple[int, int, Point]) -> Messages:
    made = events(*listed)
    return join(made[:, 0], made[:, 1], RATE)


def test_points_of_one_raw_record_are_joined_whatever_their_order() -> None:
    way = [(10 * point, 7, point) for point in Point]
    found = joined((5, 8, Point.WEBSOCKET_RECEIVE), *reversed(way))
    assert found.raw_seq.tolist() == [7, 8]
    assert found.at_ns[0].tolist() == [10, 20, 30, 40, 50, 60, 70] and np.isnan(found.at_ns[1][1:]).all()
    assert found.step_ns(Point.PARSE_START, Point.PARSE_END).tolist() == [10]
    assert found.step_ns(Point.WEBSOCKET_RECEIVE, Point.PUBLISH_END).tolist() == [60]


def test_of_several_records_of_a_message_the_first_start_and_the_last_end_count() -> None:
    start, end = Point.PUBLISH_START, Point.PUBLISH_END
    found = joined((10, 1, start), (20, 1, end), (30, 1, start), (45, 1, end))
    assert found.step_ns(start, end).tolist() == [35]


def test_a_number_used_again_by_a_ring_made_anew_is_left_out() -> None:
    found = joined((10, 1, Point.PARSE_START), (20, 1, Point.PARSE_END), (100, 1, Point.WEBSOCKET_RECEIVE))
    assert len(found.raw_seq) == 0


def test_events_of_points_that_we_do_not_know_are_left_out() -> None:
    made = np.array([[1000, 1 << 8 | 99], [1000, 1 << 8]], np.uint64)
    assert len(join(made[:, 0], made[:, 1], RATE).raw_seq) == 0


# -- captures -----------------------------------------------------------------------------------------------------


def captured(slower: int = 1, name: str = "binance", count: int = 200) -> Capture:
    stages = {"connect": measured(*[(100 * slower, 100 * slower)] * count), "parse": measured(*[(50, 150)] * count)}
    way = [
        (1000 * seq + 10 * slower * point, seq, point) for seq in range(1, count + 1) for point in Point
    ]
    return Capture(1_700_000_000 * 10**9, 2.0, RATE, {name: Pipeline(stages, events(*way), 3)})


def test_a_capture_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    made = captured()
    save(made, tmp_path / "x.trace")
    found = load(tmp_path / "x.trace")
    assert (found.began_unix_ns, found.seconds, found.rate) == (made.began_unix_ns, made.seconds, made.rate)
    assert list(report.report(found)) == list(report.report(made))
    assert (found.pipelines["binance"].events == made.pipelines["binance"].events).all()
    assert found.pipelines["binance"].lost == 3


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut short"])
def test_a_file_that_is_no_capture_is_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.trace"
    path.write_bytes(content)
    with pytest.raises(NotACapture, match="is no recording of lob-trace record"):
        load(path)


def test_a_report_has_stages_and_steps() -> None:
    rows = {(row["of"], row["stage"]): row for row in report.report(captured())}
    stages = [("stamps", name) for name in ("connect", "parse", END_TO_END)]
    assert list(rows) == [*stages, *(("points", name) for name, *_ in STEPS)]
    assert rows["stamps", "connect"]["p50_us"] == 0.1 and rows["points", "book"]["p50_us"] == 0.01
    assert rows["points", "receive to publish"]["p99_us"] == pytest.approx(0.06, rel=1 / 128)
    assert "p50_ratio" not in rows["stamps", "connect"]


def test_against_a_baseline_what_is_slower_is_called_a_regression_whatever_the_instances_names() -> None:
    rows = {(row["of"], row["stage"]): row for row in report.report(captured(3, "other"), captured())}
    assert rows["stamps", "connect"]["p50_ratio"] == pytest.approx(3, rel=0.02)
    assert rows["stamps", "connect"]["regression"] and not rows["stamps", "parse"]["regression"]
    assert rows["points", "book"]["p99_ratio"] == pytest.approx(3, rel=0.05) and rows["points", "book"]["regression"]
    few = {row["stage"]: row for row in report.report(captured(3, count=50), captured())}
    assert few["connect"]["p50_ratio"] > 2 and not few["connect"]["regression"]
    alone = list(report.report(captured(), Capture(0, 1.0, RATE, {})))
    assert all(row["p50_ratio"] is None and not row["regression"] for row in alone)


def test_a_report_at_a_terminal_is_under_80_wide_and_marks_regressions() -> None:
    lines = show.report(list(report.report(captured(3), captured())))
    assert max(map(len, lines)) < 80
    assert any(line.startswith("connect") and line.endswith("!") for line in lines)
    assert "binance: steps between trace points" in lines


def test_perfetto_has_a_track_a_stage_a_slice_a_step_and_a_flow_a_message() -> None:
    made = list(perfetto.events(captured(count=2)))
    tracks = {event["tid"]: event["args"]["name"] for event in made if event["name"] == "thread_name"}
    assert list(tracks.values()) == ["lob-connect", "lob-parse", "lob-book", "lob-publish"]
    slices = [event for event in made if event["ph"] == "X" and event["args"]["raw_seq"] == 2]
    assert [(one["name"], one["tid"], one["ts"], one["dur"]) for one in slices] == [
        ("connect", 1, 2.01, 0.0), ("parse", 2, 2.02, 0.01), ("book", 3, 2.04, 0.01), ("publish", 4, 2.06, 0.01)
    ]  # fmt: skip
    flow = [event for event in made if event.get("id") == "1.2"]
    assert [event["ph"] for event in flow] == ["s", "t", "t", "f"]
    assert [(event["tid"], event["ts"]) for event in flow] == [(one["tid"], one["ts"]) for one in slices]


def test_the_page_is_whole_needs_nothing_from_elsewhere_and_escapes_names() -> None:
    text = page(captured(name="<b>&"), captured())
    assert text.count("<svg") == text.count("</svg>") == 3
    assert "&lt;b&gt;&amp;" in text and "<b>" not in text
    assert "http" not in text and "src=" not in text and "nan" not in text.replace("lob-trace", "").lower()
    without = captured()
    without = replace(without, pipelines={"x": replace(without.pipelines["binance"], events=events())})
    assert "Trace points were off" in page(without)
    assert page(Capture(0, 1.0, RATE, {"idle": Pipeline({}, events(), 0)})).count("<svg") == 0


# -- screens ------------------------------------------------------------------------------------------------------


def test_a_sparkline_shows_the_smallest_and_largest_and_holes() -> None:
    assert sparkline([1.0, None, 8.0, 4.5]) == "▁ █▅"
    assert sparkline([None, None]) == "  " and sparkline([3.0, 3.0]) == "▁▁"


def test_books_are_shown_with_state_reason_and_age() -> None:
    row = {
        "symbol": "BTCUSDT", "state": "stale", "reason": "owner gone", "age_ms": 12.3, "bid": "1.5", "bid_qty": "2",
        "ask": None, "ask_qty": None, "spread": None,
    }  # fmt: skip
    lines = show.books("binance", [row])
    assert lines[0] == "binance"
    assert lines[2].split() == ["BTCUSDT", "stale", "(owner", "gone)", "12", "1.5", "2", "-", "-", "-"]


# -- looks --------------------------------------------------------------------------------------------------------


def look(at_ns: int, *, kind: Kind = Kind.SPSC, manifest: dict[str, Any] | None = None, **facts: Any) -> Look:
    known: dict[str, Any] = {
        "kind": int(kind), "policy": 1, "capacity_bytes": 4096, "nonce": 1, "epoch": 5, "state": 0, "writer_pid": 7,
        "heartbeat_ns": at_ns - 80_000_000, "tail": 2048, "records": 10, "bytes": 2048, "drops": 0, "full_waits": 0,
        "queue_recovered": 0, "queue_damaged": 0,
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


def test_what_an_owner_had_of_its_wishes_for_memory_is_told_and_no_more() -> None:
    had = {"huge_bytes": 6 << 20, "locked_bytes": 0, "node_bytes": "odd", "other": 1}
    seen = row(look(0), look(1, manifest={"memory": had}))
    assert seen["memory"] == {"huge_bytes": 6 << 20, "locked_bytes": 0}
    assert "  raw: epoch 5, 4 KiB, 6 MiB in huge pages, 0 bytes locked" in show.rings([seen])
    assert "memory" not in row(look(0), look(1)) and "memory" not in row(look(0), look(1, manifest={"memory": [1]}))


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
