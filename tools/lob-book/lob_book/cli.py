"""Options of lob-book -> Settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lob.options import EXIT_STATUS, Seconds, common, common_options, run_cli
from lob_book.settings import Settings


def in_a_folder(_context: click.Context, _option: click.Parameter, path: Path | None) -> Path | None:
    """A summary is written after a day's work: a folder that is not there is said before it."""
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"there is no folder {path.parent}")
    return path


@click.command(
    context_settings={"max_content_width": 100},
    epilog=EXIT_STATUS
    + """

\b
Examples:
  lob-connect binance BTCUSDT | lob-parse | lob-book
  lob-connect kraken BTC/USD | lob-parse | lob-book --print | jq 'select(.type == "bbo")'
  lob-connect binance --replay btc.jsonl.zst | lob-parse | lob-book --summary books.json >/dev/null
  lob-book --in /lob.binance.events --out /lob.binance.book
""",
)
@click.option(
    "--depth",
    type=click.IntRange(1, 1 << 20),
    default=65536,
    show_default=True,
    metavar="LEVELS",
    help="Levels kept a side; the farthest fall off",
)
@click.option(
    "--refresh",
    "refresh_s",
    type=Seconds(),
    default=10.0,
    help="Repeat each book's full snapshot so often, for late readers; 0: never  [default: 10s]",
)
@click.option(
    "--board-depth",
    type=click.IntRange(1, 4096),
    default=20,
    show_default=True,
    metavar="LEVELS",
    help="Levels a side on the board",
)
@click.option(
    "--board-slots",
    type=click.IntRange(1, 1 << 20),
    default=1024,
    show_default=True,
    metavar="COUNT",
    help="Instruments that the board has room for",
)
@click.option(
    "--summary",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=in_a_folder,
    metavar="FILE",
    help="At the end write states, counts and best levels of all books as JSON",
)
@click.option(
    "--summary-depth",
    type=click.IntRange(0, 1 << 20),
    default=10,
    show_default=True,
    metavar="LEVELS",
    help="Levels a side in the summary",
)
@common_options()
def command(refresh_s: float, **options: Any) -> int:
    """Keep one exact order book an instrument.

    Reads a ring of events, from the line on stdin or --in, and writes a ring of books (snapshots, what each message
    changed, the best prices when they move, trades, states) and the board beside it, where every book's best levels
    lie in shared memory. A book that may be wrong is called stale at once and asks for a new snapshot.

    On a terminal it draws a table of the best prices. For `| jq` give --print: into a pipe goes one line that names
    the ring.
    """
    from lob_book.run import BookStage  # native code is loaded by who runs, not by --help

    settings = Settings(common=common(options), refresh_ns=round(refresh_s * 1e9), **options)
    return BookStage(settings).run()


def main() -> None:
    run_cli("lob-book", command)


if __name__ == "__main__":
    main()
