"""Options of lob-trace."""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import click
import orjson

from lob.board import Board
from lob.errors import ForeignOwner, NoRing, RingError
from lob.options import Instance, Seconds, run_cli, say
from lob.records import RequestKind
from lob_trace import bars, capture, show
from lob_trace import books as book_rows
from lob_trace import clean as cleaning
from lob_trace import request as requests
from lob_trace import rings as outside
from lob_trace.histogram import Histogram
from lob_trace.latency import END_TO_END, STAGES, end_to_end
from lob_trace.latency import rows as latency_rows
from lob_trace.record import record as record_traces
from lob_trace.report import report as make_report
from lob_trace.switch import switch
from lob_trace.traces import Traces

TOOL = "lob-trace"
LOOK_S = 0.25  # how often to look which traces there are
FILE = click.Path(path_type=Path, dir_okay=False)
NEEDS_SYMBOL = (RequestKind.SNAPSHOT, RequestKind.SUBSCRIBE, RequestKind.UNSUBSCRIBE)

EPILOG = """\b
Exit status: 0 done, or the reader of stdout went away; 1 nothing to read, or
failed; 2 wrong option, or asked and could not ask; 3 ring of another layout or
owner.

\b
Examples:
  lob-trace                      latency of the last second, of all pipelines
  lob-trace 5 12                 every 5 s, for a minute
  lob-trace hist 10 --stage book
  lob-trace on binance; lob-trace record now.trace --for 10s; lob-trace off binance
  lob-trace report now.trace --baseline yesterday.trace
  lob-trace report now.trace --html now.html
  lob-trace export now.trace --perfetto now.json
  lob-trace rings                rings, owners, readers, connections
  lob-trace rings | jq .fill_pct
  lob-trace request binance resync BTCUSDT
  lob-trace clean binance        remove what its dead stages left"""


class Verbs(click.Group):
    """What is no verb are the arguments of `latency`: `lob-trace 5 12`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0][:1].isalpha() and args[0] not in self.commands:  # no duration begins so: a verb misspelt
            ctx.fail(f"'{args[0]}' is neither an INTERVAL nor one of {', '.join(sorted(self.commands))}")
        if not args or (args[0] not in self.commands and args[0] not in ("--help", "-h")):
            args = ["latency", *args]
        return super().parse_args(ctx, args)


@click.group(cls=Verbs, epilog=EPILOG, context_settings={"max_content_width": 100})
def command() -> None:
    """See what the pipelines of this host do.

    \b
    lob-trace [INTERVAL [COUNT]] [--instance NAME]    latency by stage, as the stages count it
    lob-trace hist [INTERVAL] [--stage STAGE]         its distribution, as bars
    lob-trace top [INTERVAL [COUNT]]                  a live screen
    lob-trace rings [--json]                          rings, fill, rates, owners, readers, connections
    lob-trace books INSTANCE                          state, age and top of every book
    lob-trace record FILE [--for SECONDS]             what the stages measure, into a file
    lob-trace report FILE [--baseline OTHER]          percentiles and steps of a recording; --html PAGE
    lob-trace export FILE --perfetto JSON             its trace points for the Perfetto UI
    lob-trace on|off INSTANCE                         switch trace points; writes
    lob-trace request INSTANCE KIND [SYMBOL]          ask lob-connect for something; writes
    lob-trace clean [--yes] [INSTANCE]                remove what dead stages left; writes

    Reads shared memory read-only and holds no role, unless said otherwise. On a terminal: columns; in a pipe: one JSON
    object a line.
    """


def _as_json(forced: bool) -> bool:
    return forced or not sys.stdout.isatty()


def _print(lines: list[str]) -> None:
    sys.stdout.write("".join(line + "\n" for line in lines))
    sys.stdout.flush()


def _json(row: dict[str, Any]) -> str:
    return orjson.dumps(row).decode()


def _tell(sentences: list[str]) -> None:
    """Each once, on stderr."""
    for sentence in sentences:
        say(TOOL, sentence)
    sentences.clear()


def _traces(instance: str | None) -> Traces:
    """Raises RingError if there are none."""
    traces = Traces(instance)
    _tell(traces.sentences)
    if not traces.open:
        of = "" if instance is None else f" of instance {instance}"
        raise RingError(f"no traced stage{of} on this host; is a pipeline running?")
    return traces


@command.command()
@click.argument("interval", type=Seconds(), default=1.0)
@click.argument("count", type=click.IntRange(1), required=False)
@click.option("--instance", type=Instance(), help="Of this pipeline only  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="JSON also on a terminal")
@click.pass_context
def latency(ctx: click.Context, interval: float, count: int | None, instance: str | None, as_json: bool) -> int:
    """Latency by stage, every INTERVAL, COUNT times.

    Without INTERVAL: once, of one second. With INTERVAL alone: until stopped. A stage's row is the time from the commit
    of the stage before to its own; the first begins at the read that completed the message.
    """
    _check_interval(interval)
    once = ctx.get_parameter_source("interval") is click.core.ParameterSource.DEFAULT
    left = 1 if once else count
    traces = Traces(instance) if left is None else _traces(instance)
    deadline = time.monotonic()
    try:
        while left is None or left > 0:
            started, deadline = deadline, deadline + interval
            while (wait_s := deadline - time.monotonic()) > 0:
                time.sleep(min(wait_s, LOOK_S))
                traces.look()
            _tell(traces.sentences)
            for name, stages in traces.take().items():
                about = {"instance": name, "interval_s": round(deadline - started, 3)}
                rows = [{**about, **asdict(row)} for row in latency_rows(stages)]
                _print([_json(row) for row in rows] if _as_json(as_json) else [*show.latency(name, rows, interval), ""])
            left = None if left is None else left - 1
    except KeyboardInterrupt:
        pass
    return 0


def _check_interval(interval: float) -> None:
    if interval <= 0:
        raise click.BadParameter("more than 0 seconds", param_hint="INTERVAL")


@command.command()
@click.argument("interval", type=Seconds(), default=1.0)
@click.option("--stage", type=click.Choice(STAGES), help="The share of this stage  [default: end to end]")
@click.option("--instance", type=Instance(), help="Of this pipeline only  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="JSON also on a terminal")
def hist(interval: float, stage: str | None, instance: str | None, as_json: bool) -> int:
    """The distribution of latency over INTERVAL, as bars whose width fits what is there."""
    _check_interval(interval)
    traces = _traces(instance)
    time.sleep(interval)
    traces.look()
    for name, stages in traces.take().items():
        measured = stages.get(stage) if stage else None
        histogram = end_to_end(stages) if stage is None else Histogram.empty() if measured is None else measured.share
        found = bars.bins(histogram)
        about = {"instance": name, "stage": stage or END_TO_END}
        if _as_json(as_json):
            edges = ((one.low_ns / 1000, None if one.high_ns is None else one.high_ns / 1000) for one in found)
            rows = [{**about, "low_us": low, "high_us": high} for low, high in edges]
            _print([_json({**row, "count": one.count}) for row, one in zip(rows, found, strict=True)])
        else:
            head = f"{name}: {about['stage']}, us, {histogram.count} in {interval:.1f} s"
            _print([head, *bars.lines(found, show.WIDTH - 40), ""])
    return 0


@command.command()
@click.argument("instance", type=Instance())
@click.option("--json", "as_json", is_flag=True, help="JSON also on a terminal")
def books(instance: str, as_json: bool) -> int:
    """State, age and top of every book of INSTANCE, from its board."""
    rows = book_rows.rows(Board(instance))
    _print([_json({"instance": instance, **row}) for row in rows] if _as_json(as_json) else show.books(instance, rows))
    return 0


@command.command()
@click.argument("interval", type=Seconds(), default=1.0)
@click.argument("count", type=click.IntRange(1), required=False)
@click.option("--instance", type=Instance(), help="Of this pipeline only  [default: all]")
def top(interval: float, count: int | None, instance: str | None) -> int:
    """A live screen: rings, stages, latency, books. Ends at Ctrl-C, or after COUNT looks."""
    _check_interval(interval)
    if not sys.stdout.isatty():
        raise click.UsageError("top is for a terminal; in a pipe there are `lob-trace 1`, `rings` and `books`")
    from lob_trace.top import run  # rich is loaded only here

    try:
        run(instance, interval, count)
    except KeyboardInterrupt:
        pass
    return 0


@command.command()
@click.argument("file", type=FILE)
@click.option("--for", "for_s", type=Seconds(), help="Stop after so long  [default: until Ctrl-C]")
@click.option("--instance", type=Instance(), help="Of this pipeline only  [default: all]")
def record(file: Path, for_s: float | None, instance: str | None) -> int:
    """Record what the stages measure into FILE, with the trace points of those that have them on."""
    traces = _traces(instance)
    if not any(one.trace.facts()["on"] for one in traces.open.values()):
        say(TOOL, "trace points are off: histograms only (`lob-trace on INSTANCE` switches them on)")
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stopped.append(number))
    made = record_traces(traces, for_s, lambda: not stopped)
    try:
        capture.save(made, file)
    except OSError as error:
        raise click.FileError(str(file), error.strerror or "") from None
    events = sum(len(one.events) for one in made.pipelines.values())
    lost = sum(one.lost for one in made.pipelines.values())
    say(TOOL, f"{file}: {made.seconds:.1f} s of {', '.join(made.pipelines)}, {events} trace points, {lost} lost")
    return 0


def _load(path: Path) -> capture.Capture:
    try:
        return capture.load(path)
    except (capture.NotACapture, OSError) as error:
        raise click.BadParameter(str(error), param_hint="FILE") from None


@command.command()
@click.argument("file", type=FILE)
@click.option("--baseline", type=FILE, help="Another recording: ratios to it, and what got slower")
@click.option("--html", type=FILE, help="Write a page with plots, instead of the table")
@click.option("--json", "as_json", is_flag=True, help="JSON also on a terminal")
def report(file: Path, baseline: Path | None, html: Path | None, as_json: bool) -> int:
    """Latency by stage and the steps between trace points, from a recording."""
    ours, theirs = _load(file), None if baseline is None else _load(baseline)
    if html is not None:
        from lob_trace.page import page

        _write(html, page(ours, theirs).encode())
        return 0
    rows = list(make_report(ours, theirs))
    _print([_json(row) for row in rows] if _as_json(as_json) else show.report(rows))
    return 0


@command.command()
@click.argument("file", type=FILE)
@click.option("--perfetto", type=FILE, required=True, help="Write JSON that ui.perfetto.dev opens")
def export(file: Path, perfetto: Path) -> int:
    """The trace points of a recording for another tool: a track a stage, a flow a message."""
    from lob_trace.perfetto import events

    made = list(events(_load(file)))
    if not any(event["ph"] == "X" for event in made):
        say(TOOL, f"{file} holds no trace points; `lob-trace on INSTANCE` before recording")
    _write(perfetto, orjson.dumps({"displayTimeUnit": "ns", "traceEvents": made}))
    return 0


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise click.FileError(str(path), error.strerror or "") from None
    say(TOOL, f"{path}: {len(data)} bytes")


def _switch(instance: str, on: bool) -> int:
    for name in switch(instance, on):
        say(TOOL, f"opened {name} read-write and switched its trace points {'on' if on else 'off'}")
    return 0


@command.command()
@click.argument("instance", type=Instance())
def on(instance: str) -> int:
    """Switch the trace points of INSTANCE's running stages on. Writes one word of each trace."""
    return _switch(instance, True)


@command.command()
@click.argument("instance", type=Instance())
def off(instance: str) -> int:
    """Switch the trace points of INSTANCE's running stages off. Writes one word of each trace."""
    return _switch(instance, False)


@command.command()
@click.option("--instance", type=Instance(), help="Of this pipeline only  [default: all]")
@click.option("--apart", type=Seconds(), default=0.5, help="Time between the two looks for rates  [default: 500ms]")
@click.option("--json", "as_json", is_flag=True, help="JSON also on a terminal")
def rings(instance: str | None, apart: float, as_json: bool) -> int:
    """Rings and boards of this host: fill, rate, drops, owner, readers, connections."""
    rows, sentences = outside.look_twice(instance, apart)
    _print([_json(row) for row in rows] if _as_json(as_json) else show.rings(rows))
    for sentence in sentences:
        say(TOOL, sentence)
    if not rows and not sentences:
        say(TOOL, "no rings on this host" if instance is None else f"no rings of instance {instance}")
    return 1 if sentences else 0


@command.command()
@click.argument("instance", type=Instance(), required=False)
@click.option("--yes", is_flag=True, help="Do not ask")
def clean(instance: str | None, yes: bool) -> int:
    """Remove rings and boards in which nobody holds a role, and what their makers left half-made.

    Writes: unlinks them from shared memory. What a live process holds is kept, and named.
    """
    found = cleaning.find(instance)
    for name in found.kept:
        say(TOOL, f"{name} is held by a live process; kept")
    for name in found.foreign:
        say(TOOL, f"{name} belongs to another user; kept")
    if not found.left:
        say(TOOL, "nothing to remove")
        return 0
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"{len(found.left)} to remove and no terminal to ask on; give --yes")
        for left in found.left:
            click.echo(f"{left.name}  ({left.what})", err=True)
        if not click.confirm(f"Remove these {len(found.left)}?", err=True):
            return 0
    for left in found.left:
        try:
            gone = cleaning.remove(left)
        except ForeignOwner as error:
            say(TOOL, str(error))
            continue
        if not gone:
            say(TOOL, f"{left.name} is held by a live process by now; kept")
            continue
        _print([_json({"removed": left.name, "what": left.what}) if _as_json(False) else f"removed {left.name}"])
    return 0


@command.command()
@click.argument("instance", type=Instance())
@click.argument("kind", type=click.Choice([kind.name.lower() for kind in RequestKind]))
@click.argument("symbol", default="")
def request(instance: str, kind: str, symbol: str) -> int:
    """Post a request to the lob-connect of INSTANCE.

    Writes: opens the raw ring read-write and puts the request into its queue. The answer comes in-band, as a record.
    """
    asked = RequestKind[kind.upper()]
    if asked in NEEDS_SYMBOL and not symbol:
        raise click.UsageError(f"{kind} of what? give a SYMBOL as the venue spells it")
    try:
        ring, request_id = requests.post(instance, asked, symbol)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="SYMBOL") from None
    except NoRing:
        raise RingError(f"no raw ring of instance {instance}; `lob-trace rings` lists what there is") from None
    say(TOOL, f"opened {ring} read-write and posted: {kind} {symbol or '(the whole connection)'}, id {request_id}")
    return 0


def main() -> NoReturn:
    run_cli(TOOL, command)
