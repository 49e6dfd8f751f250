"""The self-digested container: what goes in comes out, and nothing else is accepted."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
import zstandard
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from recallfs.errors import IntegrityError, SchemaVersionError
from recallfs.skeleton.container import pack, unpack

MAGIC = b"\x89TST\r\n\x1a\n"
HEADER = {"requires": [], "size": 3}


@given(sections=st.dictionaries(st.text(max_size=8), st.binary(max_size=200), max_size=4))
def test_sections_come_back(sections: dict[str, bytes]) -> None:
    """Any sections, empty ones too, survive the way through bytes."""
    header, found = unpack(MAGIC, 1, pack(MAGIC, 1, HEADER, sections))
    assert found == sections
    assert header["size"] == 3


def test_every_byte_is_guarded() -> None:
    """A change of any byte, and any truncation, is noticed."""
    record = pack(MAGIC, 1, HEADER, {"a": b"x" * 50, "b": b""})
    for position in range(len(record)):
        changed = bytearray(record)
        changed[position] ^= 1 << position % 8
        with pytest.raises(IntegrityError) as caught:
            unpack(MAGIC, 1, bytes(changed))
        assert caught.value.kind == "damaged-record"
        with pytest.raises(IntegrityError):
            unpack(MAGIC, 1, record[:position])
    with pytest.raises(IntegrityError):
        unpack(MAGIC, 1, record + b"\0")


def test_another_kind_of_record_is_refused() -> None:
    """A sound record with another magic is not taken for ours."""
    with pytest.raises(IntegrityError, match="starts with"):
        unpack(MAGIC, 1, pack(b"\x89XXX\r\n\x1a\n", 1, HEADER, {}))


def test_newer_records_are_not_called_damaged() -> None:
    """A newer version, or a feature that is not known, asks for a newer recallfs."""
    with pytest.raises(SchemaVersionError, match="version 2"):
        unpack(MAGIC, 1, pack(MAGIC, 2, HEADER, {}))
    record = pack(MAGIC, 1, {"requires": ["residual"]}, {})
    with pytest.raises(SchemaVersionError, match="residual"):
        unpack(MAGIC, 1, record)
    assert unpack(MAGIC, 1, record, known=frozenset({"residual"}))[1] == {}


def _sealed(header: Any, frames: bytes = b"") -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    record = struct.pack("<8sII", MAGIC, 1, len(encoded)) + encoded + frames
    return record + blake3(record).digest()


FRAME = zstandard.ZstdCompressor().compress(b"12345")


def _row(**changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"name": "a", "plain_bytes": 5, "stored_bytes": len(FRAME)}
    return {"requires": [], "sections": [{**row, **changes}]}


@pytest.mark.parametrize(
    "record",
    [
        _sealed(b"no JSON"),
        _sealed([]),
        _sealed({}),
        _sealed({"requires": [], "sections": [1]}),
        _sealed(_row(), FRAME + b"more"),
        _sealed(_row(), FRAME[:-1]),
        _sealed(_row(plain_bytes=6), FRAME),
        _sealed(_row(plain_bytes="5"), FRAME),
        _sealed(_row(stored_bytes=-1), FRAME),
        _sealed(_row(stored_bytes=None), FRAME),
        _sealed(_row(), b"x" * len(FRAME)),
        b"",
    ],
)
def test_a_sealed_but_wrong_record_is_damaged(record: bytes) -> None:
    """Content that breaks the format is refused although the digest fits."""
    with pytest.raises(IntegrityError) as caught:
        unpack(MAGIC, 1, record)
    assert caught.value.kind == "damaged-record"


def test_the_record_as_the_format_page_describes_it() -> None:
    """Read with nothing but struct, zstandard and blake3, a record holds what was put in."""
    record = pack(MAGIC, 7, HEADER, {"a": b"12345"})
    magic, version, header_bytes = struct.unpack_from("<8sII", record)
    header = json.loads(record[16 : 16 + header_bytes])
    frames = record[16 + header_bytes : -32]
    assert (magic, version) == (MAGIC, 7)
    assert header["sections"] == [{"name": "a", "plain_bytes": 5, "stored_bytes": len(frames)}]
    assert zstandard.decompress(frames) == b"12345"
    assert blake3(record[:-32]).digest() == record[-32:]
