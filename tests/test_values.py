"""Paths, addresses, sizes, times and JSON: the one form of each, and what is refused."""

from __future__ import annotations

import json
import math
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallfs.errors import InvalidInputError
from recallfs.values import (
    Identity,
    Metadata,
    RecallURL,
    after,
    canonical_json,
    display_name,
    format_size,
    normalise_path,
    now_utc,
    parent_of,
    parse_size,
    parse_span,
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", ""),
        ("/", ""),
        (".", ""),
        ("a", "a"),
        ("/a//b/./c/", "a/b/c"),
        ("a b/ c ", "a b/ c "),
        ("Größe/ω.nwb", "Größe/ω.nwb"),
        ("...", "..."),
        ("a/..b/c..", "a/..b/c.."),
        ("a\nb", "a\nb"),
        (".recallx/a", ".recallx/a"),
        ("a\\b", "a\\b"),
        ("x" * 255, "x" * 255),
    ],
)
def test_paths_have_one_form(path: str, expected: str) -> None:
    """Slashes and dots are tidied; the names themselves are left alone."""
    assert normalise_path(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "a/../b",
        "../a",
        "a/..",
        "a\0b",
        "\0",
        "x" * 256,
        "ω" * 128,  # 256 bytes
        ".recall",
        "/.recall/",
        "./.recall/store.toml",
        ".recall/entries",
        "\udcff",  # a byte that is not UTF-8, as Python spells it
        "a/\ud800",
    ],
)
def test_paths_that_are_refused(path: str) -> None:
    """Climbing out, impossible names and our own folder are an error of kind invalid-path."""
    with pytest.raises(InvalidInputError) as caught:
        normalise_path(path)
    assert caught.value.kind == "invalid-path"


@given(st.text())
def test_normalising_twice_changes_nothing(path: str) -> None:
    """Any text is either refused or brought to a form that stays, inside the root."""
    try:
        once = normalise_path(path)
    except InvalidInputError:
        return
    assert normalise_path(once) == once
    assert os.path.normpath("/r/" + once).startswith("/r")
    assert not once.startswith("/")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("recall://lab/a/b.nwb", ("lab", "a/b.nwb")),
        ("lab/a/b.nwb", ("lab", "a/b.nwb")),
        ("recall://lab", ("lab", "")),
        ("recall://lab/", ("lab", "")),
        ("recall://lab//a//b/", ("lab", "a/b")),
        ("recall://my-lab.2/ω b", ("my-lab.2", "ω b")),
        ("recall://lab/a%20b#c?d", ("lab", "a%20b#c?d")),
    ],
)
def test_addresses_are_split(url: str, expected: tuple[str, str]) -> None:
    """Store and path come apart; nothing is percent-decoded, since names may hold anything."""
    parsed = RecallURL.parse(url)
    assert (parsed.store, parsed.path) == expected
    assert RecallURL.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "url", ["", "recall://", "recall:///", "recall:///a/b", "recall://lab/../x", "recall://lab/a\0"]
)
def test_addresses_that_are_refused(url: str) -> None:
    """No store, or a malformed path, is an error of kind invalid-path."""
    with pytest.raises(InvalidInputError) as caught:
        RecallURL.parse(url)
    assert caught.value.kind == "invalid-path"


def test_parents() -> None:
    """The parent of a path at the top is the root, which is the empty text."""
    assert parent_of("a/b/c") == "a/b"
    assert parent_of("a") == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1500", 1500),
        ("1 B", 1),
        ("1k", 1000),
        ("1.5GB", 1_500_000_000),
        (" 4 MiB ", 4_194_304),
        ("1tib", 2**40),
        ("9007199254740993", 2**53 + 1),  # what a float cannot hold
        ("0.1GB", 100_000_000),
    ],
)
def test_sizes_are_read(text: str, expected: int) -> None:
    """Units of 1000 and of 1024, any case, no rounding."""
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1", "1 XB", "1,5GB", "1e3", "inf", "nan", "1 G B"])
def test_sizes_that_are_refused(text: str) -> None:
    """What is not a size is an error that shows how one is written."""
    with pytest.raises(InvalidInputError, match="500MB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0s", timedelta(0)),
        ("90s", timedelta(seconds=90)),
        ("1.5h", timedelta(minutes=90)),
        ("2 m", timedelta(minutes=2)),
        ("7d", timedelta(days=7)),
        ("2W", timedelta(days=14)),
        ("1y", timedelta(days=365.25)),
    ],
)
def test_lengths_of_time_are_read(text: str, expected: timedelta) -> None:
    """Every unit is read; m is minutes."""
    assert parse_span(text) == expected


@pytest.mark.parametrize("text", ["", "7", "d", "-7d", "7 days", "1e9d", "9" * 30 + "y"])
def test_lengths_of_time_that_are_refused(text: str) -> None:
    """No unit, an unknown one or more than a timedelta holds is an error of ours."""
    with pytest.raises(InvalidInputError):
        parse_span(text)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (95_300_000, "95.3 MB"),
        (999_999, "1.0 MB"),
        (999_499, "999.5 kB"),
        (-1500, "-1.5 kB"),
        (12_345 * 10**12, "12345.0 TB"),
    ],
)
def test_sizes_for_people(size: int, expected: str) -> None:
    """Three digits and a unit, never '1000.0 kB'."""
    assert format_size(size) == expected


def test_moments_sort_as_text() -> None:
    """Times are UTC to the microsecond, so that comparing text compares time."""
    first = now_utc()
    assert len(first) == 32
    assert first.endswith("+00:00")
    assert first < after(first, timedelta(microseconds=1)) < after(first, timedelta(days=1))
    assert after("2024-03-01T00:30:00+01:00", timedelta(hours=1)) == (
        "2024-03-01T00:30:00.000000+00:00"
    )


def test_a_time_too_far_away_is_the_last_one() -> None:
    """A span that no date can hold means 'always', not an error in the middle of a release."""
    assert after(now_utc(), parse_span("99999y")) == "9999-12-31T23:59:59.999999+00:00"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": [True, None, "ω"]}, '{"a":[true,null,"ω"],"b":1}'),
        ({"Z": 1, "a": 2, "é": 3}, '{"Z":1,"a":2,"é":3}'),
        (1.0, "1.0"),
        (1e-13, "1e-13"),
        ('"\n', '"\\"\\n"'),
    ],
)
def test_canonical_json_has_one_form(value: Any, expected: str) -> None:
    """Sorted keys, no spaces, UTF-8: the bytes that digests are taken of, written out here."""
    assert canonical_json(value) == expected.encode()


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, {"a": -math.inf}, {1, 2}, b"x", {("a",): 1}, "\ud800", {"a": 1, 2: 3}],
    ids=repr,
)
def test_what_is_no_json_is_refused(value: Any) -> None:
    """NaN, infinities, bytes, sets and broken text never get into a digest."""
    with pytest.raises(InvalidInputError):
        canonical_json(value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), inner
    ),
    max_leaves=10,
)  # fmt: skip


@given(_JSON)
def test_canonical_json_survives_reading(value: Any) -> None:
    """Reading the canonical form and writing it again gives the same bytes and the same value."""
    encoded = canonical_json(value)
    assert json.loads(encoded) == value
    assert canonical_json(json.loads(encoded)) == encoded


def test_names_cannot_drive_a_terminal() -> None:
    """Escape sequences and line ends are replaced; other letters stay."""
    assert display_name("a\x1b[31m\nω\x9b b") == "a\ufffd[31m\ufffdω\ufffd b"


def test_identity_and_metadata_are_what_the_system_says(tmp_path: Path) -> None:
    """Both are taken from a stat result; permission bits include setgid but not the file type."""
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    file.chmod(0o2640)
    os.utime(file, ns=(1, 1_700_000_000_123_456_789))
    status = file.stat()
    metadata, identity = Metadata.from_stat(status), Identity.from_stat(status)
    assert (metadata.mode, metadata.mtime_ns) == (0o2640, 1_700_000_000_123_456_789)
    assert (metadata.uid, metadata.gid) == (os.getuid(), os.getgid())
    assert (identity.inode, identity.size_bytes) == (status.st_ino, 3)
    os.utime(file, ns=(1, 1_700_000_000_123_456_790))
    assert Identity.from_stat(file.stat()) != identity
