"""The checksum of HDF5's metadata."""

from __future__ import annotations

import pytest

from recallfs.skeleton.consistency import lookup3


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0xDEADBEEF), ("Four score and seven years ago", 0x17770551)],
)
def test_lookup3_is_jenkins(text: str, expected: int) -> None:
    """The values that Bob Jenkins' own test program prints come out."""
    assert lookup3(text.encode()) == expected
