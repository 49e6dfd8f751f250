"""Selections: which entries a command is about."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from recallfs.catalog.database import Place
from recallfs.catalog.evidence import Listed, listed_below
from recallfs.catalog.store import Store
from recallfs.errors import InvalidInputError
from recallfs.resolve.stores import Stores
from recallfs.values import Entry, now_utc

_Placed = TypeVar("_Placed", Entry, Place, Listed)

_MAGIC = re.compile(r"[*?\[]")


def select(stores: Stores, addresses: Sequence[str]) -> list[tuple[Store, Entry]]:
    """Return the entries that addresses name, each once.

    Parameters
    ----------
    addresses : sequence of str
        ``recall://`` URLs or plain paths: of a file, of a folder (all below it), or with ``*``,
        ``?``, ``[…]`` (within one folder) and ``**`` (any depth). Released files match too.

    Raises
    ------
    InvalidInputError
        Kind ``unknown-entry`` for an address that names nothing.
    """
    return _select(stores, addresses, lambda store, folder: store.catalog.entries_below(folder))


def select_places(stores: Stores, addresses: Sequence[str]) -> list[tuple[Store, Place]]:
    """Return where the entries stand that addresses name; many times quicker than `select`.

    Raises
    ------
    InvalidInputError
        As for `select`.
    """
    return _select(stores, addresses, lambda store, folder: store.catalog.places_below(folder))


def select_listed(
    stores: Stores, addresses: Sequence[str]
) -> list[tuple[Store, Place]] | list[tuple[Store, Listed]]:
    """Return what `select_places` does; of a file or folder with what the catalog says of them.

    Raises
    ------
    InvalidInputError
        As for `select`.
    """
    if any(map(_MAGIC.search, addresses)):
        # Of all that are gone through to find those of a pattern no more than that is needed.
        return select_places(stores, addresses)
    now = now_utc()
    return _select(stores, addresses, lambda store, below: listed_below(store.catalog, below, now))


def _select(
    stores: Stores, addresses: Sequence[str], below: Callable[[Store, str], Iterable[_Placed]]
) -> list[tuple[Store, _Placed]]:
    found: dict[str, tuple[Store, _Placed]] = {}
    for address in addresses:
        matches = _matching(stores, address, below)
        if not matches:
            raise InvalidInputError(
                f"{address} names no entry of the catalog; `recall add` catalogs existing files.",
                kind="unknown-entry",
                details={"address": address},
            )
        if len(addresses) == 1:
            return matches
        found.update({entry.id: (store, entry) for store, entry in matches})
    return list(found.values())


def _matching(
    stores: Stores, address: str, below: Callable[[Store, str], Iterable[_Placed]]
) -> list[tuple[Store, _Placed]]:
    literal = _MAGIC.split(address, maxsplit=1)[0]
    if literal == address:
        store, path = stores.resolve(address)
        return [(store, entry) for entry in below(store, path)]
    # A file whose very name holds such a character is named by that name.
    store, path = stores.resolve(address)
    exact = [entry for entry in below(store, path) if entry.path == path]
    if exact:
        return [(store, exact[0])]
    pattern = glob_pattern(path)
    folder = _MAGIC.split(path, maxsplit=1)[0].rpartition("/")[0]
    return [(store, entry) for entry in below(store, folder) if pattern.fullmatch(entry.path)]


def glob_pattern(glob: str) -> re.Pattern[str]:
    """Translate a glob: ``*`` and ``?`` stay within one folder, ``**`` crosses folders."""
    pattern = ""
    index = 0
    while index < len(glob):
        rest = glob[index:]
        group = re.match(r"\[(!?)([^\]]+)\]", rest)
        if rest.startswith("**/"):
            pattern, index = pattern + "(?:.*/)?", index + 3
        elif rest.startswith("**"):
            pattern, index = pattern + ".*", index + 2
        elif rest[0] == "*":
            pattern, index = pattern + "[^/]*", index + 1
        elif rest[0] == "?":
            pattern, index = pattern + "[^/]", index + 1
        elif group is not None:
            pattern, index = pattern + _set_pattern(group[2], group[1]), index + group.end()
        else:
            pattern, index = pattern + re.escape(rest[0]), index + 1
    return re.compile(pattern, re.DOTALL)


def _set_pattern(inner: str, negation: str) -> str:
    """Translate what is between a glob's brackets; a range that runs backwards is empty."""
    parts = ""
    while inner:
        low, high = inner[0], inner[0]
        if len(inner) > 2 and inner[1] == "-":
            high, inner = inner[2], inner[2:]
        inner = inner[1:]
        if low <= high:
            parts += f"\\U{ord(low):08x}-\\U{ord(high):08x}"
    if not parts:
        return "[^/]" if negation else "(?!)"
    return f"(?!/)[{'^' if negation else ''}{parts}]"
