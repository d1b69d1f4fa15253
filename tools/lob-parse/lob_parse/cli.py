"""Command line of lob-parse: options in, `run` does the rest."""

from __future__ import annotations

from typing import Any

import click

from lob.options import EXIT_STATUS, common, common_options, run_cli


@click.command(
    epilog=EXIT_STATUS
    + """

\b
Examples:
  lob-connect binance BTCUSDT | lob-parse | lob-book
  lob-connect binance --replay FILE | lob-parse --print | jq .type
  lob-parse --in /lob.kraken.raw --out /lob.kraken.events
"""
)
@common_options()
def command(**options: Any) -> int:
    """Turn a venue's messages into events of one format.

    Reads a ring of raw messages, from the line on stdin or --in, and writes a ring of snapshots, diffs, trades and
    best prices with exact integers. The venue is the one that the ring names; what its messages look like stands in
    lob/venues.
    """
    from lob_parse.run import ParseStage  # native code is loaded by who runs, not by --help

    return ParseStage(common(options)).run()


def main() -> None:
    run_cli("lob-parse", command)


if __name__ == "__main__":
    main()
