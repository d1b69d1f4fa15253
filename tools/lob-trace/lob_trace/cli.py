"""Options of lob-trace."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import Any, NoReturn

import click
import orjson

from lob.options import Instance, Seconds, run_cli, say
from lob.records import RequestKind
from lob.rings import ForeignOwner, NoRing, RingError
from lob_trace import clean as cleaning
from lob_trace import request as requests
from lob_trace import rings as outside
from lob_trace import show
from lob_trace.watch import Watch

TOOL = "lob-trace"
NEEDS_SYMBOL = (RequestKind.SNAPSHOT, RequestKind.SUBSCRIBE, RequestKind.UNSUBSCRIBE)

EPILOG = """\b
Exit status: 0 done, or the reader of stdout went away; 1 nothing to read, or
failed; 2 wrong option, or asked and could not ask; 3 ring of another layout or
owner.

\b
Examples:
  lob-trace                      latency of the last second, of all pipelines
  lob-trace 5 12                 every 5 s, for a minute
  lob-trace rings                rings, owners, readers, connections
  lob-trace rings | jq .fill_pct
  lob-trace request binance resync BTCUSDT
  lob-trace clean binance        remove what its dead stages left"""


class Verbs(click.Group):
    """What is no verb are the arguments of `latency`: `lob-trace 5 12`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("--help", "-h")):
            args = ["latency", *args]
        return super().parse_args(ctx, args)


@click.group(cls=Verbs, epilog=EPILOG, context_settings={"max_content_width": 100})
def command() -> None:
    """See what the pipelines of this host do.

    \b
    lob-trace [INTERVAL [COUNT]] [--instance NAME]    latency by stage, from the stamps in the records
    lob-trace rings [--json]                          rings, fill, rates, owners, readers, connections
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
    if interval <= 0:
        raise click.BadParameter("more than 0 seconds", param_hint="INTERVAL")
    once = ctx.get_parameter_source("interval") is click.core.ParameterSource.DEFAULT
    left = 1 if once else count
    watch = Watch(instance, lambda sentence: say(TOOL, sentence))
    if not watch.readers and left is not None:
        of = "" if instance is None else f" of instance {instance}"
        raise RingError(f"no book or public ring{of} on this host; is a pipeline with lob-book running?")
    deadline = time.monotonic()
    try:
        while left is None or left > 0:
            started, deadline = deadline, deadline + interval
            watch.until(deadline)
            _report(watch, deadline - started, _as_json(as_json))
            left = None if left is None else left - 1
    except KeyboardInterrupt:
        pass
    return 0


def _report(watch: Watch, seconds: float, as_json: bool) -> None:
    for reader in watch.readers:
        measured, lost = reader.take()
        about = {"ring": reader.name, "interval_s": round(seconds, 3), "records": measured.records, "lost": lost}
        rows = [{**about, **asdict(row)} for row in measured.rows()]
        _print([_json(row) for row in rows] if as_json else [*show.latency(reader.name, rows, seconds), ""])


@command.command()
@click.option("--instance", type=Instance(), help="Of this pipeline only  [default: all]")
@click.option("--apart", type=Seconds(), default=0.5, show_default="500ms", help="Time between the two looks for rates")
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
