"""Everything known about venues: one file each, one line each in the table below."""

from __future__ import annotations

from importlib import import_module

from lob.venues.venue import Venue

# name -> module; a module holds one class `Exchange`. Loaded when asked for: a venue not used costs nothing.
MODULES = {
    "binance": "lob.venues.binance",
    "binance-usdm": "lob.venues.binance_usdm",
    "coinbase": "lob.venues.coinbase",
    "kraken": "lob.venues.kraken",
}


class UnknownVenue(ValueError):
    """No file for a venue of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no venue named '{name}'; known: {', '.join(sorted(MODULES))}")
        self.name = name


def load(name: str) -> Venue:
    """The venue of that name. Raises UnknownVenue."""
    if name not in MODULES:
        raise UnknownVenue(name)
    venue: Venue = import_module(MODULES[name]).Exchange()
    return venue


def of_url(url: str) -> Venue | None:
    """The venue whose hosts match the URL of a connection or request."""
    for name in MODULES:
        venue = load(name)
        if venue.recognises(url):
            return venue
    return None
