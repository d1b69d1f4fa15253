"""The manifest of a ring: what its writer tells of it beside the records."""

from __future__ import annotations

from typing import Any

import orjson

from lob import _native
from lob.errors import RingError, WrongLayout
from lob.segments import open_segment


def read_manifest(segment: _native.Segment) -> dict[str, Any]:
    """The manifest as a dict; {} if there is none. Raises WrongLayout if it is corrupt."""
    try:
        text = segment.read_manifest()
        manifest = orjson.loads(text) if text else {}
    except (_native.LayoutError, orjson.JSONDecodeError) as error:
        raise WrongLayout(f"a manifest that cannot be read: {error}") from None
    if not isinstance(manifest, dict):
        raise WrongLayout("a manifest that is no object")
    return manifest


def manifest_left_in(name: str | None) -> dict[str, Any]:
    """The manifest of a named ring that is there already; {} if there is none, or no name.

    For who is about to take the ring over: read it before, because taking over writes a manifest, and a crash just
    then must not lose what stood in this one.
    """
    if name is None:
        return {}
    try:
        return read_manifest(open_segment(name, writable=False))
    except RingError:
        return {}
