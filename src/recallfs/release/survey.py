"""What a survey found: sums by folder, age and kind; `recallfs.release.walk` gathers them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recallfs.release import kinds

AGES = (("month", 30), ("quarter", 91), ("year", 365), ("two_years", 730))
"""Names and lengths, in days, of the spans of age; what is left is 'older'."""

_TOLD = 20


@dataclass
class Amount:
    """Files and their bytes.

    Parameters
    ----------
    files : int
    size_bytes : int
        Their lengths.
    disk_bytes : int
        What they take on disk.
    """

    files: int = 0
    size_bytes: int = 0
    disk_bytes: int = 0

    def add(self, files: int, size_bytes: int, disk_bytes: int) -> None:
        """Add to it."""
        self.files += files
        self.size_bytes += size_bytes
        self.disk_bytes += disk_bytes

    def to_json(self) -> dict[str, int]:
        """Return it as JSON."""
        return vars(self).copy()


@dataclass
class FolderAmount(Amount):
    """What is in a folder and below it, with the newest times in nanoseconds since 1970."""

    modified_ns: int = 0
    accessed_ns: int = 0

    @property
    def last_modified(self) -> str:
        """ISO time of the newest change; empty where there is no file."""
        return _moment(self.modified_ns)

    @property
    def last_accessed(self) -> str:
        """ISO time of the newest access; empty where there is no file."""
        return _moment(self.accessed_ns)


@dataclass
class Told:
    """Places of some sort: all are counted, and the first few are named."""

    count: int = 0
    first: list[dict[str, str]] = field(default_factory=list)

    def add(self, path: str, why: str = "") -> None:
        """Count a place."""
        self.count += 1
        if len(self.first) < _TOLD:
            self.first.append({"path": kinds.shown(path), "why": why})


@dataclass
class StoreAmount:
    """What of a store's files its catalog knows."""

    root: str
    name: str
    catalogued: Amount = field(default_factory=Amount)
    with_recipe: Amount = field(default_factory=Amount)
    proved: Amount = field(default_factory=Amount)
    problem: str = ""


def _by_age() -> dict[str, Amount]:
    return {name: Amount() for name in (*(name for name, _ in AGES), "older")}


@dataclass
class Survey:
    """What was found; see `to_json` for how it is told."""

    roots: list[str]
    started_at: str
    total: Amount = field(default_factory=Amount)
    folder_count: int = 0
    folders: dict[str, FolderAmount] = field(default_factory=dict)
    modified: dict[str, Amount] = field(default_factory=_by_age)
    accessed: dict[str, Amount] = field(default_factory=_by_age)
    access_times: list[dict[str, Any]] = field(default_factory=list)
    kinds: dict[str, Amount] = field(default_factory=dict)
    kind_folders: dict[str, int] = field(default_factory=dict)
    endings: dict[str, Amount] = field(default_factory=dict)
    nwb_looked_into: int = 0
    nwb_unread: int = 0
    nwb_versions: dict[str, int] = field(default_factory=dict)
    nwb_writers: dict[str, int] = field(default_factory=dict)
    nwb_types: dict[str, int] = field(default_factory=dict)
    stores: list[StoreAmount] = field(default_factory=list)
    linked: Amount = field(default_factory=Amount)
    more_names: int = 0
    sparse: Amount = field(default_factory=Amount)
    links: int = 0
    special: int = 0
    vanished: int = 0
    unreadable: Told = field(default_factory=Told)
    other_file_systems: Told = field(default_factory=Told)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return everything, folders and kinds with the largest first."""
        return {
            "roots": [kinds.shown(root) for root in self.roots],
            "at": self.started_at,
            **self.total.to_json(),
            "folder_count": self.folder_count,
            "folders": [
                {
                    "path": kinds.shown(path),
                    "files": item.files,
                    "size_bytes": item.size_bytes,
                    "disk_bytes": item.disk_bytes,
                    "last_modified": item.last_modified,
                    "last_accessed": item.last_accessed,
                }
                for path, item in largest(self.folders)
            ],
            "modified": {name: item.to_json() for name, item in self.modified.items()},
            "accessed": {name: item.to_json() for name, item in self.accessed.items()},
            "access_times": self.access_times,
            "kinds": [
                {"kind": kind, "folders": self.kind_folders.get(kind, 0), **item.to_json()}
                for kind, item in largest(self.kinds)
            ],
            "other_endings": [
                {"ending": kinds.shown(ending), **item.to_json()}
                for ending, item in largest(self.endings)
            ],
            "nwb": {
                "looked_into": self.nwb_looked_into,
                "unread": self.nwb_unread,
                "versions": _most(self.nwb_versions),
                "writers": _most(self.nwb_writers),
                "types": _most(self.nwb_types),
            },
            "stores": [
                {
                    "root": kinds.shown(store.root),
                    "name": store.name,
                    "catalogued": store.catalogued.to_json(),
                    "with_recipe": store.with_recipe.to_json(),
                    "proved": store.proved.to_json(),
                    "problem": store.problem,
                }
                for store in self.stores
            ],
            "hard_links": {**self.linked.to_json(), "more_names": self.more_names},
            "sparse": self.sparse.to_json(),
            "symbolic_links": self.links,
            "special_files": self.special,
            "vanished": self.vanished,
            "unreadable": vars(self.unreadable),
            "other_file_systems": vars(self.other_file_systems),
            "seconds": self.seconds,
        }


def largest(amounts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return amounts by name, those that take most on disk first."""
    return sorted(amounts.items(), key=lambda pair: (-pair[1].disk_bytes, pair[0]))


def _most(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _moment(ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ns // 10**9)) if ns else ""
