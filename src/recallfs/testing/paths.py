"""Paths as a plain model has them, beside which a catalog's answers are held."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from recallfs.catalog.database import Catalog
from recallfs.catalog.sidecar import Record
from recallfs.errors import ConflictError
from recallfs.testing.records import plain_record

AWKWARD = [
    "a/x", "a-2/y", "a0/z", "a", "a-2", "a!/b", "a!", "a/x/deep/er", "a\x01/b", "a\x01",
    "Ω/ω", "Ω", "é/1", "e\u0301/1", "é", "e\u0301", "ß", "ss", "z z/ b", "z z", "z z ", " z z",
    "0", "/".join("nested"), "a.b/c", "a%/x", "a_/x", "A/x", "A", "aa/x", "a/b-1/f", "a/b/f",
    "a/b0/f", "a/b", "\U0001f9e0/x", "\U0001f9e0", "\U0001f9e1", "\uffee", "-", "~/x", "a'b", 'a"b',
    "a\\b", "a\\", "%", "_", "\x7f", "\t", "a\n", "'; DROP TABLE entries; --", ":p", "%s", "%(p)s",
    "?", "{}", "NULL", "İ", "i", "I", "\u0131", "\u200b", "\u202e",
    "n" * 255 + "/" + "n" * 255, "/".join(["\U0001f9e0" * 63] * 10), ("/" + "d" * 199) * 13,
]  # fmt: skip
"""Names that databases and careless queries confuse; the last ones are as long as may be."""

AWKWARD[-1] = AWKWARD[-1].lstrip("/")


def check_listings(catalog: Catalog, paths: set[str], folders: set[str]) -> None:
    """Compare every listing with one made from the plain set of paths."""
    for folder in folders:
        prefix = f"{folder}/" if folder else ""
        below = [path for path in paths if path.startswith(prefix)]
        files = sorted(path for path in below if "/" not in path[len(prefix) :])
        names = {path[len(prefix) :].split("/")[0] for path in set(below) - set(files)}
        entries, subfolders = catalog.children(folder)
        assert [entry.path for entry in entries] == files
        assert sorted(subfolders) == sorted(names)
        at = {folder} & paths
        listed = sorted({*below, *at})
        assert [entry.path for entry in catalog.entries_below(folder)] == listed
        assert [place.path for place in catalog.places_below(folder)] == listed


def folders_of(paths: set[str]) -> set[str]:
    """Return every folder above the paths, the paths themselves and near misses."""
    parts = [path.split("/") for path in paths]
    above = {"/".join(names[:i]) for names in parts for i in range(len(names) + 1)}
    return above | {f"{folder}0" for folder in above} | {"absent"}


def moved_to(record: Record, path: str) -> Record:
    """Return a record as it is after a move."""
    return replace(record, entry=replace(record.entry, path=path))


_NAMES = st.text(
    st.sampled_from("aAb-0!. %_'\\\x01Ωé\u0301ß\U0001f9e0\uffee"), min_size=1, max_size=3
).filter(lambda name: name not in (".", ".."))
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)


class PathsMachine(RuleBasedStateMachine):
    """What stands where: a catalog beside a dictionary."""

    catalog: ClassVar[Catalog]

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, Record] = {}
        self.made = 0

    @initialize(paths=st.sets(_PATHS, max_size=8))
    def begin(self, paths: set[str]) -> None:
        """Start with an index made anew."""
        self.model = {path: plain_record(path) for path in paths}
        self.catalog.replace_all(self.model.values, {})

    @rule(path=_PATHS)
    def put(self, path: str) -> None:
        """Add an entry; at a path that is taken it is refused."""
        self.made += 1
        record = plain_record(path, name=f"{self.made} {path}")
        if path in self.model:
            with pytest.raises(ConflictError):
                self.catalog.put([record])
        else:
            self.catalog.put([record])
            self.model[path] = record

    @precondition(lambda self: self.model)
    @rule(data=st.data(), path=_PATHS)
    def move(self, data: st.DataObject, path: str) -> None:
        """Move an entry; onto another it is refused."""
        old = data.draw(st.sampled_from(sorted(self.model)))
        moved = moved_to(self.model[old], path)
        if path in self.model and path != old:
            with pytest.raises(ConflictError):
                self.catalog.put([moved])
        else:
            self.catalog.put([moved])
            del self.model[old]
            self.model[path] = moved

    @precondition(lambda self: len(self.model) > 1)
    @rule(data=st.data())
    def exchange(self, data: st.DataObject) -> None:
        """Two entries take each other's path."""
        one = data.draw(st.sampled_from(sorted(self.model)))
        two = data.draw(st.sampled_from(sorted(self.model)))
        if one != two:
            changed = {one: moved_to(self.model[two], one), two: moved_to(self.model[one], two)}
            self.catalog.put(list(changed.values()))
            self.model.update(changed)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def take_the_place(self, data: st.DataObject) -> None:
        """Replace an entry by a new one on purpose."""
        self.made += 1
        path = data.draw(st.sampled_from(sorted(self.model)))
        record = plain_record(path, name=f"{self.made} {path}")
        self.catalog.put([record], replacing=[self.model[path].entry.id])
        self.model[path] = record

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """Forget an entry."""
        path = data.draw(st.sampled_from(sorted(self.model)))
        self.catalog.drop(self.model.pop(path).entry.id)

    @invariant()
    def answers_agree(self) -> None:
        """Hold every answer about paths against the dictionary."""
        paths = set(self.model)
        check_listings(self.catalog, paths, {"", *(path.split("/")[0] for path in paths)})
        found = self.catalog.entries_at([*paths, "absent"])
        assert {path: entry.id for path, entry in found.items()} == {
            path: record.entry.id for path, record in self.model.items()
        }
        assert self.catalog.is_empty() == (not paths)
