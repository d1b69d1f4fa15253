"""Rows as text: aligned columns under 80 wide for people, one JSON object a line for programs. Pure."""

from __future__ import annotations

from itertools import groupby
from typing import Any

WIDTH = 79
MISSING = "-"


def table(headings: list[str], rows: list[list[str]], left: int = 1) -> list[str]:
    """Columns as wide as their widest cell, numbers to the right; the first `left` columns are words."""
    widths = [max(len(row[column]) for row in [headings, *rows]) for column in range(len(headings))]
    lines = []
    for row in [headings, *rows]:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(" ".join(cells).rstrip())
    return lines


def rings(rows: list[dict[str, Any]]) -> list[str]:
    """A block an instance: its rings, then their readers and connections."""
    lines: list[str] = []
    for instance, group in groupby(rows, key=lambda row: row["instance"]):
        block = list(group)
        if lines:
            lines.append("")
        lines.append(instance)
        headings = ["RING", "KIND", "POLICY", "STATE", "FILL_%", "REC/S", "DROPS", "LOST", "OWNER", "BEAT_MS"]
        lines += table(headings, [_ring_cells(row) for row in block], left=4)
        for row in block:
            lines += [line[:WIDTH] for line in _details(row)]
    return lines


def _ring_cells(row: dict[str, Any]) -> list[str]:
    what = row["ring"].rsplit(".", 1)[1]
    board = row["kind"] == "board"
    owner = str(row["owner_pid"]) if row["owner_alive"] is not False else f"{row['owner_pid']} gone"
    return [
        what,
        row["kind"],
        MISSING if board else row["policy"],
        row["state"],
        MISSING if row["fill_pct"] is None else f"{row['fill_pct']:.1f}",
        MISSING if board else _short(row["records_per_s"]),
        MISSING if board else _short(row["drops"]),
        MISSING if board else _short(row["lost"]),
        owner,
        _short(row["heartbeat_ms"]),
    ]


def _details(row: dict[str, Any]) -> list[str]:
    what = row["ring"].rsplit(".", 1)[1]
    memory = row.get("memory", {})
    of_it = {"huge_bytes": "in huge pages", "locked_bytes": "locked", "node_bytes": "on its NUMA node"}
    had = [f"{_bytes(memory[key])} {text}" for key, text in of_it.items() if key in memory]
    lines = [", ".join([f"  {what}: epoch {row['epoch']}, {_bytes(row['capacity_bytes'])}", *had])]
    for reader in row["readers"]:
        state = "" if reader["alive"] is not False else " (gone)" if reader["pid"] else " (not yet there)"
        lines.append(
            f"  {what}: reader {reader['name']}{state}, pid {reader['pid']}, "
            f"{reader['behind_bytes']} bytes behind, {reader['lost']} lost"
        )
    for connection in row.get("connections", []):
        ping = MISSING if connection["ping_ms"] is None else f"{connection['ping_ms']:.1f}"
        up = "up" if connection["up"] else "down"
        lines.append(
            f"  {what}: connection {connection['id']} {up}, session {connection['session']}, "
            f"ping_ms {ping}, {connection['url']}"
        )
    return lines


LATENCY_HEADINGS = ["STAGE", "COUNT", "P50_US", "P90_US", "P99_US", "P99.9_US", "MAX_US"]
LATENCY_KEYS = ("p50_us", "p90_us", "p99_us", "p99_9_us", "max_us")


def latency(instance: str, rows: list[dict[str, Any]], seconds: float) -> list[str]:
    """A heading for the instance, then a line a stage."""
    cells = [[row["stage"], str(row["count"]), *(_us(row[key]) for key in LATENCY_KEYS)] for row in rows]
    return [f"{instance}: {seconds:.1f} s", *table(LATENCY_HEADINGS, cells)]


def report(rows: list[dict[str, Any]]) -> list[str]:
    """A block an instance and source of figures; with a baseline the ratios to it, `!` where that is a regression."""
    lines: list[str] = []
    for (instance, of), group in groupby(rows, key=lambda row: (row["instance"], row["of"])):
        block = list(group)
        if lines:
            lines.append("")
        lines.append(f"{instance}: " + ("latency by stage" if of == "stamps" else "steps between trace points"))
        compared = "p50_ratio" in block[0]
        headings = [*LATENCY_HEADINGS, *(["P50_X", "P99_X", ""] if compared else [])]
        cells = []
        for row in block:
            cells.append([row["stage"], str(row["count"]), *(_us(row[key]) for key in LATENCY_KEYS)])
            if compared:
                ratios = (row["p50_ratio"], row["p99_ratio"])
                cells[-1] += [MISSING if ratio is None else f"{ratio:.2f}" for ratio in ratios]
                cells[-1].append("!" if row["regression"] else "")
        lines += table(headings, cells)
    return lines


def books(instance: str, rows: list[dict[str, Any]]) -> list[str]:
    """A line a book."""
    headings = ["BOOK", "STATE", "AGE_MS", "BID", "BID_QTY", "ASK", "ASK_QTY", "SPREAD"]
    keys = ("bid", "bid_qty", "ask", "ask_qty", "spread")
    cells = []
    for row in rows:
        state = row["state"] if row["reason"] is None else f"{row['state']} ({row['reason']})"
        cells.append([row["symbol"], state, _short(row["age_ms"]), *(row[key] or MISSING for key in keys)])
    return [instance, *table(headings, cells, left=2)]


def _us(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1f}"


def _short(value: float | None) -> str:
    """At most six characters."""
    if value is None:
        return MISSING
    for limit, divisor, unit in ((1e5, 1, ""), (1e8, 1e3, "k"), (1e11, 1e6, "M")):
        if abs(value) < limit:
            return f"{value / divisor:.0f}{unit}"
    return f"{value / 1e9:.0f}G"


def _bytes(count: int) -> str:
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << shift and count % (1 << shift) == 0:
            return f"{count >> shift} {unit}"
    return f"{count} bytes"
