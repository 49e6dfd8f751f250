"""DANDI's part rule and etag against values that dandischema gave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallfs.digest.dandi_etag import MAX_FILE_BYTES, MAX_PARTS, DandiEtag, part_bytes
from recallfs.errors import InvalidInputError

MIB = 1024**2


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [
        (0, 64 * MIB),
        (64 * MIB + 1, 64 * MIB),
        (9_999 * 64 * MIB, 64 * MIB),
        (9_999 * 64 * MIB + 1, 67_102_154),
        (10_000 * 64 * MIB, 64 * MIB),
        (10_000 * 64 * MIB + 1, 67_108_865),
        (1024**4, 109_951_163),
        (5 * 1024**4, 549_755_814),
    ],
)
def test_part_length_is_that_of_dandischema(size_bytes: int, expected: int) -> None:
    """Part lengths equal dandischema's, also where its rule shrinks or enlarges them."""
    assert part_bytes(size_bytes) == expected


@given(st.integers(min_value=1, max_value=MAX_FILE_BYTES))
def test_no_file_has_too_many_parts(size_bytes: int) -> None:
    """S3 refuses more than 10,000 parts, so no size that DANDI takes may give more."""
    assert -(-size_bytes // part_bytes(size_bytes)) <= MAX_PARTS


def test_file_beyond_the_limit_is_refused() -> None:
    """A file that DANDI cannot hold has no etag, rather than a made-up one."""
    with pytest.raises(InvalidInputError):
        part_bytes(MAX_FILE_BYTES + 1)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "d41d8cd98f00b204e9800998ecf8427e-0"),
        (b"abc", "af5da9f45af7a300e3aded972f8ff687-1"),
        (bytes(64 * MIB), "a78211a9709e5a28de9e2fd6eda275f2-1"),
        (bytes(range(256)) * (4 * 130 * 1024), "07e5bf2939955b160b7e0e82733ab38a-3"),
    ],
    ids=["empty", "abc", "one-full-part", "three-parts"],
)
def test_etag_is_that_of_dandischema(content: bytes, expected: str) -> None:
    """Etags equal dandischema's for no, one and several parts, whatever the pieces."""
    etag = DandiEtag(len(content))
    view = memoryview(content)
    piece_bytes = 40 * MIB + 1  # so that pieces straddle parts
    for start in range(0, len(view), piece_bytes):
        etag.update(view[start : start + piece_bytes])
    assert etag.text() == expected
