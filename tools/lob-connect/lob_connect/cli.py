"""Options of lob-connect -> Settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NoReturn

import click

from lob import venues
from lob.options import EXIT_STATUS, ParamType, Size, common, common_options, run_cli
from lob.records import SYMBOL_MAX_BYTES
from lob_connect import run
from lob_connect.settings import Settings

OWN_OPTIONS = (
    "speed",
    "record",
    "url",
    "rest_url",
    "depth",
    "streams_per_connection",
    "ca",
    "transport",
    "busy_poll",
    "rcvbuf",
)

EXAMPLES = """\b
Examples:
  lob-connect binance BTCUSDT ETHUSDT | lob-parse | lob-book --print
  lob-connect kraken BTC/USD --print | head -5
  lob-connect binance BTCUSDT --record btc.jsonl.zst --for 10m >/dev/null
  lob-connect binance --replay btc.jsonl.zst | lob-parse | lob-book --print"""


class Speed(ParamType):
    """max, real, or how many times as fast."""

    name = "max|real|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        if value == "max":
            return None
        if value == "real":
            return 1.0
        if not re.fullmatch(r"\d+(\.\d+)?", str(value)) or float(value) == 0:
            self.fail(f"'{value}' is no speed: max, real, or how many times as fast, e.g. 10 or 0.5", param, ctx)
        return float(value)


class Url(ParamType):
    """A URL of one of two schemes."""

    name = "url"

    def __init__(self, *schemes: str) -> None:
        self._schemes = schemes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        scheme, mark, rest = str(value).partition("://")
        if scheme not in self._schemes or not mark or not rest:
            self.fail(f"'{value}' is no URL that begins with {':// or '.join(self._schemes)}://", param, ctx)
        return str(value)


@click.command(
    context_settings={"max_content_width": 100},
    epilog=f"{EXIT_STATUS}\n\n{EXAMPLES}",
)
@click.argument("venue")
@click.argument("symbols", nargs=-1, metavar="[SYMBOL]...")
@click.option(
    "--replay",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read recordings instead of the network; further files may follow as arguments",
)
@click.option("--speed", type=Speed(), default="max", show_default=True, help="Of a replay: how fast")
@click.option(
    "--record",
    metavar="FILE",
    help="Record what is received and sent; .gz and .zst compress; %Y%m%dT%H%M%S and the like are filled in (UTC)",
)
@click.option("--url", type=Url("wss", "ws"), help="WebSocket address  [default: the venue's]")
@click.option("--rest-url", type=Url("https", "http"), help="Address for REST requests  [default: the venue's]")
@click.option("--depth", type=click.IntRange(0), help="Levels a side to ask for  [default: the venue's]")
@click.option(
    "--streams-per-connection", type=click.IntRange(1), help="Symbols on one connection  [default: the venue's]"
)
@click.option(
    "--ca", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Trust this CA (PEM) and no other"
)
@click.option(
    "--transport",
    type=click.Choice(["native", "websockets"]),
    help="What reads the frames of the WebSocket  [default: native; the other is for comparison]",
)
@click.option("--busy-poll", is_flag=True, help="Poll the sockets without sleep; takes a core of its own")
@click.option(
    "--rcvbuf",
    type=Size(),
    help="Receive buffer of a socket, a power of two, e.g. 4M  [default: the kernel tunes it]",
)
@common_options(reads=False)
def command(venue: str, symbols: tuple[str, ...], replay: tuple[Path, ...], **options: Any) -> int:
    """Receive the order-book feed of one VENUE, or play recordings of it, into a ring of raw messages.

    Opens WebSockets for the SYMBOLs as the venue spells them, gets snapshots by REST when lob-book asks for one, comes
    back after every cut. Writes one line to stdout that names the ring; pipe it into lob-parse. On a terminal, or with
    --print, the messages themselves are printed (for | jq).
    """
    try:
        loaded = venues.load(venue)
    except venues.UnknownVenue as error:
        raise click.BadParameter(str(error), param_hint="VENUE") from None
    if replay:
        for name in symbols:
            if not Path(name).is_file():
                raise click.UsageError(f"'{name}' is no file, and a replay takes its symbols from the recording")
        replay, symbols = replay + tuple(Path(name) for name in symbols), ()
    for symbol in symbols:
        if not symbol or len(symbol.encode()) > SYMBOL_MAX_BYTES:
            raise click.BadParameter(f"'{symbol}' is no symbol: 1 to {SYMBOL_MAX_BYTES} bytes", param_hint="SYMBOL")
    settings = Settings(
        venue=venue,
        symbols=tuple(dict.fromkeys(symbols)),
        replay=replay,
        **{name: options.pop(name) for name in OWN_OPTIONS},
        common=common(options),
    )
    if replay:
        _refuse_live_options(settings)
        return run.replay(settings, loaded)
    if not symbols:
        raise click.UsageError("no symbols: name one or more, as the venue spells them, or give --replay FILE")
    if settings.speed is not None:
        raise click.UsageError("--speed goes with --replay")
    if settings.url and not settings.rest_url and loaded.snapshot == "rest":
        raise click.UsageError("--url without --rest-url: the snapshots would come from another host")
    if settings.busy_poll and settings.transport == "websockets":
        raise click.UsageError("--busy-poll goes with --transport native")
    return run.live(settings, loaded)


def _refuse_live_options(settings: Settings) -> None:
    given = {
        "--record": settings.record,
        "--url": settings.url,
        "--rest-url": settings.rest_url,
        "--depth": settings.depth,
        "--streams-per-connection": settings.streams_per_connection,
        "--ca": settings.ca,
        "--transport": settings.transport,
        "--busy-poll": settings.busy_poll or None,
        "--rcvbuf": settings.rcvbuf,
    }
    for name, value in given.items():
        if value is not None:
            raise click.UsageError(f"{name} is of no use with --replay")


def main() -> NoReturn:
    run_cli("lob-connect", command)
