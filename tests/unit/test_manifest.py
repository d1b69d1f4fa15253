"""The manifest: whole or refused, whatever its writer was doing when it died."""

from __future__ import annotations

import struct

import pytest

from lob.errors import WrongLayout
from lob.manifest import read_manifest
from lob.rings import InputRing, OutputRing
from lob.segments import Kind
from poke import MANIFEST, Poke

CAPACITY = 4096


def test_a_manifest_is_read_whole_while_the_next_one_is_half_written(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY, manifest={"n": 0})
    reader = InputRing(name, "test")
    for n in range(1, 6):
        assert reader.manifest == {"n": n - 1}
        version = reader.manifest_version
        # The half that comes next is being written when its writer dies.
        half = MANIFEST + ((version + 1) & 1) * (1 << 19)
        Poke(name).bytes[half : half + 64] = b"\xee" * 64
        assert read_manifest(ring.segment) == {"n": n - 1}
        ring.manifest["n"] = n
        ring.write_manifest()
        assert reader.manifest_version == version + 1


def test_a_corrupt_manifest_is_refused_in_words(name: str) -> None:
    ring = OutputRing(name, Kind.SPSC, capacity_bytes=CAPACITY, manifest={"n": 0})
    half = MANIFEST + (ring.segment.manifest_version & 1) * (1 << 19)
    for text, size in ((b"[1, 2]  ", 6), (b'{"n": 0 ', 8), (b"\xff\xff\xff\xff    ", 4)):
        Poke(name).bytes[half : half + 8] = struct.pack("<II", size, ~size & 0xFFFFFFFF)
        Poke(name).bytes[half + 16 : half + 24] = text
        with pytest.raises(WrongLayout, match="a manifest"):
            read_manifest(ring.segment)
    Poke(name).bytes[half : half + 8] = b"\xff" * 8
    with pytest.raises(WrongLayout, match="corrupt manifest"):
        read_manifest(ring.segment)
