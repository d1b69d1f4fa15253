"""Command line of lob-publish."""

from __future__ import annotations

import sys
from typing import Any

import click

from lob.options import EXIT_STATUS, Size, common, common_options, run_cli
from lob_publish._native import WORKERS_MAX
from lob_publish.settings import DEFAULT_RING_BYTES, Settings

TOOL = "lob-publish"


@click.command(epilog=EXIT_STATUS)
@click.option("--to", "to", multiple=True, metavar="URI", help="Where to; any number  [default: see above]")
@click.option("--ring-bytes", type=Size(), help="Size of a public ring, a power of two  [default: 16M]")
@click.option(
    "--workers",
    type=click.IntRange(0, WORKERS_MAX),
    default=0,
    show_default=True,
    help="Processes that format and write NDJSON; 0: lob-publish itself",
)
@common_options(writes=False)
def command(to: tuple[str, ...], **options: Any) -> int:
    """Send the records of lob-book's ring to subscribers.

    \b
    --to ndjson:-          one JSON object a line on stdout (the default in a pipe)
    --to ndjson:FILE       the same into a file; with --in it is appended to
    --to table:            a live table (the default on a terminal)
    --to shm:              a public ring, /lob.INSTANCE.public, for lob.subscribe
    --to shm:/lob.X.public a public ring of that name; with ?policy=wait its
                           registered readers are waited for, else they may be lapped

    With --workers N every record is formatted and written by exactly one of N
    processes; ndjson:out.ndjson becomes out.1.ndjson ... out.N.ndjson, and only
    "seq" tells the order. shm: and table: stay as they are.

    A sink that fails is named and closed; the others go on. When none is left the
    exit status is 1 (0 if the reader of stdout just went away).

    \b
    Examples:
      lob-connect binance BTCUSDT | lob-parse | lob-book | lob-publish
      ... | lob-publish | jq -c 'select(.type == "bbo") | [.symbol, .bid[0], .ask[0]]'
      ... | lob-publish --to shm: --to ndjson:today.ndjson
      lob-publish --in /lob.binance.book --to shm:    # as a service: rings outlive it
      lob-publish --in /lob.binance.book --to ndjson:all.ndjson --workers 4
    """
    from lob_publish.run import run

    ring_bytes = options.pop("ring_bytes", None)
    workers = options.pop("workers")
    settings = Settings(
        common=common(options),
        to=to or (("table:",) if sys.stdout.isatty() else ("ndjson:-",)),
        ring_bytes=ring_bytes or DEFAULT_RING_BYTES,
        workers=workers,
    )
    return run(settings)


def main() -> None:
    run_cli(TOOL, command)
