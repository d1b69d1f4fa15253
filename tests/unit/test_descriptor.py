"""The line on the pipe: read back as it was written, and any other line refused in one sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lob.descriptor import Descriptor


def test_a_descriptor_survives_the_pipe() -> None:
    line = Descriptor("/lob.a.raw", "spsc", "binance", "drop", 7).line()
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert Descriptor.parse(line) == Descriptor("/lob.a.raw", "spsc", "binance", "drop", 7)


@given(st.binary(max_size=60) | st.sampled_from([b"5", b"[]", b"{}", b'{"lob":1}', b'{"lob":1,"ring":5}', b"null"]))
def test_any_other_line_is_one_sentence(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"no line of|format|no ring name"):
        Descriptor.parse(line)


def test_a_descriptor_of_another_format_names_both() -> None:
    with pytest.raises(ValueError, match="format 2, this build reads 1"):
        Descriptor.parse(b'{"lob":2}')
