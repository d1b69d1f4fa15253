"""Switches the trace points of a pipeline's running stages. Writes one word of each trace."""

from __future__ import annotations

from lob.errors import RingError
from lob.trace import list_traces, open_trace


class NothingToSwitch(RingError):
    """No stage of that instance has a trace."""


def switch(instance: str, on: bool) -> list[str]:
    """Names of the traces switched. Raises RingError kinds."""
    names = list_traces(instance)
    if not names:
        raise NothingToSwitch(f"no stage of instance {instance} is traced; is it running, and no LITE build?")
    for name in names:
        open_trace(name, writable=True).switch_to(on)
    return names
