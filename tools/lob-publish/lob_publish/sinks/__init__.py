"""Where records go. A URI's scheme names a class; each sink has its own fate and counts what it did."""

from __future__ import annotations

from importlib import import_module

import click

from lob_publish.sinks.sink import Counts, Place, ReaderLeft, Sink, SinkFailed

# Scheme -> module and class: what a sink needs is loaded only by who asks for it.
SCHEMES: dict[str, tuple[str, str]] = {
    "ndjson": ("lob_publish.sinks.ndjson", "NdjsonSink"),
    "shm": ("lob_publish.sinks.shm", "ShmSink"),
    "table": ("lob_publish.sinks.table", "TableSink"),
}

__all__ = ["SCHEMES", "Counts", "Place", "ReaderLeft", "Sink", "SinkFailed", "make_sinks"]


def make_sinks(uris: tuple[str, ...]) -> list[Sink]:
    """One sink a URI, not open yet. Raises click.UsageError for what is none, or is there twice."""
    sinks: list[Sink] = []
    for uri in dict.fromkeys(uris):
        scheme, colon, rest = uri.partition(":")
        if not colon or scheme not in SCHEMES:
            known = ", ".join(f"{name}:" for name in SCHEMES)
            raise click.UsageError(f"--to '{uri}': no such sink; there are {known}")
        module, name = SCHEMES[scheme]
        try:
            sinks.append(getattr(import_module(module), name)(uri, rest))
        except ValueError as error:
            raise click.UsageError(f"--to {uri}: {error}") from None
    if sum(sink.uses_stdout for sink in sinks) > 1:
        raise click.UsageError("--to: only one sink can have stdout")
    return sinks
