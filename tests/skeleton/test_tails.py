"""Checksums of what chunks were once, worked out without encoding them."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from recallfs.skeleton.tails import EndingFinder, Grown, common_suffix, earlier_checksums

RNG = np.random.default_rng(4)


@pytest.mark.parametrize("is_shuffled", [False, True])
@pytest.mark.parametrize(
    ("count", "chunk_shape"),
    [((7, 3), (10, 4)), ((20,), (20,)), ((5, 2, 3), (5, 2, 3)), ((1,), (9,)), ((900, 600),) * 2],
)
def test_checksums_are_those_of_the_shorter_chunks(
    count: tuple[int, ...], chunk_shape: tuple[int, ...], is_shuffled: bool
) -> None:
    """Each equals the Adler-32 of the chunk as HDF5 hands it to gzip, padding included."""
    values = RNG.integers(0, 2**15, count).astype("<i2")
    fill = np.frombuffer(np.int16(-3).tobytes(), np.uint8)
    flat = np.frombuffer(values.tobytes(), np.uint8)
    found = earlier_checksums(flat, fill, count, chunk_shape, is_shuffled=is_shuffled)
    for rows in {1, (count[0] + 1) // 2, count[0]}:
        whole = np.full(chunk_shape, -3, "<i2")
        whole[(slice(rows), *map(slice, count[1:]))] = values[:rows]
        plain = np.frombuffer(whole.tobytes(), np.uint8).reshape(-1, 2)
        expected = zlib.adler32((plain.T if is_shuffled else plain).tobytes())
        assert expected == found[rows - 1]


def test_endings_are_found_at_any_place() -> None:
    """Also across the blocks that a large part is searched in; each with all its candidates."""
    first, second = Grown(0, 5, np.array([11, 22, 33], "u4")), Grown(3, 1, np.array([22], "u4"))
    content = bytearray(3 << 20)
    for place, value in ((0, 11), ((1 << 20) - 2, 22), (len(content) - 4, 33)):
        content[place : place + 4] = value.to_bytes(4, "big")
    found = list(EndingFinder([first, second]).search(1000, bytes(content)))
    assert [(one.offset - 1000, one.candidates) for one in found] == [
        (4, ((0, 5, 1),)),
        ((1 << 20) + 2, ((0, 5, 2), (3, 1, 1))),
        (len(content), ((0, 5, 3),)),
    ]
    assert list(EndingFinder([]).search(0, bytes(100))) == []


def test_a_short_common_end_is_none() -> None:
    """A few equal bytes are chance, and not worth a piece."""
    end = RNG.bytes(100)
    assert common_suffix(b"a" + end, b"bb" + end) == 100
    assert common_suffix(end, b"bb" + end) == 100
    assert common_suffix(b"a" + end[-50:], b"b" + end[-50:]) == 0
