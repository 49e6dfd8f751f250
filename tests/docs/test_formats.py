"""The pages of the formats are true: golden files are read by what the pages say, and no more."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import blake3
import pytest
import zstandard

from pages import REPOSITORY

FORMATS = REPOSITORY / "docs" / "reference" / "formats"
SKELETONS = REPOSITORY / "tests" / "skeleton" / "golden"
SIDECARS = sorted((REPOSITORY / "tests" / "catalog" / "data").glob("*.rsc1"))
RESULT = REPOSITORY / "tests" / "resolve" / "golden" / "rdk1-1.json"


def page(name: str) -> str:
    """Return the text of a format's page."""
    return (FORMATS / f"{name}.md").read_text("utf-8")


def rows(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading."""
    section = re.split(r"\n#", text.partition(f"# {heading}\n")[2])[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line[1:].rstrip("|").split("|")] for line in lines[2:]]


def keys(text: str, heading: str) -> set[str]:
    """Return the names in the first column of a table."""
    return {name for row in rows(text, heading) for name in re.findall(r"`([\w-]+)`", row[0])}


def canonical(value: Any) -> bytes:
    """Write JSON as the pages define it."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def read_record(name: str, data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read a record as the page on skeletons tells it: magic, version, header, sections, digest."""
    magic = bytes.fromhex(re.search(r"`(89 [0-9A-F ]+)`", page(name))[1])  # type: ignore[index]
    assert data[:8] == magic
    assert int.from_bytes(data[8:12], "little") == 1
    assert data[-32:] == blake3.blake3(data[:-32]).digest()
    length = int.from_bytes(data[12:16], "little")
    header = json.loads(data[16 : 16 + length])
    assert data[16 : 16 + length] == canonical(header)
    at, sections = 16 + length, {}
    for section in header["sections"]:
        stored = data[at : at + section["stored_bytes"]]
        plain = zstandard.ZstdDecompressor().decompress(stored)
        assert len(plain) == section["plain_bytes"]
        sections[section["name"]] = plain
        at += section["stored_bytes"]
    assert at == len(data) - 32
    return header, sections


def test_rsk1() -> None:
    """A skeleton has the parts, keys and lengths of its page, and tells where each byte belongs."""
    text = page("rsk1")
    header, sections = read_record("rsk1", (SKELETONS / "rsk1-version-1.bin").read_bytes())
    assert set(header) == keys(text, "The header")
    assert set(sections) <= keys(text, "The sections")
    datasets = json.loads(sections["datasets"])
    n = sum(each["n_pieces"] for each in datasets)
    ranks = sum(len(each["shape"]) * each["n_pieces"] for each in datasets)
    extents = len(sections["extents"]) // 16
    told = {row[0].strip("`"): row[1] for row in rows(text, "The sections")}
    for name, section in sections.items():
        if told[name]:
            size, counted = told[name].replace("*", "").split(" x ")
            count = {"n": n, "extents": extents, "sum of ranks": ranks}[counted]
            assert len(section) == int(size) * count, name
    numbers = [
        int.from_bytes(sections["extents"][at : at + 8], "little")
        for at in range(0, len(sections["extents"]), 8)
    ]
    sizes = [
        int.from_bytes(sections["piece-sizes"][at : at + 8], "little") for at in range(0, 8 * n, 8)
    ]
    assert sum(numbers[1::2]) == len(sections["retained"])
    assert sum(numbers[1::2]) + sum(sizes) == header["size_bytes"]


def test_rsd1() -> None:
    """A residual has the parts, keys and lengths of its page."""
    text = page("rsd1")
    header, sections = read_record("rsd1", (SKELETONS / "rsd1-version-1.bin").read_bytes())
    assert set(header) == keys(text, "The header")
    assert set(sections) == keys(text, "The sections")
    n = len(sections["pieces"]) // 8
    assert n > 0
    assert len(sections["recomputed-digests"]) == 32 * n
    sizes = sections["frame-sizes"]
    assert len(sizes) == 8 * n
    total = sum(int.from_bytes(sizes[at : at + 8], "little") for at in range(0, 8 * n, 8))
    assert len(sections["frames"]) == total


@pytest.mark.parametrize("path", SIDECARS, ids=lambda path: path.stem)
def test_rsc1(path: Path) -> None:
    """A sidecar has the keys of its page, and is digested as it says."""
    text = page("rsc1")
    record = json.loads(path.read_text("utf-8"))
    assert list(record) == ["format", "digest", "body"]
    assert record["digest"] == blake3.blake3(canonical(record["body"])).hexdigest()
    told = keys(text, "The body")
    optional = {row[0].strip("`") for row in rows(text, "The body") if "optional:" in row[1]}
    assert told - optional <= set(record["body"]) <= told
    for heading, found in (
        ("`entry`", [record["body"]["entry"]]),
        ("One of `derivations`", record["body"]["derivations"]),
        ("One of `proofs`", record["body"]["proofs"]),
        ("One of `copies`", record["body"]["copies"]),
    ):
        known = keys(text, heading)
        assert known, heading
        for item in found:
            assert set(item) <= known, heading


def test_rdk1() -> None:
    """A record of a derivation's result has the keys of its page, and is digested as it says."""
    text = page("rdk1")
    record = json.loads(RESULT.read_text("utf-8"))
    assert set(record) == {"format", "digest", "body"}
    assert record["digest"] == blake3.blake3(canonical(record["body"])).hexdigest()
    tables = re.split(r"\n\| key of an output", text.partition("## Layout")[2])
    body, output = (set(re.findall(r"^\| `(.*?)` \|", part, re.M)) for part in tables)
    extra = set(re.findall(r"`, `(\w+)`", "".join(re.findall(r"^\| .*? \|", text, re.M))))
    assert set(record["body"]) <= {name for key in body for name in key.split("`, `")} | extra
    for each in record["body"]["outputs"].values():
        assert set(each) == {name for key in output for name in key.split("`, `")}


def test_b3b1() -> None:
    """The vectors on the page follow from its layout."""
    vectors = dict(re.findall(r"^\| (.*?) \| (.*?) \|$", page("b3b1"), re.M))
    block = 4_194_304
    for name, content in (("`abc`", b"abc"), ("4,194,304 zero bytes", bytes(block))):
        digests = b"".join(
            blake3.blake3(content[at : at + block]).digest() for at in range(0, len(content), block)
        )
        assert vectors[name].strip("`") == digests.hex()
    assert blake3.blake3(b"\0").hexdigest() in vectors["4,194,305 zero bytes"]
