"""Copies of what many tests begin with: a new store, with files derived, proved and released in it.

Each process of the tests makes each once, with the code under test, and copies it from then on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from recallfs.catalog.store import Store, create_store
from recallfs.values import Identity, State

_PLACES = ("lab", "vault")
_CATALOG = "lab/.recall/catalog.sqlite"
_NAMING = ("lab/.recall/store.toml", "lab/.recall/vault-used", "vault/*/store.toml")
"""Files that name the folder which all is below."""

_WORK = ("staging", "aside", "partial")

Look = dict[str, tuple[int, int, int]]

_made: dict[str, Path] = {}


def new_store(base: Path) -> None:
    """Put a new store called ``lab`` and its vault below a folder."""
    kept = _made.get("")
    if kept is None:
        create_store(base / "lab", "lab", vault=base / "vault").catalog.close()
        _made[""] = _keep(base)
    else:
        for place in _PLACES:
            shutil.copytree(kept / place, base / place)
        _name_anew(kept, base)


def look(base: Path) -> Look:
    """Note which files are below the folder, so that any change shows."""
    found: Look = {}
    for place in _PLACES:
        for folder, folders, files in os.walk(base / place):
            for name in (*folders, *files):
                path = os.path.join(folder, name)  # noqa: PTH118 - runs for each file
                status = os.lstat(path)
                # Opening the catalog, to read it only, makes these.
                if not path.endswith("-shm") and (status.st_size or not path.endswith("-wal")):
                    there = (status.st_mode, status.st_size, status.st_mtime_ns)
                    found[path] = there if name in files else (status.st_mode, 0, 0)
    return found


def step(
    base: Path,
    store: Callable[[], Store],
    steps: Sequence[str],
    act: Callable[[], object],
    is_alone: Callable[[], bool],
) -> None:
    """Take the last of the steps from a new store on, or copy what they gave before.

    Under other environment variables they are other steps. What was made while somebody else was at
    work in the store is not kept.
    """
    variables = sorted(
        f"{key}={text}".replace(str(base), "")
        for key, text in os.environ.items()
        if key != "PYTEST_CURRENT_TEST"
    )
    key = hashlib.sha256(repr((steps, variables)).encode()).hexdigest()
    kept = _made.get(key)
    if kept is None:
        act()
        folder = _keep(base)
        if is_alone() and not any(
            next((base / "lab/.recall" / name).iterdir(), None) for name in _WORK
        ):
            _made[key] = folder
        return
    for place in _PLACES:
        there = {path.relative_to(base) for path in (base / place).rglob("*") if path.is_file()}
        wanted = {path.relative_to(kept) for path in (kept / place).rglob("*") if path.is_file()}
        for path in there - wanted:
            if not str(path).startswith(_CATALOG):
                (base / path).unlink()
        shutil.copytree(
            kept / place,
            base / place,
            ignore=shutil.ignore_patterns(Path(_CATALOG).name),
            dirs_exist_ok=True,
        )
    _name_anew(kept, base)
    _copy_catalog(kept, base)
    catalog = store().catalog
    for entry in catalog.entries_below(""):
        if entry.identity is not None:
            identity = Identity.from_stat((base / "lab" / entry.path).stat())
            catalog.see(entry, State.RESIDENT, identity)


def _keep(base: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="ready-made-", dir=base.parent))
    for place in _PLACES:
        shutil.copytree(
            base / place,
            folder / place,
            ignore=shutil.ignore_patterns(f"{Path(_CATALOG).name}*"),
        )
    _copy_catalog(base, folder)
    shutil.copystat(base / _CATALOG, folder / _CATALOG)
    _name_anew(base, folder)
    return folder


def _copy_catalog(source: Path, target: Path) -> None:
    """Copy it as SQLite does, past what others have open.

    Never by opening the file itself: to close it again drops the locks that this process has on it,
    and then another one may remove the log that is still written to.
    """
    with (
        contextlib.closing(sqlite3.connect(source / _CATALOG)) as old,
        contextlib.closing(sqlite3.connect(target / _CATALOG)) as new,
    ):
        old.backup(new)


def _name_anew(old: Path, new: Path) -> None:
    for pattern in _NAMING:
        for path in new.glob(pattern):
            path.write_text(path.read_text().replace(f"{old}/", f"{new}/"))
