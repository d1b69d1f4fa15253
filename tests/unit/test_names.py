"""Names of rings: which may be, which not."""

from __future__ import annotations

import pytest

from lob.names import check_name, instance_of
from lob.segments import open_segment


@pytest.mark.parametrize("good", ["/lob.binance.raw", "/lob.B-1_x.book-2", "/lob." + "a" * 64 + "." + "b" * 32])
def test_a_name_of_instance_and_what_is_taken(good: str) -> None:
    assert check_name(good) == good
    assert instance_of(good) == good.split(".")[1]


@pytest.mark.parametrize(
    "bad",
    ["", "lob.a.raw", "/lob.a", "/lob.a.raw.lock", "/lob..raw", "/lob.a.RAW", "/lob.a/../b.raw", "/lob.ä.raw",
     "/lob.a.raw\n", "/lob." + "a" * 65 + ".raw", "/.lob.a.raw"],
)  # fmt: skip
def test_any_other_name_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="is no ring name"):
        check_name(bad)
    with pytest.raises(ValueError, match="is no ring name"):
        open_segment(bad, writable=False)
