"""Make sure that a path that is about to be opened is there, if a store can bring it back."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recallfs.errors import AccessError, ConflictError
from recallfs.readers.company import agrees, is_denied, shell
from recallfs.readers.reach import is_in_reach
from recallfs.readers.telling import Teller
from recallfs.values import State, display_name

if TYPE_CHECKING:
    from recallfs.catalog.store import Store
    from recallfs.partial.opening import Parts
    from recallfs.partial.reading import PartialFile
    from recallfs.resolve.stores import Stores
    from recallfs.resolve.wish import Recalled
    from recallfs.values import Entry

_READING = ("r", "r+", "a")

_lexists = os.path.lexists


def make_available(name: Any, mode: str = "r") -> Any:
    """Bring a released or missing file back before it is opened.

    Parameters
    ----------
    name : str, bytes or os.PathLike
        What the caller gave, a path or a ``recall://`` URL; anything else (an open file, a buffer)
        is left alone, and so is a path that exists, or that no store knows.
    mode : str
        As h5py has it. Modes that make a new file are refused at a released path.

    Returns
    -------
    object
        What to open: `name`, or the path in the caller's cache if the caller may not write to the
        store, or the path that a URL stands for.

    Raises
    ------
    RecallError
        If the file is known, but cannot be brought back.
    AccessError
        If it is to be changed, and the caller may not write to the store; also kind
        ``not-agreed``.
    ConflictError
        If a new file would take a released one's place.
    """
    if not is_of_a_store(name):
        return name
    text = os.fsdecode(name)
    if text.startswith("recall://"):
        return _url_made_available(text, mode)
    if _lexists(name):
        return name
    # Only a missing file of a store comes this far, so what follows costs ordinary opens nothing.
    from recallfs.resolve.stores import stores_in_reach

    stores = stores_in_reach()
    found = _found(stores, text)
    if found is None:
        return name
    path = _entry_made_available(stores, *found, mode)
    return name if path is None else path


def parts_of(name: Any) -> Parts | None:
    """Return a file that is not here and is to be read in parts; None for all others.

    Parameters
    ----------
    name : str, bytes or os.PathLike
        As for `make_available`.
    """
    if not isinstance(name, (str, bytes, os.PathLike)):
        return None
    text = os.fsdecode(name)
    is_url = text.startswith("recall://")
    if not is_url and (not is_in_reach(text) or _lexists(name)):
        return None
    from recallfs.resolve.stores import stores_in_reach

    stores = stores_in_reach()
    if stores.config.readers.partial == "never" or _is_denied(stores):
        return None
    found = _found(stores, text)
    if found is None:
        return None
    from recallfs.partial.opening import find_parts

    parts = find_parts(stores, *found)
    return parts if parts is not None and parts.choice().is_partial else None


def is_of_a_store(name: Any) -> bool:
    """Tell whether what a reader was given is a URL of ours, or a path that may be in a store."""
    text = name
    if name.__class__ is not str:  # most are, and the rest takes longer than all else here
        if not isinstance(name, (str, bytes, os.PathLike)):
            return False
        text = os.fsdecode(name)
    return is_in_reach(text) or text.startswith("recall://")


def opened_in_parts(name: Any) -> PartialFile | None:
    """Open a file in parts if `parts_of` says so; the user is told if all of it must come."""
    parts = parts_of(name)
    if parts is None:
        return None
    from recallfs.partial.opening import hdf5_parts
    from recallfs.resolve.wish import Wish

    teller = Teller(parts.entry.size_bytes, shell())
    wish = Wish(announce=teller.announce, progress=teller.progress)
    return hdf5_parts(parts, wish)


def make_folder_available(name: Any) -> Any:
    """Bring all released files below a folder back before it is read; a file alone, too.

    Parameters
    ----------
    name : str, bytes or os.PathLike
        As for `make_available`.

    Returns
    -------
    object
        What to open.

    Raises
    ------
    AccessError
        Also if the caller may not write to the store: a cache holds files, no folders.
    RecallError
    """
    if not isinstance(name, (str, bytes, os.PathLike)):
        return name
    text = os.fsdecode(name)
    is_url = text.startswith("recall://")
    if not is_url and not is_in_reach(f"{text.rstrip('/')}/"):
        return name
    from recallfs.resolve.stores import stores_in_reach

    stores = stores_in_reach()
    found = _found(stores, text)
    if found is None:
        return name
    store, path = found
    place = str(store.root / path)
    if store.catalog.entry_at(path) is not None:
        return make_available(text)
    released = [
        entry
        for entry in store.catalog.entries_below(path)
        if entry.state is State.RELEASED and not _lexists(store.root / entry.path)
    ]
    if released and not _is_denied(stores):
        if not store.is_writable:
            raise AccessError(
                f"files of {store.url(path)} are released, and you cannot write to its store; ask "
                "somebody who can to `recall get` the folder."
            )
        _bring(stores, store, path, released)
    return place if is_url else name


def _found(stores: Stores, text: str) -> tuple[Store, str] | None:
    """Return store and path of a URL, or of a path if it is in a store."""
    if text.startswith("recall://"):
        return stores.resolve(text)
    return stores.containing(Path(os.path.abspath(text)))  # noqa: PTH100 - keeps symlinks


def _url_made_available(url: str, mode: str) -> str:
    from recallfs.resolve.stores import stores_in_reach

    stores = stores_in_reach()
    store, path = stores.resolve(url)
    place = str(store.root / path)
    if _lexists(place):
        return place
    return _entry_made_available(stores, store, path, mode) or place


def _entry_made_available(stores: Stores, store: Store, path: str, mode: str) -> str | None:
    """Return where a file is after it was brought back; None if that is not to be done."""
    entry = store.catalog.entry_at(path)
    if entry is None:
        return None
    if mode not in _READING:
        if entry.state is not State.RELEASED:
            return None  # a file that vanished may be made anew by whoever makes it
        raise ConflictError(
            f"{store.url(path)} is released; a new file in its place would hide it. "
            "`recall forget` it first, or write to another path.",
            details={"path": path},
        )
    if _is_denied(stores):
        return None
    if mode != "r" and not store.is_writable:
        raise AccessError(f"you cannot write to the store of {store.url(path)}; open it with 'r'.")
    return str(_bring(stores, store, path, [entry])[0].path)


def _is_denied(stores: Stores) -> bool:
    return is_denied(stores.config.readers.deny, os.getpid(), sys.argv[0] if sys.argv else "")


def _bring(stores: Stores, store: Store, path: str, entries: Sequence[Entry]) -> list[Recalled]:
    """Recall a file, or the files of a folder; the user is told once."""
    from recallfs.resolve.recall import recall
    from recallfs.resolve.wish import Wish

    settings = stores.config.readers
    size_bytes = sum(entry.size_bytes for entry in entries)
    _ask_first(stores, store, path, size_bytes, entries)
    with Teller(size_bytes, shell()) as teller:
        wish = Wish(announce=teller.announce, progress=teller.progress)

        def work() -> list[Recalled]:
            return [recall(stores, store, entry.path, wish) for entry in entries]

        if settings.on_interrupt == "drop":
            return work()
        return _done_regardless(work, store.url(path))


def _ask_first(
    stores: Stores, store: Store, path: str, size_bytes: int, entries: Sequence[Entry]
) -> None:
    """Refuse what is larger or takes longer than the user wants without being asked."""
    settings = stores.config.readers
    reasons = []
    if settings.ask_above is not None and size_bytes > settings.ask_above:
        reasons.append(f"has {size_bytes / 1e9:.3g} GB")
    if settings.ask_after is not None:
        from recallfs.resolve.chain import plan_for

        # Files of one folder come from one run: the longest counts, not their sum.
        firsts = (plan_for(stores, store, entry).steps[:1] for entry in entries)
        seconds = max((step.expected_s or 0.0 for steps in firsts for step in steps), default=0.0)
        if seconds > settings.ask_after.total_seconds():
            reasons.append(f"took {seconds / 60:.3g} min last time")
    if not reasons:
        return
    url = store.url(path)
    answer = agrees(f"{url} {' and '.join(reasons)}. Bring it back?")
    if answer:
        return
    why = "nobody is there to be asked" if answer is None else "you said no"
    raise AccessError(
        f"{url} {' and '.join(reasons)}, and {why}; `recall get {url}` brings it back.",
        kind="not-agreed",
        details={"path": path, "bytes": size_bytes},
    )


def _done_regardless(work: Callable[[], list[Recalled]], url: str) -> list[Recalled]:
    """Do work in a thread of its own, which goes on when Ctrl-C interrupts the wait."""
    results: list[list[Recalled]] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            errors.append(error)

    thread = threading.Thread(target=run, name=f"recall {url}")
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        sys.stderr.write(
            f"recallfs: {display_name(url)} goes on coming back; open it again to wait for it.\n"
        )
        raise
    if errors:
        raise errors[0]
    return results[0]
