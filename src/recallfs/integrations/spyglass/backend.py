"""The hook: Spyglass asks recallfs for a file that is gone, before it recomputes it itself.

Spyglass looks for a missing file in Kachery, then in DANDI, and then calls the table's
``_make_file`` where there is one. `install` gives every table one, which asks a `RecallBackend`
first. The backend is all that a chain of file backends needs; nothing in it knows of tables.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recallfs.errors import AccessError
from recallfs.integrations.spyglass.database import told_plainly
from recallfs.readers.availability import make_available

_METHOD = "_make_file"
_PYNAPPLE = "fetch_pynapple"
_LOOKED_AT = "_validate_recording_path"
_HOOK = "__init_subclass__"

_lock = threading.RLock()
_wrapped: list[tuple[type, str, Any]] = []  # class, attribute, what stood there or _NOTHING
_NOTHING = object()


class RecallBackend:
    """A place to get files from: the recallfs stores of this computer."""

    name = "recallfs"

    def fetch(self, path: str | Path) -> bool:
        """Bring a file back to its path, byte for byte; of a folder, all its files.

        Parameters
        ----------
        path : str or Path
            Absolute, inside a store.

        Returns
        -------
        bool
            False if no store knows of the file; then another backend may be asked.

        Raises
        ------
        RecallError
            A store knows of it, but could not bring it back. No other content is ever put there.
        AccessError
            The caller may not write to the store.
        """
        place = Path(path)
        if place.is_file():
            return True
        from recallfs.resolve.stores import stores_in_reach

        found = stores_in_reach().containing(place)
        # A folder is what has entries below it; that of a file has the file's own only.
        entries = [] if found is None else list(found[0].catalog.entries_below(found[1]))
        if found is None or not entries:
            return False
        places = [found[0].locate(entry.path) for entry in entries]
        if not found[0].is_writable and not all(item.exists() for item in places):
            # It would come back into the caller's cache, and be of no use there.
            raise AccessError(
                f"{place} is released, and you may not write to its folder; Spyglass reads it from "
                "nowhere else. Somebody who may write there brings it back with "
                f"`recall get {place}`.",
                details={"path": os.fspath(place)},
            )
        for item in places:
            if not item.exists():
                make_available(item)
        return all(item.exists() for item in places)


def install() -> None:
    """Make Spyglass' ways of reading bring released files back.

    ``fetch_nwb()``, ``get_recording()``, ``fetch_pynapple()``, and folders of spikesorting v0.

    Works on tables that are loaded and on those that will be. Calling it again changes nothing. The
    database is not written to. Does nothing inside a recipe's worker.

    Raises
    ------
    InvalidInputError
        Spyglass cannot be imported.
    SourceError
        Its database does not answer.

    See Also
    --------
    uninstall
    """
    if os.environ.get("RECALLFS_WORKER"):
        return
    with told_plainly():
        from spyglass.utils import SpyglassMixin
    with _lock:
        if _wrapped:
            return
        _set(SpyglassMixin, _METHOD, classmethod(_recalled))
        _set(SpyglassMixin, _PYNAPPLE, _with_files(SpyglassMixin.fetch_pynapple))
        for table in list(_subclasses(SpyglassMixin)):
            _wrap(table)
        _set(SpyglassMixin, _HOOK, classmethod(_with_coming_tables(SpyglassMixin)))


def uninstall() -> None:
    """Undo `install`, leaving Spyglass as it was."""
    with _lock:
        for owner, attribute, before in reversed(_wrapped):
            if before is _NOTHING:
                delattr(owner, attribute)
            else:
                setattr(owner, attribute, before)
        _wrapped.clear()


def is_installed() -> bool:
    """Tell whether Spyglass asks recallfs."""
    return bool(_wrapped)


def _set(owner: type, attribute: str, value: Any) -> None:
    _wrapped.append((owner, attribute, vars(owner).get(attribute, _NOTHING)))
    setattr(owner, attribute, value)


def _subclasses(owner: type) -> Iterator[type]:
    below: type
    for below in owner.__subclasses__():
        yield below
        yield from _subclasses(below)


def _with_coming_tables(mixin: type) -> Any:
    inherited = mixin.__init_subclass__

    def init_subclass(cls: type, **options: Any) -> None:
        inherited.__func__(cls, **options) if hasattr(inherited, "__func__") else inherited(
            **options
        )
        with _lock:
            if _wrapped:
                _wrap(cls)

    return init_subclass


def _wrap(table: type) -> None:
    """Let a table's own ``_make_file`` be asked only for files that no store knows of."""
    if any(owner is table for owner, *_ in _wrapped):
        return
    if _LOOKED_AT in vars(table):
        _set(table, _LOOKED_AT, _with_folder(vars(table)[_LOOKED_AT]))
    own = vars(table).get(_METHOD)
    if own is None:
        return
    is_classmethod = isinstance(own, classmethod)
    function = own.__func__ if is_classmethod else own

    @functools.wraps(function)
    def make_file(table: Any, *args: Any, **options: Any) -> Any:
        found = None
        if not args and set(_given(options)) == {"recompute_file_name"}:
            found = _recalled(table, options["recompute_file_name"])
        return function(table, *args, **options) if found is None else found

    _set(table, _METHOD, classmethod(make_file) if is_classmethod else make_file)


def _with_files(function: Any) -> Any:
    """Let files be looked for as ``fetch_nwb`` does; ``fetch_pynapple`` itself does not."""

    @functools.wraps(function)
    def fetch(query: Any, *args: Any, **options: Any) -> Any:
        names, path_of = query._get_nwb_files_and_path_fn(*query._nwb_table_tuple, *args, **options)
        query._download_missing_files(names, path_of)
        return function(query, *args, **options)

    return fetch


def _with_folder(function: Any) -> Any:
    """Let a folder of spikesorting v0 be brought back before Spyglass counts its files."""

    @functools.wraps(function)
    def validate(table: Any, path: str, *args: Any, **options: Any) -> Any:
        RecallBackend().fetch(path)
        return function(table, path, *args, **options)

    return validate


def _given(options: dict[str, Any]) -> list[str]:
    return [name for name, value in options.items() if value is not None]


def _recalled(table: Any, recompute_file_name: str = "") -> Any:
    """Bring a file of a table back and open it; None if no store knows of it."""
    from spyglass.utils import nwb_helper_fn

    if not recompute_file_name:
        return None
    files, _ = (table() if isinstance(table, type) else table)._nwb_table_tuple
    path = files.get_abs_path(recompute_file_name, from_schema=True)
    return nwb_helper_fn._open_nwb_file(path) if RecallBackend().fetch(path) else None
