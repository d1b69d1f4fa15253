"""Run the simulated venue: `python -m exchange`. See --help."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys

from exchange.instrument import UnknownQuote
from exchange.server import Server, Settings
from exchange.venue import SameName

EPILOG = """\
Once it listens it prints one JSON line with its addresses to stdout, then nothing more. It trades until SIGTERM, SIGINT
or --for. `GET /control/help` and `/truth/help` on its port list what tests can order and ask.

exit status: 0 stopped, 1 failed while running (the port is taken), 2 wrong option

examples:
  python -m exchange --symbols BTCUSDT,ETHUSDT --rate 200
  python -m exchange --port 9443 --rate 5000 --seed 11 --for 60
  curl -s http://127.0.0.1:9443/control/drop?n=1
"""


def parse(arguments: list[str] | None) -> tuple[Settings, float]:
    """(settings, seconds to run or 0)."""
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="exchange",
        description="A simulated venue on loopback: Binance spot and USD-M, Kraken v2, Coinbase Advanced.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default=default.host, help="address to bind [%(default)s]")
    add("--port", type=int, default=default.port, help="0 takes a free one [%(default)s]")
    add("--seed", type=int, default=default.seed, help="of the order flow; one seed, one sequence [%(default)s]")
    add("--symbols", default=",".join(default.symbols), help="Binance symbols [%(default)s]")
    add("--rate", type=float, default=default.rate, help="events a second of each symbol [%(default)s]")
    add("--levels", type=int, default=default.levels, help="levels a side around which books stay [%(default)s]")
    add("--max-age", type=float, default=0.0, metavar="SECONDS", help="close connections of this age [never]")
    add("--weight", type=int, default=default.weight, help="spot REST weight a minute [%(default)s]")
    add("--message-limit", type=int, default=0, metavar="N", help="messages a second a client may send [no limit]")
    add("--ping", type=float, default=default.ping_s, metavar="SECONDS", help="between ping frames [%(default)s]")
    add("--tls", metavar="CERT,KEY", help="PEM files; then the addresses are wss and https")
    add("--for", type=float, default=0.0, dest="run_s", metavar="SECONDS", help="stop after this long [never]")
    given = parser.parse_args(arguments)
    tls = tuple(given.tls.split(",")) if given.tls else None
    if tls is not None and len(tls) != 2:
        parser.error("--tls takes CERT,KEY")
    symbols = tuple(filter(None, given.symbols.split(",")))
    if not symbols or given.rate < 0 or not 30 <= given.levels <= 50_000:
        parser.error("at least one symbol, a rate of 0 or more, 30 to 50000 levels")
    settings = Settings(
        host=given.host,
        port=given.port,
        seed=given.seed,
        symbols=symbols,
        rate=given.rate,
        levels=given.levels,
        max_age_s=given.max_age,
        weight=given.weight,
        message_limit=given.message_limit,
        ping_s=given.ping,
        tls=tls if tls is None else (tls[0], tls[1]),
    )
    return settings, given.run_s


async def run(server: Server, run_s: float) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    ready = {
        "pid": os.getpid(),
        "port": server.port,
        **server.addresses(),
        "seed": server.settings.seed,
        "symbols": list(server.settings.symbols),
        "pairs": [market.instrument.pair for market in server.venue.markets],
        "products": [market.instrument.product for market in server.venue.markets],
    }
    print(json.dumps(ready, separators=(",", ":")), flush=True)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), run_s or None)
    await server.stop()


def main(arguments: list[str] | None = None) -> int:
    settings, run_s = parse(arguments)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    try:
        server = Server(settings)
    except (UnknownQuote, SameName) as error:
        print(f"exchange: --symbols: {error}", file=sys.stderr)
        return 2
    try:
        asyncio.run(run(server, run_s))
    except OSError as error:
        print(f"exchange: {settings.host}:{settings.port}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
