"""Selections: URLs, paths, folders and globs."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Lab
from mirrored import released_file
from recallfs.errors import InvalidInputError
from recallfs.resolve.commit import add_existing
from recallfs.resolve.selection import glob_pattern, select


@pytest.fixture
def names(lab: Lab) -> list[str]:
    """Fill a store: one file released, the others here."""
    released_file(lab, "a/far.nwb")
    here = ["a/near.nwb", "a/b/deep.nwb", "a/b/deep.txt", "ab.nwb", "[x].nwb", "é 1.nwb"]
    for name in here:
        (lab.root / name).parent.mkdir(parents=True, exist_ok=True)
        (lab.root / name).write_text(name)
    add_existing(lab.store, here)
    return ["a/far.nwb", *here]


def chosen(lab: Lab, *addresses: str) -> set[str]:
    return {entry.path for _, entry in select(lab.stores, addresses)}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("recall://lab/a/far.nwb", {"a/far.nwb"}),
        ("recall://lab/a", {"a/far.nwb", "a/near.nwb", "a/b/deep.nwb", "a/b/deep.txt"}),
        ("recall://lab/a/", {"a/far.nwb", "a/near.nwb", "a/b/deep.nwb", "a/b/deep.txt"}),
        ("recall://lab/a/*", {"a/far.nwb", "a/near.nwb"}),
        ("recall://lab/a/*.nwb", {"a/far.nwb", "a/near.nwb"}),
        ("recall://lab/a/**/*.nwb", {"a/far.nwb", "a/near.nwb", "a/b/deep.nwb"}),
        ("recall://lab/a/[fn]*ar.nwb", {"a/far.nwb", "a/near.nwb"}),
        ("recall://lab/a/[!f]*.nwb", {"a/near.nwb"}),
        ("recall://lab/a?.nwb", {"ab.nwb"}),
        ("recall://lab/*/*/*", {"a/b/deep.nwb", "a/b/deep.txt"}),
        ("recall://lab/[x].nwb", {"[x].nwb"}),
        ("recall://lab/é 1.nwb", {"é 1.nwb"}),
    ],
)
def test_addresses(lab: Lab, names: list[str], address: str, expected: set[str]) -> None:
    """URLs of files, folders and globs name what a shell would, released files too."""
    assert chosen(lab, address) == expected
    plain = address.replace("recall://lab", str(lab.root), 1)
    assert chosen(lab, plain) == expected


def test_whole_store_and_overlaps(lab: Lab, names: list[str]) -> None:
    """The store itself is a selection, and what several addresses name counts once."""
    assert chosen(lab, "recall://lab") == chosen(lab, str(lab.root)) == set(names)
    found = select(lab.stores, ["recall://lab/a", "recall://lab/**", str(lab.root / "a/far.nwb")])
    assert sorted(entry.path for _, entry in found) == sorted(names)


def test_folder_is_not_a_prefix(lab: Lab, names: list[str]) -> None:
    """The folder ``a`` does not take in ``ab.nwb``."""
    assert "ab.nwb" not in chosen(lab, "recall://lab/a")


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("recall://lab/nothing", "unknown-entry"),
        ("recall://lab/*.zip", "unknown-entry"),
        ("recall://other/x", "unknown-store"),
        ("/", "not-a-store"),
        ("recall://lab/../x", "invalid-path"),
        ("recall://", "invalid-path"),
    ],
)
def test_addresses_of_nothing_are_errors(
    lab: Lab, names: list[str], address: str, kind: str
) -> None:
    """An address that names nothing is an error, so that a typing mistake is not 'all done'."""
    with pytest.raises(InvalidInputError) as caught:
        select(lab.stores, ["recall://lab/a/far.nwb", address])
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("glob", "matching", "others"),
    [
        ("[a-c]", "abc", "d-/"),
        ("[!a-c]", "d-", "abc/"),
        ("[c-a]", "", "abc-"),
        ("[a-]", "a-", "b"),
        ("[^a]", "^a", "b"),
        ("[&&||~]", "&|~", "a"),
    ],
)
def test_bracketed_sets(glob: str, matching: str, others: str) -> None:
    """Sets and ranges match one character as in a shell, and never a folder's slash."""
    pattern = glob_pattern(glob)
    assert all(pattern.fullmatch(character) for character in matching)
    assert not any(pattern.fullmatch(character) for character in others)


@given(st.text(alphabet="ab/*?[]!^-\\.é", max_size=12))
def test_any_glob_is_a_valid_pattern(glob: str) -> None:
    """No text makes an invalid pattern."""
    assert isinstance(glob_pattern(glob), re.Pattern)


@given(st.text(alphabet="ab/[]!^-\\.é+(){}|$", max_size=12))
def test_text_without_wildcards_matches_itself(text: str) -> None:
    """A name without wildcards, brackets closed or not, is matched by its own characters."""
    if re.search(r"\[[^]]+\]", text):
        return
    assert glob_pattern(text).fullmatch(text)
